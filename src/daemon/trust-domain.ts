import { messageOf } from "../coded-error.js";
import type { AgentidEvent } from "../control-api/events.js";
import { socketPathIn } from "../platform/directories.js";
import { createWorkloadApi } from "../workload-api/server.js";
import { type Attesting, startAttesting } from "./attesting.js";
import { type Foundation, openFoundation, type TrustDomainOptions } from "./foundation.js";
import { type Issuing, startIssuing } from "./issuing.js";
import { warningsOf } from "./project-warnings.js";
import type { Relaying } from "./relaying.js";

export type { TrustDomainOptions } from "./foundation.js";

export type ReadyEvent = Extract<AgentidEvent, { event: "ready" }>;

export interface RunningTrustDomain {
  readonly ready: ReadyEvent;
  /** What programs need to find the trust domain: addresses, never a secret. */
  readonly environment: Readonly<Record<string, string>>;
  subscribe(since: number | undefined, listener: (event: AgentidEvent) => void): () => void;
  /** Lets the dashboard that the caller has started as its child, and no other process, use the control socket unasked. */
  admitDashboard(pid: number): void;
  /** Runs `step` first when stopping. */
  beforeStop(step: () => Promise<void>): void;
  /** Stops in order and leaves nothing behind. Idempotent; every caller waits for the same end. */
  stop(reason: string): Promise<void>;
  /** Resolves when it has stopped. */
  readonly stopped: Promise<void>;
}

/** Starts a whole trust domain. When anything fails on the way, what was started is stopped again, and the error is thrown. */
export async function startTrustDomain(options: TrustDomainOptions): Promise<RunningTrustDomain> {
  /** What to undo, last first. */
  const undo: (() => unknown)[] = [];
  const unwind = async (): Promise<void> => {
    const failures: unknown[] = [];
    for (const step of undo.splice(0).reverse()) {
      // One part that cannot end must not keep the others from it.
      await Promise.resolve()
        .then(step)
        .catch((thrown: unknown) => failures.push(thrown));
    }
    if (failures.length > 0) throw new AggregateError(failures, failures.map(messageOf).join("; "));
  };
  try {
    return await compose(await openFoundation(options, undo), unwind);
  } catch (thrown) {
    await unwind();
    throw thrown;
  }
}

async function compose(foundation: Foundation, unwind: () => Promise<void>): Promise<RunningTrustDomain> {
  const { bus, folders, project } = foundation;
  const ending = createEnding(foundation, unwind);
  const attesting = startAttesting(foundation);
  const issuing = await startIssuing(foundation, attesting);
  attesting.lookAsAskedBy(issuing.registry);
  // The first thing that programs can reach: an SVID must not wait for a slow service.
  const workloadApi = await startWorkloadApi(foundation, attesting, issuing);
  // What only calls and people need is loaded while programs can have their SVIDs already.
  // An import is one turn of the event loop, however much it loads; who waited for the socket needs several to be attested and answered.
  await callersTurn(FIRST_CALLERS_MS);
  const { startRelaying } = await import("./relaying.js");
  await callersTurn(NEXT_CALLERS_MS);
  const { startFederating } = await import("./federating.js");
  await callersTurn(NEXT_CALLERS_MS);
  const { startDeciding } = await import("./deciding.js");
  await callersTurn(NEXT_CALLERS_MS);
  const { startControlling } = await import("./controlling.js");
  await callersTurn(NEXT_CALLERS_MS);
  const relaying = await startRelaying(foundation, attesting, issuing);
  const federating = await startFederating(foundation, issuing);
  const deciding = await startDeciding(foundation, { attesting, issuing, relaying });
  const { control, environmentOf, admitDashboard } = await startControlling(foundation, {
    attesting,
    issuing,
    relaying,
    federating,
    deciding,
    workloadApi,
    stop: ending.stop,
  });
  for (const { code, message } of warningsOf(project)) foundation.problem("warning", code, message);
  folders.announce({ pid: process.pid, workloadApi, control });
  const ready = bus.emit({
    event: "ready",
    trustDomain: project.config.trustDomain.name,
    workloadApi,
    control,
    authzen: deciding.addresses,
    pid: process.pid,
    services: servicesOf(foundation, relaying),
    ...(project.config.egress.length > 0 && { egress: egressOf(foundation, relaying) }),
  }) as ReadyEvent;
  return {
    ...ending,
    admitDashboard,
    ready,
    environment: environmentOf(),
    subscribe: (since, listener) => bus.subscribe(since, listener),
  };
}

/** So long nothing else is done than what callers ask for. */
const FIRST_CALLERS_MS = 40;
const NEXT_CALLERS_MS = 5;

function callersTurn(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function startWorkloadApi(foundation: Foundation, attesting: Attesting, issuing: Issuing): Promise<string> {
  const { bus, clock, audit, folders, undo, project, problem } = foundation;
  const { registry, keeper, witKeeper, bundles } = issuing;
  const api = createWorkloadApi({
    trustDomain: project.config.trustDomain,
    attestor: attesting.attestor,
    registry,
    svids: keeper,
    bundles,
    jwtIssuer: keeper,
    jwtBundles: bundles,
    witSvids: witKeeper,
    witBundles: bundles,
    audit,
    clock,
    observer: {
      attested({ pid, uid, startTime }, identities) {
        attesting.live.seen(pid, startTime, identities);
        const [identity] = identities;
        bus.emit({ event: "process", change: "attested", pid, uid, identity, detail: identities.join(", ") });
      },
      refused({ pid, uid }, reason) {
        bus.emit({ event: "process", change: "refused", pid, uid, detail: reason });
      },
      rejected({ pid, uid }, reason) {
        problem("warning", "sds-rejected", `process ${pid} (uid ${uid}): ${reason}`);
      },
    },
  });
  const path = socketPathIn(folders.runtime, "workload");
  await api.listen(path);
  undo.push(() => api.close());
  return `unix://${path}`;
}

function servicesOf({ project }: Foundation, { relay }: Relaying): ReadyEvent["services"] {
  const entries = project.config.services.map(({ name }) => {
    const addresses = relay.addressesOf(name);
    const mtls = addresses ? `${addresses.mtls.host}:${addresses.mtls.port}` : "";
    return [name, { url: addresses?.url ?? "", mtls }] as const;
  });
  return Object.fromEntries(entries);
}

function egressOf({ project }: Foundation, { relay }: Relaying): NonNullable<ReadyEvent["egress"]> {
  const { egress } = project.config;
  return Object.fromEntries(egress.map(({ name }) => [name, { url: relay.egressUrlOf(name) ?? "" }]));
}

function createEnding(
  { bus, audit, problem }: Foundation,
  unwind: () => Promise<void>,
): Pick<RunningTrustDomain, "stop" | "stopped" | "beforeStop"> {
  const first: (() => Promise<void>)[] = [];
  let stopping: Promise<void> | undefined;
  let finish: () => void = () => {};
  const stopped = new Promise<void>((resolve) => {
    finish = resolve;
  });
  return {
    stopped,
    beforeStop: (step) => first.push(step),
    stop(reason) {
      stopping ??= (async () => {
        bus.emit({ event: "stopping", reason });
        try {
          for (const step of first) await step();
          audit.append("daemon.stop", { reason });
        } catch (thrown) {
          // Whatever cannot be written any more, everything is still taken down.
          problem("error", "stop", messageOf(thrown));
        }
        await unwind().finally(finish);
      })();
      return stopping;
    },
  };
}
