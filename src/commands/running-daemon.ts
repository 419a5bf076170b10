import { type ControlClient, createControlClient } from "../client/control-client.js";
import { findControlSocket } from "../client/control-socket.js";

/** The client of the daemon that runs for this project. Throws CodedError `daemon-not-running` or `no-project`. */
export function runningDaemon(project: string | undefined): ControlClient {
  return createControlClient(findControlSocket(project, process.env));
}
