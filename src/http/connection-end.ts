import type { Duplex } from "node:stream";

/** How long a peer that has taken its last answer may take to close its side. */
const LINGER_MS = 5_000;

/** Ends a connection on which no request can be answered with one canned answer: RFC 9457 problem details. */
export function endWith(
  socket: Duplex,
  status: number,
  title: string,
  code: string,
  detail: string,
  more: Readonly<Record<string, string | undefined>> = {},
): void {
  const body = JSON.stringify({ type: `about:blank#${code}`, title, status, code, detail, ...more });
  socket.end(
    `HTTP/1.1 ${status} ${title}\r\nContent-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
  drainAndClose(socket);
}

/** Ends a connection on which the last answer is out. What still comes is thrown away; without reading it the answer would be lost in a reset. */
export function drainAndClose(socket: Duplex): void {
  socket.end();
  socket.resume();
  // Not before all of it is written: a peer may take its time to read.
  if (socket.writableFinished) closeSoon(socket);
  else socket.once("finish", () => closeSoon(socket));
}

function closeSoon(socket: Duplex): void {
  const patience = setTimeout(() => socket.destroy(), LINGER_MS);
  patience.unref();
  socket.once("close", () => clearTimeout(patience));
}
