import { chmodSync, lstatSync, unlinkSync } from "node:fs";
import { connect, type Server } from "node:net";
import { CodedError, codeOf } from "../coded-error.js";

/**
 * Lets `server` listen on the Unix socket `path`, open to whom `mode` says (0o666: any local process that can enter the folder; who it is, the kernel tells).
 * A socket that a killed daemon left behind is replaced. Throws CodedError `socket-in-use` if somebody answers there, `socket-path-taken` if it is no socket.
 */
export async function listenOnUnixSocket(server: Server, path: string, mode: number): Promise<void> {
  try {
    await listen(server, path);
  } catch (thrown) {
    if (codeOf(thrown) !== "EADDRINUSE") throw thrown;
    await removeAbandoned(path);
    await listen(server, path);
  }
  chmodSync(path, mode);
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    // The umask closes the moment between bind and chmod in which others could connect.
    const umask = process.umask(0o177);
    server.listen(path, () => {
      server.off("error", reject);
      resolve();
    });
    process.umask(umask);
  });
}

async function removeAbandoned(path: string): Promise<void> {
  if (!lstatSync(path).isSocket())
    throw new CodedError("socket-path-taken", `${path} is in the way of a socket of agentid`, {
      hint: "move it away",
    });
  const { uid } = lstatSync(path);
  if (process.getuid !== undefined && uid !== process.getuid()) {
    throw new CodedError("socket-path-taken", `${path} is a socket of user ${uid}`, { hint: "move it away" });
  }
  if (await answers(path))
    throw new CodedError("socket-in-use", `somebody else is listening on ${path}`, { hint: "agentid status" });
  unlinkSync(path);
}

/** True if a process accepts connections there. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    // Refused: nobody listens. Anything else (no permission) is somebody else's socket.
    socket.once("error", (error) => resolve(codeOf(error) !== "ECONNREFUSED"));
  });
}
