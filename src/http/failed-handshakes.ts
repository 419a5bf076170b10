import type { Server, TLSSocket } from "node:tls";
import { codeOf } from "../coded-error.js";

/** What the codes of OpenSSL do not say by themselves. */
const REASONS: ReadonlyMap<string, string> = new Map([
  ["ERR_TLS_HANDSHAKE_TIMEOUT", "the TLS handshake took too long"],
  ["ERR_SSL_UNSUPPORTED_PROTOCOL", "TLS 1.3 was not offered"],
  ["ERR_SSL_NO_APPLICATION_PROTOCOL", "no protocol of this listener was offered by ALPN"],
  ["ERR_SSL_HTTP_REQUEST", "plain HTTP was spoken where TLS is"],
  ["ERR_SSL_TLSV1_ALERT_UNKNOWN_CA", "the caller does not know the authority of this service"],
]);

/**
 * Closes each connection whose TLS handshake fails at `server`: Node leaves those open that take too long, and a server of HTTP would answer them as if they had
 * been malformed requests. `failed` is told why; not of a peer that only went away, which nobody refused.
 */
export function endFailedHandshakes(server: Server, failed: (socket: TLSSocket, reason: string) => void): void {
  server.removeAllListeners("tlsClientError");
  server.on("tlsClientError", (error, socket) => {
    socket.destroy();
    const code = codeOf(error);
    if (code !== "ECONNRESET") failed(socket, `${REASONS.get(code) ?? "the TLS handshake failed"} (${code})`);
  });
}
