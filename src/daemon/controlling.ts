import { socketPathIn } from "../platform/directories.js";
import type { Attesting } from "./attesting.js";
import { createControlHandlers, createGatekeeper } from "./control-handlers.js";
import { createControlServer } from "./control-server.js";
import type { Deciding } from "./deciding.js";
import type { Federating } from "./federating.js";
import type { Foundation } from "./foundation.js";
import type { Issuing } from "./issuing.js";
import { createLaunching } from "./launching.js";
import { followProject } from "./project-reload.js";
import { proxyEnvironment } from "./proxy-environment.js";
import type { Relaying } from "./relaying.js";
import { createRevoking } from "./revoking.js";
import { createSandboxes } from "./sandboxes.js";
import { loadSettled } from "./settled-files.js";

export interface Controlling {
  /** `unix:///…` */
  readonly control: string;
  /** What programs need to find the trust domain: addresses, never a secret. */
  readonly environmentOf: () => Readonly<Record<string, string>>;
  /** From here on process `pid`, a child of ours, is the dashboard. */
  readonly admitDashboard: (pid: number) => void;
}

export interface Parts {
  readonly attesting: Attesting;
  readonly issuing: Issuing;
  readonly relaying: Relaying;
  readonly federating: Federating;
  readonly deciding: Deciding;
  /** `unix:///…` */
  readonly workloadApi: string;
  readonly stop: (reason: string) => Promise<void>;
}

/** Opens the control socket, last of all: whoever can connect finds everything there. From here on saves take effect. */
export async function startControlling(foundation: Foundation, parts: Parts): Promise<Controlling> {
  const { audit, bus, clock, platform, folders, undo, options } = foundation;
  const { attesting, issuing, relaying, federating, deciding, workloadApi } = parts;
  const { attestor, launches, adopters, live, rememberAgents, sandboxNetworks, isSandboxed } = attesting;
  const { registry } = issuing;
  const project = () => foundation.project;
  const controlSocket = socketPathIn(folders.runtime, "control");
  const control = `unix://${controlSocket}`;

  const reload = followProject({
    first: foundation.project,
    load: () => loadSettled(foundation.project.config, clock, foundation.load),
    apply: async (next) => {
      const last = foundation.project;
      await relaying.putInForce(next);
      try {
        await federating.putInForce(next);
        await deciding.putInForce(next);
      } catch (thrown) {
        await relaying.putInForce(last);
        await federating.putInForce(last);
        await deciding.putInForce(last);
        throw thrown;
      }
    },
    audit,
    bus,
    clock,
    watch: foundation.project.config.file !== undefined,
  });
  undo.push(() => reload.close());

  const environmentOf = (): Readonly<Record<string, string>> => ({
    SPIFFE_ENDPOINT_SOCKET: workloadApi,
    AGENTID_CONTROL: control,
    AGENTID_AUTHZEN: deciding.addresses.url ?? deciding.addresses.socket,
    ...Object.fromEntries(
      foundation.project.config.services.flatMap(({ name, protocol }) => {
        const variable = variableOf(name);
        const { url = "", address = "", socket, mtls } = relaying.relay.addressesOf(name) ?? {};
        return [
          // Of a service that speaks no HTTP there is no URL that its clients would know.
          ...(protocol === "tcp" ? [] : [[`AGENTID_URL_${variable}`, url]]),
          // Clients of gRPC are told a host and a port.
          ...(protocol === "tcp" || protocol === "grpc" ? [[`AGENTID_ADDRESS_${variable}`, address]] : []),
          ...(mtls?.ofRelay ? [[`AGENTID_MTLS_${variable}`, `${mtls.host}:${mtls.port}`]] : []),
          ...(socket === undefined ? [] : [[`AGENTID_SOCKET_${variable}`, socket]]),
        ];
      }),
    ),
    ...Object.fromEntries(
      foundation.project.config.egress
        .filter(({ connect }) => connect !== true)
        .map(({ name }) => [`AGENTID_URL_${variableOf(name)}`, relaying.relay.egressUrlOf(name) ?? ""]),
    ),
    ...proxyEnvironment(relaying.relay.proxyUrl()),
  });
  const revoking = createRevoking({
    ...issuing,
    audit,
    clock,
    bus,
    longestSeconds: () => {
      const { x509Seconds, jwtSeconds } = foundation.project.config.lifetimes;
      return Math.max(x509Seconds, jwtSeconds);
    },
    recordedBefore: foundation.recordedBefore,
  });
  const sandboxes = createSandboxes({
    platform,
    attestor,
    launches,
    relay: relaying.relay,
    networks: sandboxNetworks,
    config: () => foundation.project.config,
    runtimeDirectory: folders.runtime,
    stateDirectory: folders.state,
    workloadApi: workloadApi.replace(/^unix:\/\//, ""),
    environment: options.environment,
    refusedInside({ pid, uid }, route, reason) {
      audit.append("control.refused", { route, pid, uid, reason });
      bus.emit({ event: "process", change: "refused", pid, uid, detail: `control: ${reason}` });
    },
  });
  undo.push(() => sandboxes.close());
  let dashboard: { readonly pid: number; readonly startTime: bigint } | undefined;
  const server = createControlServer({
    subscribe: (since, listener) => bus.subscribe(since, listener),
    admit: createGatekeeper({
      platform,
      launches,
      adopters,
      audit,
      bus,
      isOwnDashboard: (pid, startTime) => dashboard?.pid === pid && dashboard.startTime === startTime,
      isSandboxed,
    }),
    handlers: createControlHandlers({
      status: {
        startedAt: new Date(clock.now()),
        ephemeral: options.ephemeral,
        workloadApi,
        control,
        authzen: () => deciding.addresses,
        reload,
        keeper: issuing.keeper,
        registry,
        authority: issuing.authority,
        revoking,
        relay: relaying.relay,
        services: relaying.services,
        live,
        audit,
        bus,
      },
      attestor,
      registry,
      explanations: relaying.explanations,
      federating,
      revoking,
      revocations: issuing.revocations,
      secrets: relaying.secrets,
      project,
      projectDirectory: foundation.projectDirectory,
      environment: options.environment,
      launch: createLaunching({
        attestor,
        launches,
        adopters,
        registry,
        project,
        audit,
        bus,
        rememberAgents,
        environmentOf,
        environment: options.environment,
        sandboxes,
      }),
      stop: parts.stop,
    }),
  });
  await server.listen(controlSocket);
  undo.push(() => server.close());
  return {
    control,
    environmentOf,
    admitDashboard(pid) {
      const handle = platform.openProcess({ pid });
      dashboard = { pid, startTime: handle.status().startTime };
      handle.close();
    },
  };
}

function variableOf(name: string): string {
  return name.toUpperCase().replaceAll("-", "_");
}
