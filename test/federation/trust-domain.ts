import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { createMemoryAuditLog } from "../../src/audit/memory-log.js";
import { BUNDLE_ENDPOINT_IDENTITY, type IdentityConfig } from "../../src/config/config.js";
import { openBundleEndpoint } from "../../src/federation/bundle-endpoint.js";
import type { DocumentServer } from "../../src/federation/document-server.js";
import { type ForeignBundles, openForeignBundles } from "../../src/federation/foreign-bundles.js";
import { createPublishedBundle, type PublishedBundle } from "../../src/federation/published-bundle.js";
import { joinTrustBundles } from "../../src/federation/trust-bundles.js";
import { createTrustBundles, type TrustBundles } from "../../src/identity/bundles.js";
import { createMemoryKeyStore } from "../../src/identity/key-store.js";
import { createIdentityRegistry } from "../../src/identity/registry.js";
import { createSvidKeeper, type SvidKeeper } from "../../src/identity/svid-keeper.js";
import { createTrustDomainAuthority, type TrustDomainAuthority } from "../../src/identity/trust-domain-authority.js";
import { type Clock, systemClock } from "../../src/platform/clock.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";

/** A folder that goes when the test ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "agentid-fed-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function identityOf(trustDomain: TrustDomain, name: string): IdentityConfig {
  const id = SpiffeId.of(trustDomain, name);
  return { name, id, facts: {}, launch: undefined, service: undefined, dnsNames: [], hint: "" };
}

export interface TestTrustDomain {
  readonly trustDomain: TrustDomain;
  readonly endpointId: SpiffeId;
  readonly authority: TrustDomainAuthority;
  readonly keeper: SvidKeeper;
  readonly bundles: TrustBundles;
  readonly foreign: ForeignBundles;
  readonly published: PublishedBundle;
  readonly audit: ReturnType<typeof createMemoryAuditLog>;
  readonly problems: unknown[];
  /** Its bundle endpoint on a free loopback port, `https_spiffe`. */
  serve(port?: number): Promise<DocumentServer & { readonly url: string }>;
}

/** The real parts of the trust domain `name`, without a daemon around them; they end with the test. */
export function createTrustDomain(name: string, options: { folder?: string; clock?: Clock } = {}): TestTrustDomain {
  const { folder = temporaryFolder(), clock = systemClock } = options;
  const trustDomain = TrustDomain.parse(name);
  const problems: unknown[] = [];
  const onProblem = (thrown: unknown) => problems.push(thrown);
  const audit = createMemoryAuditLog({ clock });
  const authority = createTrustDomainAuthority({
    ...{ trustDomain, clock, audit, keyStore: createMemoryKeyStore(), lifetimeSeconds: () => 86_400 },
  });
  const endpoint = identityOf(trustDomain, BUNDLE_ENDPOINT_IDENTITY);
  const registry = createIdentityRegistry(
    { identities: [endpoint, identityOf(trustDomain, "agents/billing")] },
    { identities: {} },
  );
  const lifetimes = { x509Seconds: 600, jwtSeconds: 300, caSeconds: 86_400 };
  const keeper = createSvidKeeper({ authority, registry, lifetimes: () => lifetimes, clock, audit });
  const foreign = openForeignBundles({ ours: trustDomain, directory: join(folder, "bundles"), audit, onProblem });
  const bundles = joinTrustBundles(trustDomain, createTrustBundles(authority), foreign);
  const published = createPublishedBundle({
    ...{ ours: trustDomain, bundles, clock, file: join(folder, "bundle-sequence.json") },
    authorityLifetimeSeconds: () => 86_400,
  });
  onTestFinished(() => {
    keeper.close();
    authority.close();
  });
  return {
    ...{ trustDomain, endpointId: endpoint.id, authority, keeper, bundles, foreign, published, audit, problems },
    async serve(port = 0) {
      const config = { listen: { host: "127.0.0.1", port }, web: undefined };
      const server = await openBundleEndpoint({
        ...{ config, ours: trustDomain, published, svids: keeper, clock, onProblem },
      });
      onTestFinished(() => server.close());
      return { ...server, url: `https://127.0.0.1:${server.address.port}/` };
    },
  };
}

/** The code of what `action` throws, or `accepted`. */
export async function codeOf(action: () => unknown): Promise<string> {
  try {
    await action();
  } catch (thrown) {
    return (thrown as { code: string }).code;
  }
  return "accepted";
}
