import { join } from "node:path";
import type { CallerAttestor } from "../attestation/caller.js";
import type { AuditLog } from "../audit/audit-log.js";
import { CodedError } from "../coded-error.js";
import { compareLocks } from "../config/compare-locks.js";
import { LOCK_FILE_NAME } from "../config/load.js";
import { writeLock } from "../config/lock-file.js";
import type { RouteName } from "../control-api/routes.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import type { Revocations } from "../identity/revocations.js";
import type { ProcessHandle } from "../platform/platform.js";
import type { Secrets } from "../secrets/secrets.js";
import { attestationReport } from "./attestation-report.js";
import { createAuthorityHandlers } from "./authority-handlers.js";
import type { ControlHandlers, ControlPeer, ControlRight } from "./control-server.js";
import type { EventBus } from "./event-bus.js";
import type { Explanations } from "./explanations.js";
import type { Federating } from "./federating.js";
import { createFederationHandlers } from "./federation-handlers.js";
import { type createLaunching, findByName } from "./launching.js";
import { administrationOf, INSIDE_A_SANDBOX, type OwnerOptions } from "./owner.js";
import { type Project, pinIdentity } from "./project.js";
import type { Revoking } from "./revoking.js";
import { createSecretHandlers } from "./secret-handlers.js";
import { type StatusSources, statusReport } from "./status-report.js";
import { createToolPinning } from "./tool-pinning.js";

export interface GatekeeperOptions extends OwnerOptions {
  readonly audit: AuditLog;
  readonly bus: EventBus;
  /** The dashboard that this daemon started: exactly that process, whatever its parents' past. */
  readonly isOwnDashboard: (pid: number, startTime: bigint) => boolean;
}

/**
 * Who may use the control socket (D25): an administrator for everything, and what an agent has started for asking for a launch, which `launch` grants
 * only as far as that agent's entry names sub-agents. Nobody inside a sandbox, whose walls what it launched would not have. The returned function throws
 * CodedError `not-administrator`; the refusal is on record first.
 */
export function createGatekeeper(options: GatekeeperOptions) {
  const { platform, launches, audit, bus, isOwnDashboard } = options;
  const descendsFromAgent = (handle: ProcessHandle): boolean => {
    const descent = launches.descentOf(handle);
    descent?.close();
    return descent !== undefined;
  };

  return function admit(peer: ControlPeer, route: RouteName): ControlRight {
    const credentials = platform.peerOfUnixSocket(peer.fd);
    const handle = platform.openProcess(credentials);
    try {
      const { startTime } = handle.status();
      const { pid, uid } = credentials;
      if (isOwnDashboard(pid, startTime)) return "administrator";
      const answer = administrationOf({ pid, uid, startTime }, options);
      if (answer.allowed) return "administrator";
      if (route === "launch" && answer !== INSIDE_A_SANDBOX && descendsFromAgent(handle)) return "agent";
      audit.append("control.refused", { route, pid, uid, reason: answer.reason });
      bus.emit({ event: "process", change: "refused", pid, uid, detail: `control: ${answer.reason}` });
      throw new CodedError(
        "not-administrator",
        `process ${pid} may not administer this trust domain: ${answer.reason}`,
        {
          hint: "the dashboard of agentid dev may, and every terminal that was open before the first agent was launched",
        },
      );
    } finally {
      handle.close();
    }
  };
}

export interface HandlerOptions {
  readonly status: StatusSources;
  readonly attestor: CallerAttestor;
  readonly registry: IdentityRegistry;
  readonly explanations: Explanations;
  readonly federating: Federating;
  readonly revoking: Revoking;
  readonly revocations: Revocations;
  readonly secrets: Secrets;
  readonly project: () => Project;
  readonly projectDirectory: string;
  readonly environment: NodeJS.ProcessEnv;
  readonly launch: ReturnType<typeof createLaunching>;
  readonly stop: (reason: string) => Promise<void>;
}

const MAX_AUDIT_PAGE = 1_000;

/** One small function a route. */
export function createControlHandlers(options: HandlerOptions): ControlHandlers {
  const { status, registry } = options;
  const { reload, keeper, audit } = status;

  function known(name: string) {
    const identity = findByName(name, registry);
    if (!identity) throw new CodedError("identity-unknown", `agentid.yaml has no identity ${name}`);
    return identity;
  }

  return {
    status: () => statusReport(status),
    launch: (request, peer) => options.launch(request, peer),
    async attest({ pid }) {
      const caller = await options.attestor.ofPid(pid);
      try {
        return attestationReport(caller, registry);
      } finally {
        caller.close();
      }
    },
    explain: ({ decision }) => options.explanations.explain(decision),
    denials: async () => ({
      denials: await options.explanations.denials(),
      shadowed: await options.explanations.shadowed(),
    }),
    acceptReload: ({ sequence }) => reload.accept(sequence),
    refuseReload: ({ sequence }) => reload.refuse(sequence),
    rotate: async ({ name }) => ({
      rotated: name === undefined ? [...(await keeper.rotateAll())] : [keeper.rotate(known(name).id)],
    }),
    async pin({ name }) {
      const identity = known(name);
      const pin = await pinIdentity(identity, options.environment);
      if (pin === undefined) throw new CodedError("pin-failed", `${identity.name} asks for nothing that is pinned`);
      const { lock } = options.project();
      const next = { ...lock, identities: { ...lock.identities, [identity.name]: pin } };
      const { changes } = compareLocks(lock, next);
      audit.append("pin", { identity: identity.name, why: "by command", changes: [...changes] }, { sync: true });
      await writeLock(join(options.projectDirectory, LOCK_FILE_NAME), next);
      // The command is the acceptance: who may run it is the owner, and no agent.
      await reload.reloadNow({ accepted: true });
      return { name: identity.name, changes: [...changes] };
    },
    pinTools: createToolPinning({ ...options, ...status }),
    audit: async ({ from, limit }) => ({
      size: audit.size,
      entries: (await audit.read(from, Math.min(limit, MAX_AUDIT_PAGE))).map((entry) => ({
        ...entry,
        fields: { ...entry.fields },
      })),
    }),
    ...createFederationHandlers(options.federating),
    ...createSecretHandlers({ secrets: options.secrets, config: () => options.project().config, audit }),
    ...createAuthorityHandlers({ ...options, authority: status.authority }),
    shutdown() {
      // After the answer is out.
      setImmediate(() => void options.stop("agentid down"));
      return {};
    },
  };
}
