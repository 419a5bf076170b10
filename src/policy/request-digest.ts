import { createHash, hash } from "node:crypto";
import { nextTurn, type Pause } from "../platform/turns.js";
import type { AccessRequest } from "./access-request.js";
import { jsonPieces } from "./json-pieces.js";

/** So much of a request is written out in a turn of the event loop. */
const PIECE_CHARACTERS = 16 * 1024;
/** So much is put together in a turn: memory that is written to for the first time takes longer than the copying. */
const BYTES_AT_ONCE = 512 * 1024;

interface WrittenOut {
  readonly digest: string;
  readonly values: number;
  readonly characters: number;
}

const known = new WeakMap<AccessRequest, WrittenOut>();

/** Binds the record to one request without keeping its arguments: hex SHA-256 of it as JSON. */
export function requestDigest(request: AccessRequest): string {
  return known.get(request)?.digest ?? hash("sha256", JSON.stringify(request));
}

/** Of a request that was written out in turns: how much it holds. */
export function extentOfRequest(request: AccessRequest): Pick<WrittenOut, "values" | "characters"> | undefined {
  return known.get(request);
}

/** Makes the digest of a large request known without keeping the event loop: `requestDigest` need not write it out any more. */
export async function digestInTurns(request: AccessRequest, pause: Pause): Promise<void> {
  const digest = createHash("sha256");
  let characters = 0;
  const pieces = jsonPieces(request, PIECE_CHARACTERS);
  for (;;) {
    await pause();
    const next = pieces.next();
    if (next.done) {
      known.set(request, { digest: digest.digest("hex"), values: next.value, characters });
      return;
    }
    characters += next.value.length;
    digest.update(next.value);
  }
}

/** The JSON of `value` as bytes, made without keeping the event loop. */
export async function jsonInTurns(value: unknown, pause: Pause): Promise<Buffer> {
  const written: Buffer[] = [];
  let size = 0;
  for (const piece of jsonPieces(value, PIECE_CHARACTERS)) {
    const bytes = Buffer.from(piece);
    written.push(bytes);
    size += bytes.length;
    await pause();
  }
  const whole = Buffer.allocUnsafeSlow(size);
  let [at, left] = [0, BYTES_AT_ONCE];
  for (const bytes of written) {
    at += bytes.copy(whole, at);
    left -= bytes.length;
    if (left > 0) continue;
    await pause();
    left = BYTES_AT_ONCE;
  }
  return whole;
}

/** The JSON of what `request` has been made into for somebody else: at once, but for a request that was written out in turns. */
export async function writtenOut(request: AccessRequest, made: object): Promise<string> {
  return known.has(request) ? String(await jsonInTurns(made, nextTurn)) : JSON.stringify(made);
}
