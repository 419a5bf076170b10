import type { Adopters } from "../attestation/adopters.js";
import type { CallerAttestor } from "../attestation/caller.js";
import type { LaunchRegistry } from "../attestation/launches.js";
import { compareWithLock, describeDifference, expectedProgram, pinLaunch } from "../attestation/pinning.js";
import type { AuditFields, AuditLog } from "../audit/audit-log.js";
import { CodedError, messageOf } from "../coded-error.js";
import { formatCommand } from "../config/compare.js";
import type { IdentityConfig, LaunchConfig } from "../config/config.js";
import type { LaunchGrant } from "../control-api/routes.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import type { EventBus } from "./event-bus.js";
import type { Project } from "./project.js";

export interface LaunchRequest {
  readonly name: string;
  readonly argv: readonly string[];
  readonly workingDirectory: string;
  readonly adopter?: number | undefined;
}

export interface LaunchingOptions {
  readonly attestor: CallerAttestor;
  readonly launches: LaunchRegistry;
  readonly adopters: Pick<Adopters, "learn">;
  readonly registry: IdentityRegistry;
  readonly project: () => Project;
  readonly audit: AuditLog;
  readonly bus: EventBus;
  /** Writes down who is an agent; called before a launch is granted. */
  readonly rememberAgents: () => void;
  /** What every launched process finds in its environment. */
  readonly environmentOf: () => Readonly<Record<string, string>>;
  /** The daemon's own environment: commands are looked up on its PATH when they are pinned and compared. */
  readonly environment: NodeJS.ProcessEnv;
}

/**
 * Grants a launch (D7): only what the entry and the lock pin may run as NAME. The launcher is the process at the other end of `fd`; it becomes the
 * command, and its identity begins when it has. Throws CodedError `launch-refused` with the difference.
 */
export function createLaunching(options: LaunchingOptions) {
  const { attestor, launches, audit, bus } = options;

  return async function launch(request: LaunchRequest, fd: number): Promise<LaunchGrant> {
    const launcher = await attestor.ofUnixSocket(fd);
    try {
      const { pid, uid, startTime, execGeneration } = launcher.facts;
      const refuse = (reason: string, hint: string): never => {
        audit.append("launch.refused", { name: request.name, argv: request.argv, pid, uid, reason });
        bus.emit({ event: "process", change: "launch-refused", identity: request.name, pid, uid, detail: reason });
        throw new CodedError("launch-refused", reason, { hint });
      };
      const identity = findByName(request.name, options.registry);
      if (identity === undefined) {
        const names = options.registry.identities.filter((each) => each.launch).map((each) => each.name);
        return refuse(
          `agentid.yaml has no identity ${request.name}`,
          `identities that can be launched: ${names.join(", ") || "none"}`,
        );
      }
      if (options.registry.isRevoked(identity.id)) {
        return refuse(`${identity.name} is revoked`, `to give it back: agentid revoke --undo ${identity.name}`);
      }
      const wanted = identity.launch;
      if (wanted === undefined) {
        return refuse(
          `${identity.name} is not given to launches: its entry has no \`launch\``,
          "agentid attest PID shows what it asks for",
        );
      }
      const difference = commandDifference(wanted, request);
      if (difference !== undefined) return refuse(`${identity.name} is granted for another command`, difference);
      const pinned = options.project().lock.identities[identity.name];
      if (pinned === undefined)
        return refuse(`${identity.name} has no pin in agentid.lock`, `agentid entry pin ${identity.name}`);
      const command = { ...wanted, env: options.environment };
      const now = await pinLaunch(command).catch((thrown: unknown) =>
        refuse(messageOf(thrown), "is the command installed?"),
      );
      const differences = compareWithLock(pinned, now).map(describeDifference);
      if (differences.length > 0) {
        return refuse(
          `${identity.name} is not what agentid.lock pins:\n${differences.map((line) => `  ${line}`).join("\n")}`,
          `if you made this change: agentid entry pin ${identity.name}`,
        );
      }
      launcher.recheck();
      launches.begin({
        launcher: { pid, startTime, execGeneration },
        name: identity.name,
        expected: await expectedProgram(command, pinned),
      });
      options.adopters.learn(pid, request.adopter);
      options.rememberAgents();
      audit.append("launch.granted", granted(identity, wanted, pid, uid, pinned));
      return {
        identity: identity.name,
        spiffeId: identity.id.toString(),
        setEnv: { ...options.environmentOf() },
        keepEnv: [...wanted.keepEnv],
      };
    } finally {
      launcher.close();
    }
  };
}

/** The identity named in full or by a last segment that only one has. */
export function findByName(name: string, registry: IdentityRegistry): IdentityConfig | undefined {
  const exact = registry.find(name);
  if (exact) return exact;
  const [only, another] = registry.identities.filter((identity) => identity.name.split("/").at(-1) === name);
  return another === undefined ? only : undefined;
}

function commandDifference(wanted: LaunchConfig, asked: LaunchRequest): string | undefined {
  if (formatCommand(wanted.argv) !== formatCommand(asked.argv)) {
    return `agentid.yaml has  ${formatCommand(wanted.argv)}\nyou asked for     ${formatCommand(asked.argv)}`;
  }
  if (wanted.workingDirectory !== asked.workingDirectory) {
    return `it runs in ${wanted.workingDirectory}; this is ${asked.workingDirectory}`;
  }
  return undefined;
}

function granted(
  identity: IdentityConfig,
  { argv, workingDirectory }: LaunchConfig,
  pid: number,
  uid: number,
  pinned: { exe: { path: string; sha256: string }; files: Readonly<Record<string, string>> },
): AuditFields {
  return {
    identity: identity.name,
    spiffeId: identity.id.toString(),
    argv,
    workingDirectory,
    pid,
    uid,
    exePath: pinned.exe.path,
    exeSha256: pinned.exe.sha256,
    files: pinned.files,
  };
}
