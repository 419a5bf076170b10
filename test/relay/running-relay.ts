import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type RequestListener, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createCallerAttestor } from "../../src/attestation/attestor.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { createLaunchRegistry } from "../../src/attestation/launches.js";
import type { AuditEntry, AuditFields, AuditLog } from "../../src/audit/audit-log.js";
import { canonicalFields } from "../../src/audit/chain.js";
import { CodedError } from "../../src/coded-error.js";
import type { IdentityConfig } from "../../src/config/config.js";
import type { NewEvent } from "../../src/control-api/events.js";
import { createTrustBundles } from "../../src/identity/bundles.js";
import { createMemoryKeyStore } from "../../src/identity/key-store.js";
import { createIdentityRegistry } from "../../src/identity/registry.js";
import { createSvidKeeper } from "../../src/identity/svid-keeper.js";
import type { X509Svid } from "../../src/identity/svid-source.js";
import { createTrustDomainAuthority } from "../../src/identity/trust-domain-authority.js";
import type { Clock } from "../../src/platform/clock.js";
import { systemClock } from "../../src/platform/clock.js";
import { currentPlatform } from "../../src/platform/index.js";
import { createDecisionPoint } from "../../src/policy/decision-point.js";
import { createLimitCounts } from "../../src/policy/limit-counts.js";
import { ruledAs } from "../../src/policy/policy-names.js";
import { policySetOf } from "../../src/policy/policy-set.js";
import type { RelayParts } from "../../src/relay/exchange.js";
import { createRelay } from "../../src/relay/relay.js";
import type { RunningService } from "../../src/relay/running-service.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";

export const shop = TrustDomain.parse("shop.local");

export function identity(name: string, more: Partial<IdentityConfig> = {}): IdentityConfig {
  const id = SpiffeId.of(shop, name);
  return { name, id, facts: {}, launch: undefined, service: undefined, dnsNames: [], hint: "", ...more };
}

/** The identity that follows for the process that runs the tests. */
export const testAgent = identity("agents/tests", { facts: { exePath: process.execPath } });

/** A service of the test with the requests that arrived at it: what was refused must never be among them. */
export interface Upstream {
  readonly service: RunningService;
  readonly arrived: { method: string; url: string; headers: IncomingMessage["headers"]; rawHeaders: string[] }[];
  answer: RequestListener;
  close(): void;
}

/** A real HTTP server on a Unix socket in a folder of its own. */
export async function runUpstream(name: string, protocol: "http" | "mcp", answer: RequestListener): Promise<Upstream> {
  const directory = mkdtempSync(join(tmpdir(), "agentid-up-"));
  const path = join(directory, "s.sock");
  const server: Server = createServer((request, response) => {
    const { method = "", url = "", headers, rawHeaders } = request;
    upstream.arrived.push({ method, url, headers, rawHeaders });
    upstream.answer(request, response);
  });
  const id = SpiffeId.of(shop, protocol === "mcp" ? `mcp/${name}` : `services/${name}`);
  const upstream: Upstream = {
    service: { name, id, protocol, listenPort: undefined, upstream: { kind: "unix", path } },
    arrived: [],
    answer,
    close() {
      server.closeAllConnections();
      server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return upstream;
}

export interface TestRecord extends AuditLog {
  readonly entries: AuditEntry[];
  writable: boolean;
}

/** The real relay over a real trust domain, the kernel's attestor and a policy given as text. */
export async function runRelay(options: {
  services: readonly RunningService[];
  identities?: readonly IdentityConfig[];
  rules: string;
  clock?: Clock;
  change?: (parts: RelayParts) => RelayParts;
}) {
  const clock = options.clock ?? systemClock;
  const record = createTestRecord(clock);
  const events: NewEvent[] = [];
  const identities = [
    ...(options.identities ?? [testAgent]),
    ...options.services.map((one) => identity(one.id.name, { service: one.name })),
  ];
  const authority = createTrustDomainAuthority({
    trustDomain: shop,
    lifetimeSeconds: () => 86_400,
    keyStore: createMemoryKeyStore(),
    clock,
    audit: record,
  });
  const registry = createIdentityRegistry({ identities }, { identities: {} });
  const lifetimes = { x509Seconds: 600, jwtSeconds: 300, caSeconds: 86_400 };
  const keeper = createSvidKeeper({ authority, registry, lifetimes: () => lifetimes, clock, audit: record });
  const bundles = createTrustBundles(authority);
  const platform = currentPlatform();
  const digests = executableDigests();
  const launches = createLaunchRegistry({ platform, digests });
  const attestor = createCallerAttestor({ platform, digests, launches });

  const limits = createLimitCounts(clock);
  const decisionPointOf = (rules: string) => {
    const names = {
      trustDomain: shop,
      identities: identities.map(({ name }) => name),
      services: options.services.map(({ name, id, protocol }) => ({
        name,
        identity: id.name,
        protocol: ruledAs(protocol),
      })),
    };
    const { set, problems } = policySetOf([{ file: "policies/test.yaml", bytes: Buffer.from(rules) }], names);
    if (set === undefined) throw new Error(JSON.stringify(problems));
    return createDecisionPoint(set, { clock, random: randomBytes, limits });
  };
  let decisionPoint = decisionPointOf(options.rules);
  const projectDirectory = mkdtempSync(join(tmpdir(), "agentid-relay-"));
  const parts: RelayParts = {
    attestor,
    registry,
    svids: keeper,
    bundles,
    decisionPoint: () => decisionPoint,
    audit: record,
    clock,
    emit: (event) => events.push(event),
    projectDirectory,
  };
  const relay = createRelay(options.change?.(parts) ?? parts);
  const closeTrustDomain = () => {
    keeper.close();
    authority.close();
    rmSync(projectDirectory, { recursive: true, force: true });
  };
  try {
    await relay.start(options.services);
  } catch (error) {
    await relay.close({ graceMs: 0 });
    closeTrustDomain();
    throw error;
  }

  return {
    ...{ relay, record, events, keeper, registry, authority, bundles, identities, parts },
    setRules: (rules: string) => {
      decisionPoint = decisionPointOf(rules);
    },
    configure: (next: readonly IdentityConfig[]) => registry.update({ identities: next }, { identities: {} }),
    svidOf: (name: string): X509Svid => keeper.x509Svid(SpiffeId.of(shop, name)),
    urlOf: (name: string) => relay.addressesOf(name)?.url ?? relay.egressUrlOf(name) ?? "",
    async close() {
      await relay.close({ graceMs: 0 });
      closeTrustDomain();
    },
  };
}

export type RunningRelay = Awaited<ReturnType<typeof runRelay>>;

function createTestRecord(clock: Clock): TestRecord {
  const entries: AuditEntry[] = [];
  const record: TestRecord = {
    entries,
    writable: true,
    append(kind, given) {
      if (!record.writable) throw new CodedError("audit-unwritable", "the disk is full");
      const fields = JSON.parse(canonicalFields(kind, given)) as AuditFields;
      const entry = { sequence: entries.length, time: new Date(clock.now()).toISOString(), kind, fields, hash: "" };
      entries.push(entry);
      return { sequence: entry.sequence, hash: entry.hash };
    },
    appendInTurn: async (kind, fields) => record.append(kind, fields),
    read: async (from, limit) => entries.slice(from, from + limit),
    get size() {
      return entries.length;
    },
    close: async () => undefined,
  };
  return record;
}
