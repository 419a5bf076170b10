import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { credentials, Metadata } from "@grpc/grpc-js";
import { createCallerAttestor } from "../../src/attestation/attestor.js";
import type { CallerAttestor } from "../../src/attestation/caller.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { createLaunchRegistry } from "../../src/attestation/launches.js";
import type { AuditEntry, AuditFields, AuditLog } from "../../src/audit/audit-log.js";
import { canonicalFields } from "../../src/audit/chain.js";
import { createMemoryAuditLog } from "../../src/audit/memory-log.js";
import { CodedError } from "../../src/coded-error.js";
import type { IdentityConfig, RequiredFacts } from "../../src/config/config.js";
import { createTrustBundles, type TrustBundles } from "../../src/identity/bundles.js";
import { createMemoryKeyStore } from "../../src/identity/key-store.js";
import { createIdentityRegistry, type UpdatableIdentityRegistry } from "../../src/identity/registry.js";
import { createSvidKeeper, type SvidKeeper } from "../../src/identity/svid-keeper.js";
import { createTrustDomainAuthority, type TrustDomainAuthority } from "../../src/identity/trust-domain-authority.js";
import { createWitKeeper, type WitKeeper } from "../../src/identity/wit-keeper.js";
import { type Clock, systemClock } from "../../src/platform/clock.js";
import { currentPlatform } from "../../src/platform/index.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { SpiffeWorkloadAPIClient } from "../../src/workload-api/generated/workload.js";
import { createWorkloadApi, type WorkloadApi, type WorkloadApiDependencies } from "../../src/workload-api/server.js";

/** A record in memory whose disk can fail. */
export interface TestRecord extends AuditLog {
  readonly entries: readonly AuditEntry[];
  writable: boolean;
}

export interface RunningApi {
  readonly trustDomain: TrustDomain;
  /** Path of the socket. */
  readonly path: string;
  readonly api: WorkloadApi;
  readonly authority: TrustDomainAuthority;
  readonly registry: UpdatableIdentityRegistry;
  readonly keeper: SvidKeeper;
  readonly witKeeper: WitKeeper;
  readonly bundles: TrustBundles;
  readonly record: TestRecord;
  readonly attested: { pid: number; identities: readonly string[] }[];
  readonly refused: { pid: number; uid: number; reason: string }[];
  readonly rejected: { pid: number; uid: number; reason: string }[];
  /** Configures these identities instead. */
  configure(identities: readonly IdentityConfig[]): void;
  /** A client on a connection of its own. */
  client(): SpiffeWorkloadAPIClient;
  close(): Promise<void>;
}

export interface RunOptions {
  readonly identities: readonly IdentityConfig[];
  readonly clock?: Clock;
  readonly x509Seconds?: number;
  /** Puts something between the server and its real parts. */
  readonly change?: (dependencies: WorkloadApiDependencies) => WorkloadApiDependencies;
}

export const trustDomain = TrustDomain.parse("shop.local");

/** An identity that follows from facts; by default for every process of the user that runs the tests. */
export function identity(
  name: string,
  facts: RequiredFacts = { uid: process.getuid?.() ?? 0 },
  hint = "",
): IdentityConfig {
  return {
    name,
    id: SpiffeId.of(trustDomain, name),
    facts,
    launch: undefined,
    service: undefined,
    dnsNames: [],
    hint,
  };
}

/** The real Workload API over the real trust domain and the real kernel, on a socket in a folder of its own. */
export async function runApi(options: RunOptions): Promise<RunningApi> {
  const clock = options.clock ?? systemClock;
  const directory = mkdtempSync(join(tmpdir(), "agentid-wl-"));
  const path = join(directory, "workload.sock");
  const record = createTestRecord(clock);
  const authority = createTrustDomainAuthority({
    trustDomain,
    lifetimeSeconds: () => 86_400,
    keyStore: createMemoryKeyStore(),
    clock,
    audit: record,
  });
  const registry = createIdentityRegistry({ identities: options.identities }, { identities: {} });
  const lifetimes = { x509Seconds: options.x509Seconds ?? 600, jwtSeconds: 300, caSeconds: 86_400 };
  const keeper = createSvidKeeper({ authority, registry, lifetimes: () => lifetimes, clock, audit: record });
  const witKeeper = createWitKeeper({ authority, registry, lifetimes: () => lifetimes, clock, audit: record });
  const bundles = createTrustBundles(authority);
  const attested: RunningApi["attested"] = [];
  const refused: RunningApi["refused"] = [];
  const rejected: RunningApi["rejected"] = [];
  const { attestor, close: closeAttestor } = createRealAttestor();

  const dependencies: WorkloadApiDependencies = {
    trustDomain,
    attestor,
    registry,
    svids: keeper,
    bundles,
    jwtIssuer: keeper,
    jwtBundles: bundles,
    witSvids: witKeeper,
    witBundles: bundles,
    audit: record,
    clock,
    observer: {
      attested: ({ pid }, identities) => attested.push({ pid, identities }),
      refused: ({ pid, uid }, reason) => refused.push({ pid, uid, reason }),
      rejected: ({ pid, uid }, reason) => rejected.push({ pid, uid, reason }),
    },
  };
  const api = createWorkloadApi(options.change?.(dependencies) ?? dependencies);
  await api.listen(path);
  const clients: SpiffeWorkloadAPIClient[] = [];

  return {
    ...{ trustDomain, path, api, authority, registry, keeper, witKeeper, bundles, record, attested, refused, rejected },
    configure: (identities) => registry.update({ identities }, { identities: {} }),
    client() {
      // A pool of its own: grpc-js would otherwise share one connection between clients of one address.
      const own = new SpiffeWorkloadAPIClient(`unix:${path}`, credentials.createInsecure(), {
        "grpc.use_local_subchannel_pool": 1,
      });
      clients.push(own);
      return own;
    },
    async close() {
      for (const client of clients) client.close();
      await api.close();
      keeper.close();
      witKeeper.close();
      authority.close();
      closeAttestor();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** The attestor over this system's kernel, with nothing launched. */
function createRealAttestor(): { attestor: CallerAttestor; close: () => void } {
  const platform = currentPlatform();
  const digests = executableDigests();
  const launches = createLaunchRegistry({ platform, digests });
  return { attestor: createCallerAttestor({ platform, launches, digests }), close: () => launches.close() };
}

/** The metadata that every RPC needs (EP-4). */
export function secure(value: string | readonly string[] = "true"): Metadata {
  const metadata = new Metadata();
  for (const one of [value].flat()) metadata.add("workload.spiffe.io", one);
  return metadata;
}

/** The real record, in memory, with a switch for a disk that is full. */
function createTestRecord(clock: Clock): TestRecord {
  const entries: AuditEntry[] = [];
  const log = createMemoryAuditLog({ clock });
  return {
    entries,
    writable: true,
    append(kind, fields, options) {
      if (!this.writable) throw new CodedError("audit-unwritable", "the record cannot be written: no space left");
      const receipt = log.append(kind, fields, options);
      const written = JSON.parse(canonicalFields(kind, fields)) as AuditFields;
      entries.push({ ...receipt, time: new Date(clock.now()).toISOString(), kind, fields: written });
      return receipt;
    },
    async appendInTurn(kind, fields) {
      return this.append(kind, fields);
    },
    read: (from, limit) => log.read(from, limit),
    get size() {
      return log.size;
    },
    close: () => log.close(),
  };
}
