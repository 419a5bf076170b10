import { subscribe, unsubscribe } from "node:diagnostics_channel";
import type { Socket } from "node:net";
import { Server as TlsServer } from "node:tls";

/** The last connection that a TLS server of this process has accepted since this was called: of the inbound legs, the one that a call goes to. */
export function acceptedOverTls(): { readonly last: Socket | undefined; stop(): void } {
  let last: Socket | undefined;
  const accepted = (message: unknown): void => {
    const { socket } = message as { socket: Socket & { server?: unknown } };
    if (socket.server instanceof TlsServer) last = socket;
  };
  subscribe("net.server.socket", accepted);
  return {
    get last() {
      return last;
    },
    stop: () => void unsubscribe("net.server.socket", accepted),
  };
}
