import type { AuditLog } from "../audit/audit-log.js";
import { CodedError } from "../coded-error.js";
import type { Clock } from "../platform/clock.js";
import { type SpiffeBundle, serialiseSpiffeBundle } from "../spiffe/spiffe-bundle.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import { type EndpointAuthentication, fetchBundle } from "./bundle-client.js";
import { type BundlePoll, type Failure, type PollResult, startBundlePoll } from "./bundle-poll.js";
import type { KnownRelationship } from "./first-bundle.js";
import type { ForeignBundles } from "./foreign-bundles.js";

/** The trust domains whose endpoints we follow. */
export interface Relationships {
  /** What is followed from now on; what was learned by a relationship that is not among them is no longer believed. */
  follow(relationships: readonly KnownRelationship[]): void;
  readonly all: readonly FollowedRelationship[];
  /** Fetches one, or all, now. Throws CodedError `federation-unknown`. */
  refresh(
    trustDomain?: TrustDomain,
  ): Promise<readonly { readonly trustDomain: TrustDomain; readonly result: PollResult }[]>;
  close(): void;
}

export interface FollowedRelationship {
  readonly relationship: KnownRelationship;
  readonly poll: Pick<BundlePoll, "state" | "nextAt" | "lastSuccess" | "failure">;
}

export interface RelationshipsOptions {
  readonly foreign: ForeignBundles;
  /** Roots of our own trust domain, for an endpoint that it serves for another. */
  readonly ownAuthorities: (trustDomain: TrustDomain) => readonly Buffer[] | undefined;
  readonly clock: Clock;
  readonly audit: AuditLog;
  /** Told when a trust domain's bundle cannot be refreshed, and when that is over. */
  readonly onProblem: (trustDomain: TrustDomain, message: string, resolved: boolean) => void;
  /** Default: Node's. */
  readonly webAuthorities?: readonly string[];
}

export function createRelationships(options: RelationshipsOptions): Relationships {
  const { foreign, clock, audit } = options;
  const followed = new Map<string, { readonly relationship: KnownRelationship; readonly poll: BundlePoll }>();

  function start(relationship: KnownRelationship): void {
    const { trustDomain } = relationship;
    beginFromFile(relationship);
    const poll = startBundlePoll({
      clock,
      fetch: async (signal) => {
        const authentication = authenticationOf(relationship);
        const bundle = await fetchBundle(relationship.url, { authentication, now: () => clock.now(), signal });
        // The relationship may have ended meanwhile; then nothing of it counts any more.
        if (signal.aborted) throw new CodedError("federation-unknown", `${trustDomain} is no longer federated`);
        return accept(relationship, bundle);
      },
      refreshHintSeconds: () => (foreign.find(trustDomain)?.bundle ?? relationship.firstBundle)?.refreshHintSeconds,
      onResult: (result, before) => report(trustDomain, result, before),
    });
    followed.set(trustDomain.name, { relationship, poll });
  }

  /** A self-serving endpoint's bundle is the first that counts; `https_spiffe` needs one before it can ask for one. */
  function beginFromFile({ trustDomain, spiffe, firstBundle, key }: KnownRelationship): void {
    if (firstBundle === undefined || spiffe?.endpointId.memberOf(trustDomain) !== true) return;
    if (foreign.find(trustDomain) !== undefined) return;
    const source = { kind: "endpoint", relationship: key } as const;
    foreign.put({ trustDomain, bundle: firstBundle, source, receivedAt: new Date(clock.now()) });
  }

  function authenticationOf({ spiffe, firstBundle }: KnownRelationship): EndpointAuthentication {
    if (spiffe === undefined) {
      return { profile: "https_web", ...(options.webAuthorities && { authorities: options.webAuthorities }) };
    }
    const { endpointId } = spiffe;
    const { trustDomain } = endpointId;
    // Federation §5.2.2: with the bundle held for the endpoint's trust domain, which a self-serving endpoint refreshes by this very fetch.
    // An empty one was emptied by its owner, and the first bundle does not bring it back.
    const held = foreign.find(trustDomain)?.bundle.x509Authorities ?? options.ownAuthorities(trustDomain);
    return { profile: "https_spiffe", endpointId, authorities: held ?? firstBundle?.x509Authorities ?? [] };
  }

  function accept({ trustDomain, key }: KnownRelationship, bundle: SpiffeBundle): "changed" | "unchanged" {
    const held = foreign.find(trustDomain);
    const [before, after] = [held?.bundle.sequence, bundle.sequence];
    if (before !== undefined && after !== undefined && after < before) {
      throw new CodedError(
        "bundle-sequence-lower",
        `the endpoint of ${trustDomain} serves the bundle ${after}, which is older than ${before} at hand`,
        { hint: "if that is right, take it over: agentid bundle set" },
      );
    }
    const source = { kind: "endpoint", relationship: key } as const;
    const same = held !== undefined && serialiseSpiffeBundle(held.bundle) === serialiseSpiffeBundle(bundle);
    if (same && held.source.kind === "endpoint" && held.source.relationship === key) return "unchanged";
    foreign.put({ trustDomain, bundle, source, receivedAt: new Date(clock.now()) });
    return same ? "unchanged" : "changed";
  }

  function report(trustDomain: TrustDomain, result: PollResult, before: Failure | undefined): void {
    const message = result.outcome === "failed" ? result.message : undefined;
    if (message === before?.message) return;
    if (before !== undefined) options.onProblem(trustDomain, before.message, true);
    if (result.outcome !== "failed") return;
    options.onProblem(trustDomain, result.message, false);
    if (ATTACKS.has(result.code)) {
      audit.append("bundle.refused", { trustDomain: trustDomain.name, code: result.code, reason: result.message });
    }
  }

  return {
    follow(relationships) {
      const wanted = new Map(relationships.map((relationship) => [relationship.trustDomain.name, relationship]));
      for (const [name, { relationship, poll }] of [...followed]) {
        if (wanted.get(name)?.key === relationship.key) continue;
        poll.close();
        followed.delete(name);
        if (poll.failure !== undefined) options.onProblem(relationship.trustDomain, poll.failure.message, true);
      }
      for (const { trustDomain, source } of foreign.all) {
        if (source.kind === "endpoint" && wanted.get(trustDomain.name)?.key !== source.relationship) {
          foreign.remove(trustDomain, "its relationship is not in agentid.yaml");
        }
      }
      for (const [name, relationship] of wanted) if (!followed.has(name)) start(relationship);
    },
    get all() {
      return [...followed.values()];
    },
    async refresh(trustDomain) {
      if (trustDomain !== undefined && !followed.has(trustDomain.name)) {
        throw new CodedError("federation-unknown", `federation.trustDomains names no ${trustDomain}`);
      }
      const chosen = [...followed.values()].filter(
        ({ relationship }) => trustDomain === undefined || relationship.trustDomain.equals(trustDomain),
      );
      return await Promise.all(
        chosen.map(async ({ relationship, poll }) => ({
          trustDomain: relationship.trustDomain,
          result: await poll.refresh(),
        })),
      );
    },
    close() {
      for (const { poll } of followed.values()) poll.close();
      followed.clear();
    },
  };
}

/** What an endpoint that is merely away or broken does not do. */
const ATTACKS: ReadonlySet<string> = new Set([
  ...["endpoint-untrusted", "endpoint-redirect", "bundle-sequence-lower", "bundle-trust-domain", "bundle-malformed"],
]);
