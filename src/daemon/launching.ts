import { resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Adopters } from "../attestation/adopters.js";
import type { CallerAttestor } from "../attestation/caller.js";
import { launchedName } from "../attestation/launched-process.js";
import type { LaunchRegistry } from "../attestation/launches.js";
import type { AuditLog } from "../audit/audit-log.js";
import { codeOf, messageOf } from "../coded-error.js";
import type { IdentityConfig } from "../config/config.js";
import { formatCommand } from "../config/describe-identity.js";
import { secretVariables } from "../config/egress-values.js";
import type { LaunchGrant } from "../control-api/routes.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import { instanceIdentity } from "../identity/instances.js";
import { chainAbove, requireChain } from "./agents-above.js";
import type { AdmittedPeer } from "./control-server.js";
import type { EventBus } from "./event-bus.js";
import { hintOf, type Refuse, refusal } from "./launch-refusal.js";
import { type SharedWalls, widerThan } from "./launch-socket.js";
import { insideOnly, withoutSockets } from "./launch-variables.js";
import { instanceOf } from "./launched-instance.js";
import { commandDifference, programAsPinned } from "./pinned-command.js";
import type { Project } from "./project.js";
import type { Sandboxes } from "./sandboxes.js";

export interface LaunchRequest {
  readonly name: string;
  readonly argv: readonly string[];
  readonly workingDirectory: string;
  readonly instance?: string | undefined;
  readonly sandbox?: boolean | undefined;
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
  readonly sandboxes: Sandboxes;
}

/**
 * Grants a launch (D7): only what the entry and the lock pin may run as NAME. The launcher is the process at the other end of the connection; it
 * becomes the command, and its identity begins when it has. What an agent has started may launch only the sub-agents that the agent's entry names.
 * A sandboxed launch is granted at the door inside its sandbox; what an agent inside launches stands in the same `walls`. Throws CodedError
 * `launch-refused` with the difference.
 */
export function createLaunching(options: LaunchingOptions) {
  const { attestor, launches, registry, audit, bus } = options;

  return async function launch(
    request: LaunchRequest,
    { fd, right }: AdmittedPeer,
    walls?: SharedWalls,
  ): Promise<LaunchGrant> {
    const launcher = await attestor.ofUnixSocket(fd);
    try {
      const { pid, uid, startTime, execGeneration } = launcher.facts;
      const refused = (reason: string): void => {
        const parent = launcher.launch === undefined ? {} : { agent: launchedName(launcher.launch) };
        audit.append("launch.refused", { name: request.name, argv: request.argv, pid, uid, ...parent, reason });
        bus.emit({ event: "process", change: "launch-refused", identity: request.name, pid, uid, detail: reason });
      };
      const refuse: Refuse = (reason, hint) => {
        refused(reason);
        throw refusal(reason, hint);
      };
      const identity = findByName(request.name, registry);
      if (identity === undefined) {
        const names = registry.identities.filter((each) => each.launch).map((each) => each.name);
        return refuse(
          `agentid.yaml has no identity ${request.name}`,
          `identities that can be launched: ${names.join(", ") || "none"}`,
        );
      }
      const wanted = identity.launch;
      if (wanted === undefined) {
        return refuse(
          `${identity.name} is not given to launches: its entry has no \`launch\``,
          "agentid attest PID shows what it asks for",
        );
      }
      const launchedBy = right === "agent" ? await chainAbove(options, launcher, identity, refuse) : [];
      if (registry.isRevoked(identity.id)) {
        return refuse(`${identity.name} is revoked`, `to give it back: agentid revoke --undo ${identity.name}`);
      }
      const difference = commandDifference(wanted, request);
      if (difference !== undefined) return refuse(`${identity.name} is granted for another command`, difference);
      const sandboxed = request.sandbox === true || walls !== undefined;
      if (wanted.sandbox !== undefined && !sandboxed) {
        return refuse(
          `${identity.name} runs in a sandbox only: its entry has \`sandbox\``,
          `agentid run --sandbox ${request.name} -- ${formatCommand(request.argv)}`,
        );
      }
      if (sandboxed && asksForExecutables(identity)) {
        return refuse(
          `${identity.name} asks for \`exe\` or \`parent\`, which the kernel vouches for of no process inside a sandbox`,
          "`launch` alone pins the program already: take them out of its entry",
        );
      }
      const shown = walls && widerThan(walls, wanted);
      if (shown !== undefined) {
        return refuse(
          `the sandbox that it would stand in shows ${shown}, which the sandbox of ${identity.name} does not`,
          `its entry would have to name it in \`launch.sandbox\`, or the agent above it be launched without it`,
        );
      }
      const instance = instanceOf(registry, request, identity, wanted, refuse);
      const pinned = options.project().lock.identities[identity.name];
      if (pinned === undefined)
        return refuse(`${identity.name} has no pin in agentid.lock`, `agentid entry pin ${identity.name}`);
      const command = { ...wanted, env: options.environment };
      const expected = await programAsPinned(identity.name, command, pinned).catch((thrown: unknown) =>
        refuse(messageOf(thrown), hintOf(thrown)),
      );
      launcher.recheck();
      if (right === "agent" && launcher.launch?.evidence !== "parent") {
        return refuse("the agent that asks is no more", "launch it again");
      }
      // From `begin` on the launcher is an agent itself and descends from nobody.
      const parentPid = launcher.launch?.pid;
      const granted = { name: identity.name, instance, launchedBy };
      const { id } = instance === undefined ? identity : instanceIdentity(identity, instance);
      const descendants = wanted.children || wanted.subagents.length > 0;
      const record = (process: number): void => {
        options.rememberAgents();
        audit.append("launch.granted", {
          identity: launchedName(granted),
          spiffeId: id.toString(),
          ...(right === "agent" && parentPid !== undefined && { launchedBy, parentPid }),
          argv: wanted.argv,
          workingDirectory: wanted.workingDirectory,
          pid: process,
          uid,
          exePath: pinned.exe.path,
          exeSha256: pinned.exe.sha256,
          files: pinned.files,
          ...(sandboxed && { sandbox: shownBy(walls ?? wanted.sandbox) }),
        });
      };
      const grant = {
        identity: launchedName(granted),
        spiffeId: id.toString(),
        setEnv: { ...options.environmentOf() },
        keepEnv: [...wanted.keepEnv],
        dropEnv: secretVariables(options.project().config),
      };
      const inside = insideOnly(grant.setEnv, walls !== undefined || wanted.subagents.length > 0);
      if (sandboxed && walls === undefined) {
        const sandbox = await options.sandboxes
          .prepare({
            asker: { pid, startTime },
            granted,
            descendants,
            launch: wanted,
            executable: pinned.exe.path,
            files: Object.keys(pinned.files).map((file) => resolve(wanted.workingDirectory, file)),
            async expected() {
              // Between the question and the door a sandbox was built: time enough to revoke, to reload, to change a script.
              if (registry.isRevoked(id)) throw refusal(`${id.name} is revoked`);
              if (!isDeepStrictEqual(registry.find(identity.name), identity)) {
                throw refusal(`the entry of ${identity.name} has changed meanwhile`, "launch it again");
              }
              if (right === "agent") await requireChain(options, pid, identity, launchedBy);
              return programAsPinned(identity.name, command, pinned);
            },
            record,
            refused,
            subagents: wanted.subagents.length === 0 ? undefined : launch,
          })
          .catch((thrown: unknown) => refuse(messageOf(thrown), hintOf(thrown)));
        if (sandbox.wall === "namespaces") return { ...grant, setEnv: inside, sandbox };
        Object.assign(grant, { setEnv: withoutSockets(grant.setEnv), sandbox });
      }
      try {
        walls?.require(pid);
        launches.begin({
          ...granted,
          launcher: { pid, startTime, execGeneration },
          descendants,
          expected: { ...expected, otherMounts: walls !== undefined },
        });
      } catch (thrown) {
        if (codeOf(thrown) === "launch-refused") return refuse(messageOf(thrown), hintOf(thrown));
        if (codeOf(thrown) !== "instance-taken") throw thrown;
        return refuse(messageOf(thrown), "another name, or --instance auto");
      }
      try {
        // What a sub-agent orphans is adopted below the agent above it, or where that agent's orphans are; in a sandbox, inside.
        if (right !== "agent") options.adopters.learn(pid, request.adopter);
        record(pid);
      } catch (thrown) {
        // It is followed already, and who does not wait for our answer becomes the program all the same.
        launches.withdraw(pid, startTime);
        throw thrown;
      }
      return walls === undefined ? grant : { ...grant, setEnv: inside };
    } finally {
      launcher.close();
    }
  };
}

/** Facts of executables: a process in a user namespace of its own may name any file, so there are none of it inside a sandbox. */
function asksForExecutables({ facts }: IdentityConfig): boolean {
  return [facts.exePath, facts.exeSha256, facts.parentExePath, facts.parentExeSha256].some(
    (fact) => fact !== undefined,
  );
}

function shownBy({ read, write }: Pick<SharedWalls, "read" | "write"> = { read: [], write: [] }) {
  return { read, write };
}

/** The identity named in full or by a last segment that only one has. */
export function findByName(name: string, registry: IdentityRegistry): IdentityConfig | undefined {
  const exact = registry.find(name);
  if (exact) return exact;
  const [only, another] = registry.identities.filter((identity) => identity.name.split("/").at(-1) === name);
  return another === undefined ? only : undefined;
}
