import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { createStrangerRefusals, type StrangerRefusals } from "../audit/stranger-refusals.js";
import { CodedError } from "../coded-error.js";
import type { Config, ServiceConfig } from "../config/config.js";
import { createCallStore } from "../durable/call-store.js";
import { socketPathIn } from "../platform/directories.js";
import { openKeychain } from "../platform/keychain.js";
import { createDecisionPoint } from "../policy/decision-point.js";
import { opened } from "../policy/engines/load-engines.js";
import { createLimitCounts } from "../policy/limit-counts.js";
import { createDurableCalls } from "../relay/durable-calls.js";
import { createRelay, type Relay } from "../relay/relay.js";
import { egressService, type RunningService } from "../relay/running-service.js";
import { createSecrets, type Secrets } from "../secrets/secrets.js";
import type { Attesting } from "./attesting.js";
import { createExplanations, type Explanations, type PolicyInForce } from "./explanations.js";
import { type Foundation, savePins } from "./foundation.js";
import type { Issuing } from "./issuing.js";
import type { Project } from "./project.js";
import { createServiceSupervisor, type ServiceSupervisor } from "./services.js";
import { startTracing } from "./tracing.js";

/** Calls: the relay, the services behind it, and why each call was decided as it was. */
export interface Relaying {
  readonly relay: Relay;
  readonly services: ServiceSupervisor;
  readonly explanations: Explanations;
  readonly secrets: Secrets;
  /** What strangers are refused, as far as it is not recorded one by one. */
  readonly strangers: StrangerRefusals;
  /** What decides now. */
  policy(): PolicyInForce;
  /** Puts another project in force. Throws what the relay throws; then the old one is in force again. */
  putInForce(next: Project): Promise<void>;
}

const DRAIN_MS = 1_000;

/** Resolves when both legs of every service listen, and every service that agentid starts answers or has failed. */
export async function startRelaying(
  foundation: Foundation,
  { attestor }: Attesting,
  { registry, keeper, bundles }: Issuing,
): Promise<Relaying> {
  const { clock, audit, bus, undo, problem, folders, platform, options } = foundation;
  const explanations = createExplanations();
  const tracing = await startTracing(foundation);
  // Counted on over a reload: a save is no way to be rid of a debt.
  const limits = createLimitCounts(clock);
  const strangers = createStrangerRefusals(audit, clock, (words) => problem("warning", "refusals-counted", words));
  undo.push(() => strangers.close());
  const inForce = ({ policies: set, engines }: Project): PolicyInForce => ({
    set,
    point: createDecisionPoint(set, { clock, random: randomBytes, limits, ...opened(engines, clock) }),
  });
  let policy = inForce(foundation.project);
  const secrets = createSecrets({
    sources: () => foundation.project.config.secrets,
    projectDirectory: foundation.projectDirectory,
    environment: options.environment,
    clock,
    openKeychain: () => openKeychain(),
  });
  const inMemory = options.ephemeral || foundation.project.config.keys === "memory";
  const answers = createCallStore({
    path: inMemory ? undefined : join(folders.state, "calls.sqlite"),
    maxBytes: foundation.project.config.durable.maxBytes,
    keepMs: () => foundation.project.config.durable.keepSeconds * 1000,
    clock,
  });
  // After the relay has ended: until then its calls have answers.
  undo.push(() => answers.close());
  const relay = createRelay({
    secrets,
    attestor,
    registry,
    svids: keeper,
    bundles,
    decisionPoint: () => policy.point,
    strangers,
    audit,
    clock,
    emit: (event) => bus.emit(event),
    onDecision: (call) => explanations.remember(call, policy, new Date(clock.now())),
    tracer: tracing.tracer,
    // Own ports as well as own sockets: the derived ones follow from this path.
    durable: createDurableCalls(answers, (message) => problem("error", "durable-store", message)),
    projectDirectory: options.ownSockets ? folders.runtime : foundation.projectDirectory,
  });
  undo.push(() => relay.close({ graceMs: DRAIN_MS }));
  const services = createServiceSupervisor({
    socketDirectory: join(folders.runtime, "s"),
    runtimeDirectory: folders.runtime,
    stateDirectory: folders.state,
    clock,
    platform,
    environment: options.environment,
    onProblem: (service, message) => problem("error", "service", `service ${service} ${message}`),
  });
  undo.push(() => services.stop());

  const behindRelay = ({ services: configured, egress, proxyPort }: Config): readonly RunningService[] => [
    ...configured.map((service) =>
      reachable(service, services.socketOf, (name) => socketPathIn(folders.runtime, `s-${name}`)),
    ),
    ...egress.map((target) => egressService(target, proxyPort)),
  ];

  function decideBy(project: Project): void {
    // Together and without a gap: from here on every question is asked of this project.
    foundation.project = project;
    policy = inForce(project);
    registry.update(project.config, project.lock);
    secrets.forget();
  }

  async function serve({ config }: Project): Promise<void> {
    await relay.update(behindRelay(config));
    await services.update(config.services);
    await tracing.follow(config);
  }

  const { config } = foundation.project;
  await Promise.all([relay.start(behindRelay(config)), services.update(config.services)]);
  return {
    relay,
    services,
    explanations,
    secrets,
    strangers,
    policy: () => policy,
    async putInForce(next) {
      const last = foundation.project;
      if (next.config.trustDomain.name !== last.config.trustDomain.name) {
        throw new CodedError(
          "restart-needed",
          "the trust domain's name takes effect at the next start: agentid down, agentid dev",
        );
      }
      // Rules and identities first: a narrowing must not wait for a service that is slow to start.
      decideBy(next);
      try {
        await serve(next);
        await savePins(foundation.projectDirectory, next, options.ephemeral);
      } catch (thrown) {
        decideBy(last);
        await serve(last);
        throw thrown;
      }
    },
  };
}

/** The service as the relay reaches it, once it runs, and as callers reach the relay: `ownSocketOf` names a socket in agentid's own folder. */
export function reachable(
  service: ServiceConfig,
  socketOf: (name: string) => string,
  ownSocketOf?: (name: string) => string,
): RunningService {
  const { upstream, listenSocket, ...rest } = service;
  const listening = listenSocket === true ? ownSocketOf?.(service.name) : listenSocket;
  return {
    ...rest,
    upstream: upstream.kind === "command" ? { kind: "unix", path: socketOf(service.name) } : upstream,
    ...(listening !== undefined && { listenSocket: listening }),
  };
}
