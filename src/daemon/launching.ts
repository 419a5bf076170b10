import { resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { CallerAttestor } from "../attestation/caller.js";
import type { Command } from "../attestation/executable-resolution.js";
import type { LaunchRegistry } from "../attestation/launches.js";
import {
  compareWithLock,
  describeDifference,
  expectedProgram,
  type PinnedLaunch,
  pinLaunch,
} from "../attestation/pinning.js";
import type { AuditFields, AuditLog } from "../audit/audit-log.js";
import { CodedError, messageOf } from "../coded-error.js";
import { formatCommand } from "../config/compare.js";
import type { IdentityConfig, LaunchConfig } from "../config/config.js";
import type { LaunchGrant } from "../control-api/routes.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import { INSIDE } from "../sandbox/view.js";
import type { EventBus } from "./event-bus.js";
import type { Project } from "./project.js";
import type { Sandboxes } from "./sandboxes.js";

export interface LaunchRequest {
  readonly name: string;
  readonly argv: readonly string[];
  readonly workingDirectory: string;
  readonly sandbox?: boolean | undefined;
}

export interface LaunchingOptions {
  readonly attestor: CallerAttestor;
  readonly launches: LaunchRegistry;
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
  readonly sandboxes: Sandboxes;
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
      const refused = (reason: string): void => {
        audit.append("launch.refused", { name: request.name, argv: request.argv, pid, uid, reason });
        bus.emit({ event: "process", change: "launch-refused", identity: request.name, pid, uid, detail: reason });
      };
      const refuse = (reason: string, hint: string): never => {
        refused(reason);
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
      if (wanted.sandbox !== undefined && request.sandbox !== true) {
        return refuse(
          `${identity.name} runs in a sandbox only: its entry has \`sandbox\``,
          `agentid run --sandbox ${request.name} -- ${formatCommand(request.argv)}`,
        );
      }
      const pinned = options.project().lock.identities[identity.name];
      if (pinned === undefined)
        return refuse(`${identity.name} has no pin in agentid.lock`, `agentid entry pin ${identity.name}`);
      const command = { ...wanted, env: options.environment };
      const unpinned = await differenceFromLock(identity.name, command, pinned);
      if (unpinned !== undefined) return refuse(unpinned.message, unpinned.hint ?? "");
      launcher.recheck();
      const grant = {
        identity: identity.name,
        spiffeId: identity.id.toString(),
        setEnv: { ...options.environmentOf() },
        keepEnv: [...wanted.keepEnv],
      };
      if (request.sandbox === true) {
        const sandbox = await options.sandboxes
          .prepare({
            asker: { pid, startTime },
            name: identity.name,
            launch: wanted,
            executable: pinned.exe.path,
            files: Object.keys(pinned.files).map((file) => resolve(wanted.workingDirectory, file)),
            async expected() {
              // Between the question and the door a sandbox was built: time enough to revoke, to reload, to change a script.
              const { registry } = options;
              if (registry.isRevoked(identity.id))
                throw new CodedError("launch-refused", `${identity.name} is revoked`);
              if (!isDeepStrictEqual(registry.find(identity.name), identity)) {
                throw new CodedError("launch-refused", `the entry of ${identity.name} has changed meanwhile`, {
                  hint: "launch it again",
                });
              }
              const changed = await differenceFromLock(identity.name, command, pinned);
              if (changed !== undefined) throw changed;
              return expectedProgram(command, pinned);
            },
            granted(inside) {
              options.rememberAgents();
              audit.append("launch.granted", granted(identity, wanted, inside, uid, pinned, true));
            },
            refused,
          })
          .catch((thrown: unknown) => refuse(messageOf(thrown), (thrown instanceof CodedError && thrown.hint) || ""));
        if (sandbox.wall === "namespaces") return { ...grant, setEnv: insideOnly(grant.setEnv), sandbox };
        Object.assign(grant, { setEnv: withoutControl(grant.setEnv), sandbox });
      }
      launches.begin({
        launcher: { pid, startTime, execGeneration },
        name: identity.name,
        expected: await expectedProgram(command, pinned),
      });
      options.rememberAgents();
      audit.append("launch.granted", granted(identity, wanted, pid, uid, pinned, request.sandbox === true));
      return grant;
    } finally {
      launcher.close();
    }
  };
}

/** What is not as agentid.lock pins it, as the refusal that says so. */
async function differenceFromLock(
  name: string,
  command: Command,
  pinned: PinnedLaunch,
): Promise<CodedError | undefined> {
  const refusal = (reason: string, hint: string) => new CodedError("launch-refused", reason, { hint });
  let now: PinnedLaunch;
  try {
    now = await pinLaunch(command);
  } catch (thrown) {
    return refusal(messageOf(thrown), "is the command installed?");
  }
  const differences = compareWithLock(pinned, now).map(describeDifference);
  if (differences.length === 0) return undefined;
  return refusal(
    `${name} is not what agentid.lock pins:\n${differences.map((line) => `  ${line}`).join("\n")}`,
    `if you made this change: agentid entry pin ${name}`,
  );
}

type Variables = Readonly<Record<string, string>>;

/** Inside, the Workload API has another path, and control does not exist. */
function insideOnly(variables: Variables): Record<string, string> {
  return { ...withoutControl(variables), SPIFFE_ENDPOINT_SOCKET: `unix://${INSIDE.workloadApi}` };
}

function withoutControl({ AGENTID_CONTROL: _, ...variables }: Variables): Record<string, string> {
  return variables;
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
  wanted: LaunchConfig,
  pid: number,
  uid: number,
  pinned: PinnedLaunch,
  sandbox: boolean,
): AuditFields {
  return {
    identity: identity.name,
    spiffeId: identity.id.toString(),
    argv: wanted.argv,
    workingDirectory: wanted.workingDirectory,
    pid,
    uid,
    exePath: pinned.exe.path,
    exeSha256: pinned.exe.sha256,
    files: pinned.files,
    ...(sandbox && { sandbox: { read: wanted.sandbox?.read ?? [], write: wanted.sandbox?.write ?? [] } }),
  };
}
