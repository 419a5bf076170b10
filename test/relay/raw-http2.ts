import type { Duplex } from "node:stream";

/** Just enough of HTTP/2 (RFC 9113) and HPACK (RFC 7541) to say what no library would. */

export const Frame = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  window: 8,
  continuation: 9,
} as const;
export const Flag = { endStream: 1, ack: 1, endHeaders: 4 } as const;
export type Head = readonly (readonly [name: string, value: string])[];

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

export function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header.writeUInt8(type, 3);
  header.writeUInt8(flags, 4);
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

/** Literals without indexing and without Huffman codes: the names and values as they are given. */
export function block(head: Head): Buffer {
  return Buffer.concat(head.flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]));
}

/** A literal that both sides keep in their table. */
export function indexed(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([0x40]), text(name), text(value)]);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, "latin1");
  return Buffer.concat([integer(bytes.length), bytes]);
}

/** RFC 7541 §5.1 with a prefix of 7 bits. */
function integer(value: number): Buffer {
  if (value < 127) return Buffer.from([value]);
  const out = [127];
  let rest = value - 127;
  for (; rest >= 128; rest = Math.floor(rest / 128)) out.push((rest % 128) + 128);
  return Buffer.from([...out, rest]);
}

export interface ReceivedFrame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  /** Of RST_STREAM and GOAWAY. */
  readonly code: number | undefined;
}

/** One connection that speaks frames. */
export class RawHttp2 {
  readonly received: ReceivedFrame[] = [];
  readonly socket: Duplex;
  closed = false;
  #rest = Buffer.alloc(0);
  #next = 1;

  constructor(socket: Duplex) {
    this.socket = socket;
    socket.on("error", () => undefined);
    socket.on("close", () => {
      this.closed = true;
    });
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.write(PREFACE);
    this.send(frame(Frame.settings, 0, 0));
  }

  /** True when the connection holds back no more than its buffer. */
  send(bytes: Buffer): boolean {
    return !this.closed && this.socket.write(bytes);
  }

  /** Opens the next stream with this head; gives its number. */
  open(head: Head, { ended = true } = {}): number {
    const stream = this.#next;
    this.#next += 2;
    this.send(frame(Frame.headers, Flag.endHeaders | (ended ? Flag.endStream : 0), stream, block(head)));
    return stream;
  }

  /** How a stream or the connection has ended, or how its answer began. */
  outcome(stream: number): string | undefined {
    for (const { type, stream: of, code } of this.received) {
      if (type === Frame.headers && of === stream) return "answered";
      if (type === Frame.reset && of === stream) return `reset ${code}`;
      if (type === Frame.goaway && code !== 0) return `goaway ${code}`;
    }
    return this.closed ? "closed" : undefined;
  }

  close(): void {
    this.socket.destroy();
  }

  #read(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= 9) {
      const length = this.#rest.readUIntBE(0, 3);
      if (this.#rest.length < 9 + length) return;
      const [type, flags, stream] = [this.#rest[3] ?? 0, this.#rest[4] ?? 0, this.#rest.readUInt32BE(5)];
      const payload = this.#rest.subarray(9, 9 + length);
      const code =
        type === Frame.reset ? payload.readUInt32BE(0) : type === Frame.goaway ? payload.readUInt32BE(4) : undefined;
      this.received.push({ type, flags, stream, code });
      this.#rest = this.#rest.subarray(9 + length);
      if (type === Frame.settings && (flags & Flag.ack) === 0) this.send(frame(Frame.settings, Flag.ack, 0));
    }
  }
}
