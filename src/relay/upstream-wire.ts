import { connect, type Socket } from "node:net";
import { CodedError } from "../coded-error.js";
import type { ReadsInto } from "../http/client-connection.js";
import { type Clock, systemClock } from "../platform/clock.js";
import type { RunningService } from "./running-service.js";

const CONNECT_TIMEOUT_MS = 10_000;

/** Where a plain connection goes. */
export type WireTarget = { readonly host: string; readonly port: number } | { readonly path: string };

/**
 * Opens a plain connection; `allowHalfOpen` where its two directions end by themselves. Rejects with the socket's own error, or CodedError
 * `connect-timeout`.
 */
export function openWire(to: WireTarget, clock: Clock, allowHalfOpen: boolean, onread?: ReadsInto): Promise<Socket> {
  const address = "path" in to ? { path: to.path } : { host: to.host, port: to.port };
  const socket = connect({ ...address, allowHalfOpen, noDelay: true, ...(onread && { onread }) });
  return new Promise((resolve, reject) => {
    const cancel = clock.after(CONNECT_TIMEOUT_MS, () =>
      socket.destroy(new CodedError("connect-timeout", "the connection took too long")),
    );
    socket.once("close", cancel);
    socket.once("error", reject);
    socket.once("connect", () => {
      cancel();
      socket.off("error", reject);
      // From here on whoever uses it listens; until then an end is not an error of ours.
      socket.on("error", () => socket.destroy());
      resolve(socket);
    });
  });
}

/** Opens a connection to the upstream of `service` by TCP or Unix socket. Rejects as `openWire` does. */
export function openUpstreamWire(
  { upstream }: RunningService,
  {
    clock = systemClock,
    allowHalfOpen = false,
    onread,
  }: { readonly clock?: Clock; readonly allowHalfOpen?: boolean; readonly onread?: ReadsInto } = {},
): Promise<Socket> {
  if (upstream.kind === "mtls" || upstream.kind === "egress") throw new Error("that is reached by the outbound leg");
  return openWire(upstream, clock, allowHalfOpen, onread);
}
