/** HTTP/2 made by hand: what a client can send, byte by byte, and what it hears. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";

export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
export const type = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  windowUpdate: 8,
  continuation: 9,
} as const;
export const flag = { acknowledgement: 1, endOfStream: 1, endOfHeaders: 4, padded: 8, priority: 0x20 } as const;

export interface Frame {
  readonly type: number;
  readonly flags?: number;
  readonly stream?: number;
  readonly payload?: Buffer;
}

export function encodeFrame({ type: frameType, flags = 0, stream = 0, payload = Buffer.alloc(0) }: Frame): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header.writeUInt8(frameType, 3);
  header.writeUInt8(flags, 4);
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

export const SETTINGS: Frame = { type: type.settings };
export const ACKNOWLEDGEMENT: Frame = { type: type.settings, flags: flag.acknowledgement };

/** The characters whose Huffman code has 5 to 12 bits; the codes of one length follow each other (RFC 7541, Appendix B). */
const HUFFMAN = [
  [5, "012aceiost"],
  [6, " %-./3456789=A_bdfghlmnpru"],
  [7, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"],
  [8, "&*,;XZ"],
  [9, ""],
  [10, '!"()?'],
  [11, "'+|"],
  [12, "#>"],
] as const;
const codes = new Map<string, string>();
for (let index = 0, code = 0; index < HUFFMAN.length; index++, code *= 2) {
  const [bits, characters] = HUFFMAN[index] ?? [0, ""];
  for (const character of characters) codes.set(character, (code++).toString(2).padStart(bits, "0"));
}

export function huffman(text: string): Buffer {
  const bits = [...text].map((character) => codes.get(character) ?? "").join("");
  const padded = bits.padEnd(Math.ceil(bits.length / 8) * 8, "1");
  return Buffer.from((padded.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
}

export function integer(value: number, prefixBits: number, high: number): Buffer {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) return Buffer.from([high | value]);
  const bytes = [high | mask];
  let rest = value - mask;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Buffer.from([...bytes, rest]);
}

export type Coding = "plain" | "huffman";
function string(text: string, coding: Coding = "plain"): Buffer {
  const octets = coding === "huffman" ? huffman(text) : Buffer.from(text, "latin1");
  return Buffer.concat([integer(octets.length, 7, coding === "huffman" ? 0x80 : 0), octets]);
}

/** How a field line is written: with the prefix and the bits of its index (RFC 7541 §6.2). */
export const literal = {
  indexing: { prefixBits: 6, high: 0x40 },
  plain: { prefixBits: 4, high: 0 },
  neverIndexed: { prefixBits: 4, high: 0x10 },
} as const;
export type Literal = keyof typeof literal;

export function indexed(index: number): Buffer {
  return integer(index, 7, 0x80);
}

/** A field line with its name by index, or written out. */
export function line(name: number | string, value: string, how: Literal = "indexing", coding?: Coding): Buffer {
  const { prefixBits, high } = literal[how];
  const named =
    typeof name === "number"
      ? integer(name, prefixBits, high)
      : Buffer.concat([integer(0, prefixBits, high), string(name, coding)]);
  return Buffer.concat([named, string(value, coding)]);
}

/** Places in the static table. */
export const index = { authority: 1, path: 4, post: 3, http: 6, contentType: 31 } as const;

/** What FetchJWTSVID for the audience "orders" needs besides its authority, in the order of grpc-java. */
export function fetchJwtFrames(stream: number, authority: Buffer): readonly Frame[] {
  const block = Buffer.concat([
    authority,
    line(index.path, "/SpiffeWorkloadAPI/FetchJWTSVID", "plain"),
    indexed(index.post),
    indexed(index.http),
    line(index.contentType, "application/grpc", "plain"),
    line("te", "trailers", "plain"),
    line("workload.spiffe.io", "true", "plain"),
  ]);
  const message = Buffer.from("\x00\x00\x00\x00\x08\x0a\x06orders", "latin1");
  return [
    { type: type.headers, flags: flag.endOfHeaders, stream, payload: block },
    { type: type.data, flags: flag.endOfStream, stream, payload: message },
  ];
}

export interface RawClient {
  readonly socket: Socket;
  send(...frames: readonly (Frame | Buffer)[]): void;
  /** Everything heard so far. */
  readonly heard: readonly Required<Frame>[];
}

export async function rawClient(path: string): Promise<RawClient> {
  const socket = connect(path);
  await once(socket, "connect");
  const heard: Required<Frame>[] = [];
  let bytes: Buffer = Buffer.alloc(0);
  socket.on("data", (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
    while (bytes.length >= 9 && bytes.length >= 9 + bytes.readUIntBE(0, 3)) {
      const end = 9 + bytes.readUIntBE(0, 3);
      const payload = bytes.subarray(9, end);
      heard.push({ type: bytes.readUInt8(3), flags: bytes.readUInt8(4), stream: bytes.readUInt32BE(5), payload });
      bytes = bytes.subarray(end);
    }
  });
  socket.on("error", () => undefined);
  return {
    socket,
    heard,
    send: (...frames) =>
      void socket.write(Buffer.concat(frames.map((one) => (Buffer.isBuffer(one) ? one : encodeFrame(one))))),
  };
}
