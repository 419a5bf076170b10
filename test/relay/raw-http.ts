import { connect, type Socket } from "node:net";

export interface RawAnswer {
  readonly status: number;
  readonly head: string;
  readonly body: string;
}

/** Sends exactly these bytes and returns the first answer; `status` 0 if the connection was closed without one. */
export function sendRaw(port: number, bytes: string | Buffer, host = "127.0.0.1"): Promise<RawAnswer> {
  return exchangeRaw(connect(port, host), bytes);
}

/** As `sendRaw`, over a connection that is open or opening. The connection is closed when the answer is complete. */
export function exchangeRaw(socket: Socket, bytes: string | Buffer): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    let received = "";
    const finish = () => {
      socket.destroy();
      resolve(parse(received));
    };
    socket.setEncoding("latin1");
    socket.setTimeout(10_000, () => reject(new Error(`no complete answer: ${received}`)));
    socket.on("data", (chunk) => {
      received += String(chunk);
      if (isComplete(received)) finish();
    });
    socket.on("error", finish);
    socket.on("close", finish);
    socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
  });
}

/** Interim answers (RFC 9110 §15.2) are none yet; a switch of protocols is one. */
function final(received: string): string {
  return received.replace(/^(?:HTTP\/1\.1 1(?!01)\d\d [^\r]*\r\n(?:[^\r]+\r\n)*\r\n)+/, "");
}

function isComplete(all: string): boolean {
  const received = final(all);
  const end = received.indexOf("\r\n\r\n");
  if (end === -1) return false;
  // What follows is of another protocol.
  if (/^HTTP\/1\.1 (?:101 |200 Connection Established\r)/.test(received)) return true;
  const length = /^content-length: (\d+)/im.exec(received.slice(0, end))?.[1];
  if (length !== undefined) return received.length >= end + 4 + Number(length);
  return /^transfer-encoding: chunked/im.test(received.slice(0, end)) && received.endsWith("0\r\n\r\n");
}

function parse(all: string): RawAnswer {
  const received = final(all);
  const end = received.indexOf("\r\n\r\n");
  const head = received.slice(0, end === -1 ? undefined : end);
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1] ?? 0);
  return { status, head, body: end === -1 ? "" : received.slice(end + 4) };
}
