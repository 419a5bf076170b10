import type { AuditLog } from "../audit/audit-log.js";
import { CodedError } from "../coded-error.js";
import type { LiveCredential, RevocationReport } from "../control-api/authority-routes.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import { certificatesAmong, type IssuedCredential, type IssuedCredentials } from "../identity/issued-credentials.js";
import type { Revocation, Revocations } from "../identity/revocations.js";
import type { Clock } from "../platform/clock.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import type { EventBus } from "./event-bus.js";
import { findByName } from "./launching.js";

export interface RevokingOptions {
  readonly revocations: Revocations;
  readonly issued: IssuedCredentials;
  readonly registry: IdentityRegistry;
  readonly audit: AuditLog;
  readonly clock: Clock;
  readonly bus: EventBus;
  /** The longest that anything issued may still be valid, seconds. */
  readonly longestSeconds: () => number;
  /** Size of the record when this daemon started: what was issued before is only there. */
  readonly recordedBefore: number;
}

/** Revokes identities, and says what that cannot reach. */
export interface Revoking {
  /** Throws CodedError `identity-unknown`, and what the record throws; the revocation is in force all the same. */
  revoke(
    id: string,
    until: { readonly forSeconds?: number | undefined; readonly untilRestart: boolean },
  ): Promise<RevocationReport & { readonly credentials: LiveCredential[] }>;
  /** Throws CodedError `not-revoked`, and what the record throws: then nothing has changed. */
  undo(id: string): { readonly spiffeId: string; readonly name: string };
  readonly list: readonly RevocationReport[];
}

/** Entries of the record that are read back at most: some minutes of a busy trust domain. */
const MOST_ENTRIES = 20_000;
const PAGE = 1_000;

export function createRevoking(options: RevokingOptions): Revoking {
  const { revocations, issued, registry, audit, clock, bus } = options;

  const nameOf = (id: SpiffeId): string => registry.find(id.toString())?.name ?? id.toString();
  const reportOf = ({ id, since, until }: Revocation): RevocationReport => ({
    spiffeId: id.toString(),
    name: nameOf(id),
    since: since.toISOString(),
    ...(until === undefined ? {} : { until: until === "restart" ? until : until.toISOString() }),
  });

  revocations.onChange((changed) => {
    if (changed === undefined) return;
    const { change, id, until } = changed;
    const spiffeId = id.toString();
    // What a person does is recorded where it is done, and answered only then; what time does is recorded here.
    if (change === "expired") audit.append("identity.restored", { spiffeId, why: "its time was over" }, { sync: true });
    bus.emit({
      event: "identity",
      name: nameOf(id),
      spiffeId,
      change: change === "revoked" ? "revoked" : "restored",
      ...(change === "revoked" && until instanceof Date ? { until: until.toISOString() } : {}),
    });
  });

  function idOf(nameOrId: string): SpiffeId {
    const identity = findByName(nameOrId, registry);
    if (identity !== undefined) return identity.id;
    // Also one that is no longer configured, or somebody else's: nobody is believed to be it.
    if (nameOrId.startsWith("spiffe://")) return SpiffeId.parse(nameOrId);
    throw new CodedError("identity-unknown", `agentid.yaml has no identity ${nameOrId}`, {
      hint: "one that is no longer configured is revoked by its SPIFFE ID: spiffe://…",
    });
  }

  /** What an earlier daemon has issued to `id` and is still valid, as the record tells it. */
  async function issuedEarlier(id: SpiffeId): Promise<readonly IssuedCredential[]> {
    const now = clock.now();
    const earliest = now - options.longestSeconds() * 1000;
    const found: IssuedCredential[] = [];
    const first = Math.max(0, options.recordedBefore - MOST_ENTRIES);
    for (let end = options.recordedBefore; end > first; end -= PAGE) {
      const from = Math.max(first, end - PAGE);
      const entries = (await audit.read(from, end - from)).toReversed();
      for (const { kind, fields, time } of entries) {
        if (Date.parse(time) < earliest) return found;
        if ((kind !== "svid.issued" && kind !== "svid.rotated") || fields.spiffeId !== id.toString()) continue;
        const notAfter = new Date(String(fields.notAfter));
        if (!(notAfter.getTime() > now)) continue;
        const serial = fields.serial ?? fields.tokenId;
        found.push({
          type: fields.type === "jwt" || fields.type === "wit" ? fields.type : "x509",
          serial: typeof serial === "string" ? serial : undefined,
          audience: Array.isArray(fields.audience) ? fields.audience.map(String) : undefined,
          notAfter,
          authority: String(fields.authority),
        });
      }
    }
    return found;
  }

  return {
    async revoke(nameOrId, { forSeconds, untilRestart }) {
      const id = idOf(nameOrId);
      const until = untilRestart
        ? ("restart" as const)
        : forSeconds === undefined
          ? undefined
          : new Date(clock.now() + forSeconds * 1000);
      // With the entry its instances.
      const instances = registry.instances(registry.find(id.toString())?.name ?? "").map((instance) => instance.id);
      const live = [id, ...instances].flatMap((each) => issued.of(each.toString(), clock.now()));
      revocations.revoke(id, until, certificatesAmong(live));
      const report = reportOf({ id, since: new Date(clock.now()), until });
      const serials = certificatesAmong(live).map(({ serial }) => serial);
      const { spiffeId, name } = report;
      audit.append(
        "identity.revoked",
        { spiffeId, identity: name, until: report.until ?? null, serials },
        { sync: true },
      );
      const earlier = await issuedEarlier(id);
      if (certificatesAmong(earlier).length > 0) revocations.revokeCertificates(certificatesAmong(earlier));
      return { ...report, credentials: [...live, ...earlier].map(credentialReport) };
    },
    undo(nameOrId) {
      const id = idOf(nameOrId);
      const spiffeId = id.toString();
      if (!revocations.isRevoked(id)) {
        throw new CodedError("not-revoked", `${id} is not revoked`, { hint: "agentid status lists what is" });
      }
      audit.append("identity.restored", { spiffeId, why: "undone by command" }, { sync: true });
      revocations.undo(id);
      return { spiffeId, name: nameOf(id) };
    },
    get list() {
      return revocations.list.map(reportOf);
    },
  };
}

function credentialReport({ type, serial, audience, notAfter, authority }: IssuedCredential): LiveCredential {
  return {
    type,
    ...(serial === undefined ? {} : { serial }),
    ...(audience === undefined ? {} : { audience: [...audience] }),
    notAfter: notAfter.toISOString(),
    authority,
  };
}
