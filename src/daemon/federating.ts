import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { messageOf } from "../coded-error.js";
import type { BundleEndpointConfig, HostPort, OidcConfig } from "../config/config.js";
import { formatAddress } from "../config/describe-federation.js";
import { openBundleEndpoint } from "../federation/bundle-endpoint.js";
import { type DocumentServer, isLoopbackAddress } from "../federation/document-server.js";
import type { ForeignBundles } from "../federation/foreign-bundles.js";
import { openOidcDiscovery } from "../federation/oidc-discovery.js";
import { createPublishedBundle, type PublishedBundle } from "../federation/published-bundle.js";
import { createRelationships, type Relationships } from "../federation/relationships.js";
import type { Clock } from "../platform/clock.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import type { Foundation } from "./foundation.js";
import type { Issuing } from "./issuing.js";
import type { Project } from "./project.js";

/** What this trust domain tells others of itself, and what it believes of others. */
export interface Federating {
  readonly ours: TrustDomain;
  readonly clock: Clock;
  readonly published: PublishedBundle;
  readonly foreign: ForeignBundles;
  readonly relationships: Relationships;
  readonly endpoint: { readonly config: BundleEndpointConfig; readonly address: HostPort } | undefined;
  readonly oidc: { readonly config: OidcConfig; readonly address: HostPort } | undefined;
  /** Listens and follows as `next` says. Throws what listening throws; then all is as it was. */
  putInForce(next: Project): Promise<void>;
}

/** A third of an authority's life passes before its successor signs, and nobody asks more often than every 10 s: three chances to hear of it. */
const SHORTEST_FEDERATED_SECONDS = 90;

/** Opens the listeners and begins to follow other trust domains; their first answers are not waited for. */
export async function startFederating(foundation: Foundation, issuing: Issuing): Promise<Federating> {
  const { clock, audit, bus, undo, folders, options, problem } = foundation;
  const { bundles, foreign, keeper } = issuing;
  const ours = foundation.project.config.trustDomain;
  const onProblem = (thrown: unknown) => problem("error", "federation", messageOf(thrown));

  const published = createPublishedBundle({
    ours,
    bundles,
    file: join(folders.state, "bundle-sequence.json"),
    authorityLifetimeSeconds: () => foundation.project.config.lifetimes.caSeconds,
    clock,
  });
  const relationships = createRelationships({
    foreign,
    ownAuthorities: (trustDomain) => (trustDomain.equals(ours) ? bundles.x509Bundle(ours)?.authorities : undefined),
    clock,
    audit,
    onProblem: (trustDomain, message, resolved) =>
      bus.emit({
        event: "problem",
        severity: "warning",
        code: "federation",
        message: `the bundle of ${trustDomain} cannot be refreshed: ${message}`,
        ...(resolved ? { resolved } : {}),
      }),
  });
  undo.push(() => relationships.close());
  const endpoint = createSlot((config: BundleEndpointConfig) =>
    openBundleEndpoint({ config, ours, published, svids: keeper, clock, onProblem }),
  );
  undo.push(() => endpoint.put(undefined));
  const oidc = createSlot((config: OidcConfig) => openOidcDiscovery({ config, ours, bundles, clock, onProblem }));
  undo.push(() => oidc.put(undefined));

  async function listen({ config }: Project): Promise<void> {
    // Beside a running trust domain of the same project, whose addresses these are.
    if (options.ownSockets === true) return;
    await endpoint.put(config.federation.endpoint);
    await oidc.put(config.oidc);
    if (config.federation.endpoint !== undefined && config.lifetimes.caSeconds < SHORTEST_FEDERATED_SECONDS) {
      problem(
        "warning",
        "federation-lifetime",
        `lifetimes.ca is under ${SHORTEST_FEDERATED_SECONDS}s: other trust domains can miss a new authority before it signs`,
      );
    }
    for (const { what, address } of [
      { what: "the bundle endpoint", address: endpoint.open?.address },
      { what: "OIDC discovery", address: oidc.open?.address },
    ]) {
      if (address === undefined || isLoopbackAddress(address.host)) continue;
      problem("warning", "public-listener", `${what} listens on ${formatAddress(address)}, for other machines as well`);
    }
  }

  let last = foundation.project;
  await listen(last);
  relationships.follow(last.relationships);
  return {
    ...{ ours, clock, published, foreign, relationships },
    get endpoint() {
      return endpoint.open;
    },
    get oidc() {
      return oidc.open;
    },
    async putInForce(next) {
      try {
        await listen(next);
        relationships.follow(next.relationships);
      } catch (thrown) {
        await listen(last);
        relationships.follow(last.relationships);
        throw thrown;
      }
      last = next;
    },
  };
}

/** One listener that follows its configuration. */
function createSlot<Config extends object>(open: (config: Config) => Promise<DocumentServer>) {
  let current: { readonly config: Config; readonly address: HostPort; close(): Promise<void> } | undefined;
  return {
    get open() {
      return current;
    },
    async put(config: Config | undefined): Promise<void> {
      if (isDeepStrictEqual(config, current?.config)) return;
      const before = current;
      current = undefined;
      // Closed first: the next one may want the same port.
      await before?.close();
      if (config !== undefined) current = { ...(await open(config)), config };
    },
  };
}
