import { Refusal } from "../http/refusal.js";
import type { RawHeaders } from "../http/request-headers.js";

const NAME = "idempotency-key";
/** As many as Stripe takes; UUIDs have 36. */
const MAX_CHARACTERS = 255;
/** RFC 9651 §3.3.3: what a String may hold, with `"` and `\` escaped. */
const STRING = /^"((?:[ !#-[\]-~]|\\["\\])*)"$/;
/** What clients send that know nothing of structured fields: UUIDs, base64, names. Nothing that a list or parameters could be made of. */
const BARE = /^[A-Za-z0-9_.~:+/=@-]+$/;

/**
 * The key of a request: the header is a String (draft-ietf-httpapi-idempotency-key-header-07 §2.1), or the same text without quotes. Undefined where there
 * is none; call after `checkRequestHeaders`, which refuses a second one. Throws Refusal `idempotency-key` (400).
 */
export function idempotencyKeyOf(raw: RawHeaders): string | undefined {
  const value = keyHeader(raw);
  if (value === undefined) return undefined;
  const key = STRING.exec(value)?.[1]?.replace(/\\(.)/g, "$1") ?? BARE.exec(value)?.[0];
  if (key === undefined) throw refused('write it in quotes, "8e03978e-40d5-43e8-bc93-6f8d6e4d8b1f", in plain ASCII');
  if (key === "") throw refused("it is empty");
  if (key.length > MAX_CHARACTERS) throw refused(`it may have at most ${MAX_CHARACTERS} characters`);
  return key;
}

/** Most requests have none, and are asked by the length of names alone. */
function keyHeader(raw: RawHeaders): string | undefined {
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index];
    if (name?.length === NAME.length && name.toLowerCase() === NAME) return raw[index + 1] ?? "";
  }
  return undefined;
}

function refused(why: string): Refusal {
  return new Refusal("idempotency-key", 400, `the Idempotency-Key cannot be used: ${why}`);
}
