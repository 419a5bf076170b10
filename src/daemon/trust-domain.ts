import { randomBytes } from "node:crypto";
import { join, resolve } from "node:path";
import { createCallerAttestor } from "../attestation/attestor.js";
import { executableDigests } from "../attestation/hash-cache.js";
import { createLaunchRegistry, type LaunchRegistryOptions } from "../attestation/launches.js";
import { openAuditLog } from "../audit/chained-log.js";
import { createMemoryAuditLog } from "../audit/memory-log.js";
import { CodedError, messageOf } from "../coded-error.js";
import type { ServiceConfig } from "../config/config.js";
import { findProject, LOCK_FILE_NAME } from "../config/load.js";
import { writeLock } from "../config/lock-file.js";
import type { AgentidEvent } from "../control-api/events.js";
import { createTrustBundles } from "../identity/bundles.js";
import { openDiskKeyStore } from "../identity/disk-key-store.js";
import { createMemoryKeyStore } from "../identity/key-store.js";
import { createIdentityRegistry } from "../identity/registry.js";
import { createSvidKeeper } from "../identity/svid-keeper.js";
import { createTrustDomainAuthority } from "../identity/trust-domain-authority.js";
import { type Clock, systemClock } from "../platform/clock.js";
import { socketPathIn } from "../platform/directories.js";
import { currentPlatform } from "../platform/index.js";
import { openKeychain } from "../platform/keychain.js";
import type { DecisionPoint } from "../policy/access-request.js";
import { createDecisionPoint } from "../policy/decision-point.js";
import type { PolicySet } from "../policy/policy-set.js";
import { createRelay } from "../relay/relay.js";
import type { RunningService } from "../relay/running-service.js";
import { createWorkloadApi } from "../workload-api/server.js";
import { createControlHandlers, createGatekeeper } from "./control-handlers.js";
import { createControlServer } from "./control-server.js";
import { createEventBus } from "./event-bus.js";
import { createExplanations } from "./explanations.js";
import { openFolders } from "./folders.js";
import { readKnownAgents, writeKnownAgents } from "./known-agents.js";
import { createLaunching } from "./launching.js";
import { createLiveView } from "./live-view.js";
import { builtInProject, loadProject, type Project } from "./project.js";
import { followProject } from "./project-reload.js";
import { createServiceSupervisor } from "./services.js";

export interface TrustDomainOptions {
  /** Default: the nearest parent of the current folder with agentid.yaml. */
  readonly projectDirectory: string | undefined;
  /** What to do where there is no project: refuse, or run the built-in `ci.local`. */
  readonly withoutProject?: "refuse" | "ci.local";
  /** Keep nothing on disk. */
  readonly ephemeral: boolean;
  /** Sockets and ports beside those of a trust domain that may run for the same project. */
  readonly ownSockets?: boolean;
  /** Overrides the project's `reload`. */
  readonly reload?: "auto";
  readonly environment: NodeJS.ProcessEnv;
}

export type ReadyEvent = Extract<AgentidEvent, { event: "ready" }>;

export interface RunningTrustDomain {
  readonly ready: ReadyEvent;
  /** What programs need to find the trust domain: addresses, never a secret. */
  readonly environment: Readonly<Record<string, string>>;
  subscribe(since: number | undefined, listener: (event: AgentidEvent) => void): () => void;
  /** Runs `step` first when stopping. */
  beforeStop(step: () => Promise<void>): void;
  /** Stops in order and leaves nothing behind. Idempotent; every caller waits for the same end. */
  stop(reason: string): Promise<void>;
  /** Resolves when it has stopped. */
  readonly stopped: Promise<void>;
}

const DRAIN_MS = 1_000;

/** Starts a whole trust domain. When anything fails on the way, what was started is stopped again, and the error is thrown. */
export async function startTrustDomain(options: TrustDomainOptions): Promise<RunningTrustDomain> {
  /** What to undo, last first. */
  const undo: (() => unknown)[] = [];
  const unwind = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    return await compose(options, undo, unwind);
  } catch (thrown) {
    await unwind();
    throw thrown;
  }
}

async function compose(
  options: TrustDomainOptions,
  undo: (() => unknown)[],
  unwind: () => Promise<void>,
): Promise<RunningTrustDomain> {
  const { environment, ephemeral } = options;
  const clock = systemClock;
  const platform = currentPlatform();
  // Before any key is in memory (D22).
  platform.forbidInspection();

  const { directory, load } = projectSource(options);
  const first = await load();
  const folders = openFolders({
    projectDirectory: directory,
    ephemeral,
    ownSockets: options.ownSockets === true,
    environment,
    platform,
  });
  undo.push(() => folders.release());
  await savePins(directory, first, ephemeral);

  const bus = createEventBus(clock);
  const problem = (severity: "warning" | "error", code: string, message: string) =>
    bus.emit({ event: "problem", severity, code, message });
  const audit = ephemeral
    ? createMemoryAuditLog({ clock })
    : await openAuditLog(join(folders.state, "audit"), { clock });
  undo.push(() => audit.close());
  audit.append("daemon.start", {
    trustDomain: first.config.trustDomain.name,
    pid: process.pid,
    config: first.config.digest,
    policy: first.policies.digest,
  });
  for (const name of first.newlyPinned) audit.append("pin", { identity: name, why: "first start" });

  // Attestation.
  const digests = executableDigests();
  const launches = createLaunchRegistry({ platform, digests, ...knownAgents(folders.state) });
  undo.push(() => launches.close());
  const attestor = createCallerAttestor({ platform, launches, digests });
  const live = createLiveView(platform, launches);
  undo.push(bus.subscribe(0, (event) => live.take(event)));

  // Identity.
  const inMemory = ephemeral || first.config.keys === "memory";
  const keyStore = inMemory
    ? createMemoryKeyStore()
    : await openDiskKeyStore({
        directory: join(folders.state, "keys"),
        trustDomain: first.config.trustDomain,
        keychain: await openKeychain(),
      });
  if (keyStore.protection === "none") {
    problem(
      "warning",
      "keys-unprotected",
      "no keychain here: every process of this user can read the CA keys in .agentid/keys (`keys: memory` keeps none)",
    );
  }
  let project = first;
  const authority = createTrustDomainAuthority({
    trustDomain: first.config.trustDomain,
    lifetimeSeconds: () => project.config.lifetimes.caSeconds,
    keyStore,
    clock,
    audit,
    onProblem: (thrown) => problem("error", "authority", messageOf(thrown)),
  });
  undo.push(() => authority.close());
  const bundles = createTrustBundles(authority);
  const registry = createIdentityRegistry(first.config, first.lock);
  const keeper = createSvidKeeper({
    authority,
    registry,
    lifetimes: () => project.config.lifetimes,
    clock,
    audit,
    onProblem: (thrown) => problem("error", "svid", messageOf(thrown)),
  });
  undo.push(() => keeper.close());
  keeper.onChange(({ change, identity, svid }) =>
    bus.emit({
      event: "identity",
      name: identity.name,
      spiffeId: identity.id.toString(),
      change,
      ...(change === "removed"
        ? {}
        : { notAfter: svid.notAfter.toISOString(), rotateAt: svid.rotateAt.toISOString(), serial: svid.serial }),
    }),
  );

  // Workload API: the first thing that programs can reach.
  const workloadSocket = socketPathIn(folders.runtime, "workload");
  const workloadApi = createWorkloadApi({
    trustDomain: first.config.trustDomain,
    attestor,
    registry,
    svids: keeper,
    bundles,
    jwtIssuer: keeper,
    jwtBundles: bundles,
    audit,
    clock,
    observer: {
      attested({ pid, uid, startTime }, identities) {
        live.seen(pid, startTime, identities);
        bus.emit({
          event: "process",
          change: "attested",
          pid,
          uid,
          identity: identities[0],
          detail: identities.join(", "),
        });
      },
      refused({ pid, uid }, reason) {
        bus.emit({ event: "process", change: "refused", pid, uid, detail: reason });
      },
    },
  });
  await workloadApi.listen(workloadSocket);
  undo.push(() => workloadApi.close());

  // Policy and relay.
  const explanations = createExplanations();
  let decisionPoint = decisionPointOf(project.policies, clock);
  const relay = createRelay({
    attestor,
    registry,
    svids: keeper,
    bundles,
    decisionPoint: () => decisionPoint,
    audit,
    clock,
    emit: (event) => bus.emit(event),
    onDecision: (call) => explanations.remember(call, decisionPoint, new Date(clock.now())),
    // Own ports as well as own sockets: the derived ones follow from this path.
    projectDirectory: options.ownSockets ? folders.runtime : directory,
  });
  undo.push(() => relay.close({ graceMs: DRAIN_MS }));
  const services = createServiceSupervisor({
    socketDirectory: join(folders.runtime, "s"),
    runtimeDirectory: folders.runtime,
    stateDirectory: folders.state,
    clock,
    platform,
    environment,
    onProblem: (service, message) => problem("error", "service", `service ${service} ${message}`),
    onState: () => undefined,
  });
  undo.push(() => services.stop());
  const running = (config: Project["config"]): readonly RunningService[] =>
    config.services.map((service) => reachable(service, services.socketOf));
  await Promise.all([relay.start(running(first.config)), services.update(first.config.services)]);

  const reload = followProject({
    first,
    load,
    audit,
    bus,
    clock,
    watch: first.config.file !== undefined,
    async apply(next) {
      if (next.config.trustDomain.name !== project.config.trustDomain.name) {
        throw new CodedError(
          "restart-needed",
          "the trust domain's name takes effect at the next start: agentid down, agentid dev",
        );
      }
      await savePins(directory, next, ephemeral);
      await services.update(next.config.services);
      await relay.update(running(next.config));
      // Together and without a gap: from here on every question is asked of the new project.
      project = next;
      decisionPoint = decisionPointOf(next.policies, clock);
      registry.update(next.config, next.lock);
    },
  });
  undo.push(() => reload.close());

  // Control, last: whoever can connect finds everything there.
  const controlSocket = socketPathIn(folders.runtime, "control");
  const environmentOf = (): Readonly<Record<string, string>> => ({
    SPIFFE_ENDPOINT_SOCKET: `unix://${workloadSocket}`,
    AGENTID_CONTROL: `unix://${controlSocket}`,
    ...Object.fromEntries(
      project.config.services.map(({ name }) => [
        `AGENTID_URL_${name.toUpperCase().replaceAll("-", "_")}`,
        relay.addressesOf(name)?.url ?? "",
      ]),
    ),
  });
  const rememberAgents = () =>
    writeKnownAgents(folders.state, { agents: launches.agents(), firstLaunchStartTime: launches.firstLaunchStartTime });
  launches.onStarted(({ name, pid, startTime }) => {
    audit.append("launch.started", { identity: name, pid });
    live.seen(pid, startTime, [name]);
    bus.emit({
      event: "process",
      change: "launched",
      identity: name,
      pid,
      uid: process.geteuid?.() ?? 0,
      detail: "the pinned program runs",
    });
  });
  launches.onEnded(({ name, pid, why, started }) => {
    audit.append("launch.ended", { identity: name, pid, why, started });
    const detail = started ? `ended by ${why}` : "never became the pinned program";
    bus.emit({ event: "process", change: "ended", identity: name, pid, uid: process.geteuid?.() ?? 0, detail });
  });
  const beforeStop: (() => Promise<void>)[] = [];
  let stopping: Promise<void> | undefined;
  let resolveStopped: () => void = () => {};
  const stopped = new Promise<void>((done) => {
    resolveStopped = done;
  });
  function stop(reason: string): Promise<void> {
    stopping ??= (async () => {
      bus.emit({ event: "stopping", reason });
      for (const step of beforeStop) await step();
      audit.append("daemon.stop", { reason });
      await unwind();
      resolveStopped();
    })();
    return stopping;
  }
  const startedAt = new Date(clock.now());
  const control = createControlServer({
    subscribe: (since, listener) => bus.subscribe(since, listener),
    requireAdministrator: createGatekeeper({ platform, launches, audit, bus }),
    handlers: createControlHandlers({
      status: {
        startedAt,
        ephemeral,
        workloadApi: `unix://${workloadSocket}`,
        control: `unix://${controlSocket}`,
        reload,
        keeper,
        authority,
        relay,
        services,
        live,
        audit,
        bus,
      },
      attestor,
      registry,
      explanations,
      project: () => project,
      projectDirectory: directory,
      environment,
      launch: createLaunching({
        attestor,
        launches,
        registry,
        project: () => project,
        audit,
        bus,
        rememberAgents,
        environmentOf,
        environment,
      }),
      stop,
    }),
  });
  await control.listen(controlSocket);
  undo.push(() => control.close());
  reload.ready.catch((thrown: unknown) => problem("error", "watch-failed", messageOf(thrown)));

  for (const warning of first.warnings) problem("warning", "policy-warning", warning);
  for (const { name, upstream } of first.config.services) {
    if (upstream.kind !== "tcp") continue;
    problem(
      "warning",
      "around-relay",
      `service ${name} listens on TCP port ${upstream.port}: anything on this machine can call it around the relay (D26)`,
    );
  }
  folders.announce({ pid: process.pid, workloadApi: `unix://${workloadSocket}`, control: `unix://${controlSocket}` });
  const ready = bus.emit({
    event: "ready",
    trustDomain: first.config.trustDomain.name,
    workloadApi: `unix://${workloadSocket}`,
    control: `unix://${controlSocket}`,
    pid: process.pid,
    services: Object.fromEntries(
      first.config.services.map(({ name }) => {
        const addresses = relay.addressesOf(name);
        return [
          name,
          { url: addresses?.url ?? "", mtls: addresses ? `${addresses.mtls.host}:${addresses.mtls.port}` : "" },
        ];
      }),
    ),
  }) as ReadyEvent;
  return {
    ready,
    environment: environmentOf(),
    subscribe: (since, listener) => bus.subscribe(since, listener),
    beforeStop: (step) => beforeStop.push(step),
    stop,
    stopped,
  };
}

/** The project's folder and how to load it, now and at every save. Throws CodedError `no-project`. */
function projectSource(options: TrustDomainOptions): { directory: string; load: () => Promise<Project> } {
  const found = options.projectDirectory ?? findProject(process.cwd());
  const change = (project: Project): Project =>
    options.reload === undefined ? project : { ...project, config: { ...project.config, reload: options.reload } };
  if (found !== undefined) {
    const directory = resolve(found);
    return { directory, load: async () => change(await loadProject(directory, options.environment)) };
  }
  if (options.withoutProject !== "ci.local") {
    throw new CodedError("no-project", "there is no agentid.yaml in this folder or above it", {
      hint: "agentid init writes one",
    });
  }
  const directory = process.cwd();
  return { directory, load: async () => builtInProject(directory) };
}

/** Writes the pins that this load made; an ephemeral trust domain leaves the lock as it is. */
async function savePins(directory: string, { lock, newlyPinned }: Project, ephemeral: boolean): Promise<void> {
  if (newlyPinned.length > 0 && !ephemeral) await writeLock(join(directory, LOCK_FILE_NAME), lock);
}

function knownAgents(stateDirectory: string): Pick<LaunchRegistryOptions, "known" | "firstLaunchStartTime"> {
  const { agents, firstLaunchStartTime } = readKnownAgents(stateDirectory);
  return { known: agents, ...(firstLaunchStartTime === undefined ? {} : { firstLaunchStartTime }) };
}

function decisionPointOf(set: PolicySet, clock: Clock): DecisionPoint {
  return createDecisionPoint(set, { clock, random: randomBytes });
}

function reachable(service: ServiceConfig, socketOf: (name: string) => string): RunningService {
  const { upstream } = service;
  if (upstream.kind !== "command") return { ...service, upstream };
  return { ...service, upstream: { kind: "unix", path: socketOf(service.name) } };
}
