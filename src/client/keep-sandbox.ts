import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, fstatSync, readFileSync, readSync, realpathSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { CodedError, messageOf } from "../coded-error.js";
import type { SandboxGrant } from "../control-api/sandbox-view.js";
import { anonymousFile } from "../platform/anonymous-file.js";
import type { InheritedState } from "../platform/inherited-state.js";
import { restoreDescriptors } from "../platform/replace-process.js";
import { bubblewrapArguments } from "../sandbox/bubblewrap.js";
import { seccompFilter } from "../sandbox/seccomp.js";
import { INSIDE, type Mount } from "../sandbox/view.js";
import type { EntryOrder } from "./enter-sandbox.js";
import { complain } from "./exit-like-a-shell.js";
import { sandboxSupport } from "./sandbox-support.js";

const EXIT = { failed: 1 } as const;
const ENTRY = `${INSIDE.library}/dist/client/sandbox-entry.js`;
const ARGUMENTS_FD = 3;
const FILTER_FD = 4;
const BEGUN_FD = 5;
/** What a terminal or a supervisor sends to a whole group. Bubblewrap ignores it: the agent decides what it means. */
const FOR_THE_AGENT = ["INT", "QUIT", "HUP", "TERM", "USR1", "USR2"] as const;

/**
 * Builds the sandbox and stays as the agent's keeper: an agent in a PID namespace of its own cannot have the PID that was launched, so that PID hands on
 * signals and the exit code, and the end of it is the end of everything inside. Never returns.
 */
export async function keepSandbox(
  grant: SandboxGrant,
  environment: Readonly<Record<string, string>>,
  initialState: InheritedState,
): Promise<never> {
  refuseFolders();
  const { bubblewrap, architecture, disableUserNamespaces } = supportOrEnd();
  const view = { ...grant.view, mounts: [...grant.view.mounts, ...ownLibrary()] };
  const args = bubblewrapArguments(view, { seccompFd: FILTER_FD, disableUserNamespaces });
  const order: EntryOrder = {
    ports: grant.ports,
    openFiles: initialState.openFiles?.toString(),
    begunFd: BEGUN_FD,
  };
  const entry = [INSIDE.node, ENTRY, JSON.stringify(order)];
  restoreDescriptors(initialState);
  const begun = anonymousFile("agentid-begun", new Uint8Array());
  const child = spawn(
    "/bin/sh",
    [
      "-c",
      `trap '' ${FOR_THE_AGENT.join(" ")}; exec "$@"`,
      "agentid",
      bubblewrap,
      "--args",
      String(ARGUMENTS_FD),
      ...entry,
    ],
    {
      env: { ...environment },
      stdio: [
        "inherit",
        "inherit",
        "inherit",
        anonymousFile("agentid-sandbox", Buffer.from(args.map((arg) => `${arg}\0`).join(""))),
        anonymousFile("agentid-seccomp", seccompFilter(architecture)),
        begun,
      ],
    },
  );
  return keep(child, begun);
}

/** `begun` is the file in which the entry says that it is about to become the agent. */
function keep(child: ChildProcess, begun: number): Promise<never> {
  let endedBy: NodeJS.Signals | undefined;
  for (const name of FOR_THE_AGENT) {
    const signal: NodeJS.Signals = `SIG${name}`;
    process.on(signal, () => {
      // Bubblewrap's child is the first process of the namespace, and the first child of that is what was executed inside.
      const inside = firstChild(firstChild(child.pid));
      // Before the agent, nothing runs that could tidy up, and what runs ignores signals.
      if (!hasBegun(begun) || (inside !== undefined && isEntry(inside))) {
        endedBy ??= signal;
        child.kill("SIGKILL");
      }
      // The terminal sends these to everybody in the foreground, the agent among them. After the agent, its exit code is on the way.
      else if (inside !== undefined && !((name === "INT" || name === "QUIT") && isForeground())) send(signal, inside);
    });
  }
  return new Promise((_, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => {
      process.exit(code ?? 128 + constants.signals[endedBy ?? signal ?? "SIGKILL"]);
    });
  });
}

function hasBegun(file: number): boolean {
  return readSync(file, new Uint8Array(1), 0, 1, 0) > 0;
}

/** The entry stands second in its own command line, and fifth in that of bubblewrap. */
function isEntry(pid: number): boolean {
  return textOf(`/proc/${pid}/cmdline`).split("\0").slice(0, 5).includes(ENTRY);
}

function send(signal: NodeJS.Signals, pid: number): void {
  try {
    process.kill(pid, signal);
  } catch {
    // it has exited meanwhile
  }
}

function firstChild(pid: number | undefined): number | undefined {
  if (pid === undefined) return undefined;
  const first = textOf(`/proc/${pid}/task/${pid}/children`).split(" ")[0];
  return first === undefined || first === "" ? undefined : Number(first);
}

/** Whether our process group is the one in the foreground of our terminal. */
function isForeground(): boolean {
  // After the name, which may hold anything: state, ppid, pgrp, session, tty, tpgid
  const [, , group, , , foreground] = textOf("/proc/self/stat").split(") ").at(-1)?.split(" ") ?? [];
  return group !== undefined && group === foreground;
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return ""; // it has exited
  }
}

/** Through a folder as standard input the whole file system could be reached, whatever is mounted inside. */
function refuseFolders(): void {
  for (const fd of [0, 1, 2]) {
    try {
      if (!fstatSync(fd).isDirectory()) continue;
    } catch {
      continue; // closed
    }
    fail(`descriptor ${fd} is a folder: it would lead out of the sandbox`, "redirect it from /dev/null");
  }
}

/** Node, and of ours what the entry loads; `agentid` for agents that launch sub-agents. */
function ownLibrary(): readonly Mount[] {
  const read = (source: string, at: string): Mount => ({ show: "read", source: realpathSync(source), at });
  const dist = dirname(dirname(fileURLToPath(import.meta.url)));
  const bin = join(dirname(dist), "bin");
  const modules = dirname(dirname(fileURLToPath(import.meta.resolve("koffi"))));
  const natives = join(modules, "@koromix");
  return [
    read(process.execPath, INSIDE.node),
    read(dist, `${INSIDE.library}/dist`),
    read(join(dirname(dist), "package.json"), `${INSIDE.library}/package.json`),
    read(join(bin, "agentid.js"), `${INSIDE.library}/bin/agentid.js`),
    read(join(bin, "inside"), INSIDE.bin),
    read(join(modules, "koffi"), `${INSIDE.library}/node_modules/koffi`),
    ...(existsSync(natives) ? [read(natives, `${INSIDE.library}/node_modules/@koromix`)] : []),
  ];
}

/** Ends this process where no sandbox can be made. */
function supportOrEnd(): ReturnType<typeof sandboxSupport> {
  try {
    return sandboxSupport();
  } catch (thrown) {
    return fail(
      messageOf(thrown),
      (thrown instanceof CodedError && thrown.hint) || "agentid doctor says what is missing",
    );
  }
}

function fail(message: string, next: string): never {
  complain(`agentid: ${message}\n  ${next.replaceAll("\n", "\n  ")}`);
  process.exit(EXIT.failed);
}
