import { createHash } from "node:crypto";
import type { CallerLaunch } from "../../src/attestation/caller.js";
import type { AuditEntry, AuditFields, AuditLog } from "../../src/audit/audit-log.js";
import { canonicalFields } from "../../src/audit/chain.js";
import { CodedError } from "../../src/coded-error.js";
import type { IdentityConfig, LaunchConfig, Lifetimes } from "../../src/config/config.js";
import { createTrustBundles } from "../../src/identity/bundles.js";
import { type LiveInstances, NO_INSTANCES } from "../../src/identity/instances.js";
import { createIssuedCredentials } from "../../src/identity/issued-credentials.js";
import { createMemoryKeyStore, type KeyStore } from "../../src/identity/key-store.js";
import { createLaunchedCredentials } from "../../src/identity/launched-credentials.js";
import { createIdentityRegistry } from "../../src/identity/registry.js";
import { createMemoryRevocationStore, type RevocationStore } from "../../src/identity/revocation-store.js";
import { createRevocations } from "../../src/identity/revocations.js";
import { createSvidKeeper } from "../../src/identity/svid-keeper.js";
import { createTrustDomainAuthority } from "../../src/identity/trust-domain-authority.js";
import type { UpstreamAuthority } from "../../src/identity/upstream-authority.js";
import { createWitKeeper } from "../../src/identity/wit-keeper.js";
import type { Clock } from "../../src/platform/clock.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";

/** A clock that tests move. `suspend` moves the wall clock as a sleeping machine does: timers do not notice. */
export interface TestClock extends Clock {
  /** Lets time pass: timers fire in order, each at its time. */
  advance(milliseconds: number): void;
  /** The wall clock jumps, forwards or backwards, and no timer fires. */
  jump(milliseconds: number): void;
  /** Running time, which `jump` does not change. */
  monotonic(): number;
  /** Calls that are due some time. */
  readonly pending: number;
}

export function createTestClock(start = Date.parse("2026-11-22T12:00:00Z")): TestClock {
  let wall = start;
  let running = 0;
  let timers: { at: number; callback: () => void }[] = [];
  return {
    now: () => wall,
    after(delayMs, callback) {
      const timer = { at: running + delayMs, callback };
      timers.push(timer);
      return () => {
        timers = timers.filter((other) => other !== timer);
      };
    },
    advance(milliseconds) {
      const end = running + milliseconds;
      for (;;) {
        const [next] = timers.filter((timer) => timer.at <= end).sort((one, other) => one.at - other.at);
        if (next === undefined) break;
        timers = timers.filter((timer) => timer !== next);
        const elapsed = Math.max(next.at - running, 0);
        running += elapsed;
        wall += elapsed;
        next.callback();
      }
      wall += end - running;
      running = end;
    },
    jump(milliseconds) {
      wall += milliseconds;
    },
    monotonic: () => running,
    get pending() {
      return timers.length;
    },
  };
}

/** A record in memory that can be made unwritable, as a full disk makes the real one. */
interface TestAuditLog extends AuditLog {
  readonly entries: AuditEntry[];
  writable: boolean;
}

function createTestAuditLog(clock: Clock): TestAuditLog {
  const entries: AuditEntry[] = [];
  return {
    entries,
    writable: true,
    append(kind, given) {
      if (!this.writable) throw new CodedError("audit-unwritable", "the disk is full");
      const fields = JSON.parse(canonicalFields(kind, given)) as AuditFields;
      const hash = createHash("sha256").update(JSON.stringify(fields)).digest("hex");
      const entry = { sequence: entries.length, time: new Date(clock.now()).toISOString(), kind, fields, hash };
      entries.push(entry);
      return { sequence: entry.sequence, hash };
    },
    async appendInTurn(kind, fields) {
      return this.append(kind, fields);
    },
    read: async (from, limit) => entries.slice(from, from + limit),
    get size() {
      return entries.length;
    },
    close: async () => {},
  };
}

export const shop = TrustDomain.parse("shop.local");

export function identity(name: string, more: Partial<IdentityConfig> = {}): IdentityConfig {
  const id = SpiffeId.of(shop, name);
  return { name, id, facts: {}, launch: undefined, service: undefined, dnsNames: [], hint: "", ...more };
}

const lifetimes: Lifetimes = { x509Seconds: 600, jwtSeconds: 300, caSeconds: 86_400 };

/** A whole issuing side on a clock that tests move. */
export function createTestTrustDomain(
  options: {
    identities?: readonly IdentityConfig[];
    keyStore?: KeyStore;
    clock?: TestClock;
    lifetimes?: Lifetimes;
    revocationStore?: RevocationStore;
    upstream?: () => UpstreamAuthority | undefined;
    live?: LiveInstances;
  } = {},
) {
  const clock = options.clock ?? createTestClock();
  const audit = createTestAuditLog(clock);
  const problems: unknown[] = [];
  const onProblem = (thrown: unknown) => problems.push(thrown);
  const wanted = options.lifetimes ?? lifetimes;
  const store = options.revocationStore ?? createMemoryRevocationStore();
  const revocations = createRevocations({ store, clock, onProblem });
  const authority = createTrustDomainAuthority({
    trustDomain: shop,
    revocations,
    lifetimeSeconds: () => wanted.caSeconds,
    ...(options.upstream === undefined ? {} : { upstream: options.upstream }),
    keyStore: options.keyStore ?? createMemoryKeyStore(),
    clock,
    audit,
    onProblem,
  });
  const identities = options.identities ?? [identity("agents/billing"), identity("agents/planner")];
  const live = options.live ?? NO_INSTANCES;
  const registry = createIdentityRegistry({ identities }, { identities: {} }, onProblem, revocations, live);
  const issued = createIssuedCredentials();
  const launched = createLaunchedCredentials({ trustDomain: shop, registry, issued, revocations, clock, onProblem });
  const bundles = createTrustBundles(authority, launched);
  const keeper = createSvidKeeper({
    authority,
    registry,
    lifetimes: () => wanted,
    issued,
    clock,
    audit,
    random: () => 0.5,
    onProblem,
  });
  const witKeeper = createWitKeeper({ authority, registry, lifetimes: () => wanted, issued, clock, audit, onProblem });
  return { clock, audit, problems, authority, registry, keeper, witKeeper, revocations, bundles, issued, launched };
}

/** A launch as an entry has it that says nothing more than the command. */
export function launchConfig(more: Partial<LaunchConfig> = {}): LaunchConfig {
  const plain = { argv: ["python"], workingDirectory: "/", keepEnv: [] };
  return { ...plain, children: false, instances: false, subagents: [], sandbox: undefined, ...more };
}

/** The launch of a process that was itself launched as `name`. */
export function callerLaunch(name: string, more: Partial<CallerLaunch> = {}): CallerLaunch {
  return { name, instance: undefined, launchedBy: [], evidence: "launch", pid: 42, ...more };
}
