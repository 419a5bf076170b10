import { closeSync, writeSync } from "node:fs";
import { connect } from "node:net";
import { messageOf } from "../coded-error.js";
import type { DoorAnswer, DoorRequest } from "../control-api/sandbox-view.js";
import type { InheritedState } from "../platform/inherited-state.js";
import { errnoName } from "../platform/libc.js";
import { listenOn } from "../platform/listening-socket.js";
import { replaceProcess, restoreInherited } from "../platform/replace-process.js";
import { INSIDE } from "../sandbox/view.js";
import { complain, NOT_EXECUTABLE, NOT_FOUND } from "./exit-like-a-shell.js";
import { unwrapped } from "./sandbox-environment.js";

/** What the keeper outside tells the entry, as JSON. */
export interface EntryOrder {
  /** Ports of the relay. */
  readonly ports: readonly number[];
  /** Soft limit on open files that the agent gets; decimal. */
  readonly openFiles: string | undefined;
  /** A file, into which a byte is written when signals are from now on for the agent. */
  readonly begunFd: number;
}

const EXIT = { failed: 1, denied: 3 } as const;

/**
 * Listens on the relay's ports inside the sandbox's own network and hands the sockets to the daemon, so that whoever connects to them is inside; then asks
 * for the launch and becomes the program. Never returns.
 */
export async function enterSandbox(order: string, initialState: InheritedState): Promise<never> {
  const { ports, openFiles, begunFd } = JSON.parse(order) as EntryOrder;
  const listening = ports.map((port) => ({ port, descriptors: listenOn(port) }));
  const answer = await ask({ listening }).catch((thrown: unknown) => {
    complain(`agentid: the daemon could not be asked from inside the sandbox: ${messageOf(thrown)}`);
    process.exit(EXIT.failed);
  });
  if ("refused" in answer) {
    complain(`agentid: ${[answer.refused, ...(answer.hint?.split("\n") ?? [])].join("\n  ")}`);
    process.exit(EXIT.denied);
  }
  const environment = unwrapped(process.env);
  writeSync(begunFd, "1", 0);
  closeSync(begunFd);
  restoreInherited({ ...initialState, openFiles: openFiles === undefined ? undefined : BigInt(openFiles) });
  const { failure, errno } = replaceProcess(answer.executable, answer.argv, environment);
  complain(`agentid: ${answer.executable}: cannot be executed inside the sandbox: ${errnoName(errno)}`);
  process.exit(failure === "not-found" ? NOT_FOUND : NOT_EXECUTABLE);
}

function ask(request: DoorRequest): Promise<DoorAnswer> {
  return new Promise((resolve, reject) => {
    let text = "";
    const connection = connect(INSIDE.door, () => connection.write(`${JSON.stringify(request)}\n`));
    connection.setEncoding("utf8");
    connection.on("data", (chunk: string) => {
      text += chunk;
    });
    connection.on("error", reject);
    connection.on("end", () => {
      try {
        resolve(JSON.parse(text) as DoorAnswer);
      } catch (thrown) {
        reject(thrown);
      }
    });
  });
}
