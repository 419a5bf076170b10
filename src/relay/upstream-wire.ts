import { connect, type Socket } from "node:net";
import { CodedError } from "../coded-error.js";
import type { RunningService } from "./running-service.js";

const CONNECT_TIMEOUT_MS = 10_000;

/** Opens a connection to the upstream of `service` by TCP or Unix socket. Rejects with the socket's own error, or CodedError `UND_ERR_CONNECT_TIMEOUT`. */
export function openUpstreamWire({ upstream }: RunningService): Promise<Socket> {
  if (upstream.kind === "mtls" || upstream.kind === "egress") throw new Error("that is reached by the outbound leg");
  const socket = connect(
    upstream.kind === "unix" ? { path: upstream.path } : { host: upstream.host, port: upstream.port },
  );
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => socket.destroy(new CodedError("UND_ERR_CONNECT_TIMEOUT", "the connection took too long")),
      CONNECT_TIMEOUT_MS,
    );
    socket.once("close", () => clearTimeout(timer));
    socket.once("error", reject);
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.off("error", reject);
      socket.on("error", () => socket.destroy());
      socket.setNoDelay(true);
      resolve(socket);
    });
  });
}
