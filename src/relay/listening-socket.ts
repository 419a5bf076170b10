import { mkdirSync } from "node:fs";
import type { Server } from "node:net";
import { dirname } from "node:path";
import { CodedError, messageOf } from "../coded-error.js";
import { listenOnUnixSocket } from "../platform/unix-socket-listener.js";

/**
 * Listens for callers on the Unix socket `path`, mode 0600; a folder that is missing is made with mode 0700. A socket that a killed daemon left is
 * replaced. Throws CodedError `socket-in-use` where somebody answers there, `socket-path-taken` where it is no socket of ours, `cannot-listen`.
 */
export async function listenForCallers(server: Server, path: string): Promise<void> {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    await listenOnUnixSocket(server, path, 0o600);
  } catch (cause) {
    if (cause instanceof CodedError) throw cause;
    throw new CodedError("cannot-listen", `cannot listen on ${path}: ${messageOf(cause)}`, { cause });
  }
}
