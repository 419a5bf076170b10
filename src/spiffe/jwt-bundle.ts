import { createPublicKey, type KeyObject } from "node:crypto";
import { BundleError } from "./bundle-error.js";
import { parseStrictJson } from "./strict-json.js";

/** A public JSON Web Key. RFC 7517 §4. */
export interface Jwk {
  readonly kty: string;
  readonly kid?: string;
  readonly use?: string;
  readonly [member: string]: unknown;
}

/** The keys of one trust domain that sign its JWT-SVIDs. */
export interface JwkSet {
  readonly keys: readonly Jwk[];
}

/** The members that say which public key it is, for each key type. Everything else of a key's type is private. RFC 7518 §6. */
const PUBLIC_MEMBERS: Readonly<Record<string, readonly string[]>> = {
  EC: ["crv", "x", "y"],
  RSA: ["n", "e"],
};
const SMALLEST_RSA_BITS = 2048;

/**
 * The keys for JWT-SVIDs in a JWK Set. Keys of other uses or types, and keys without `kid`, are left out (JS-7; Trust Domain and Bundle §4.2);
 * a missing `use` is taken as `jwt-svid`, as the Workload API serves sets that hold nothing else. Private members are never kept.
 * Throws BundleError `bundle-malformed`.
 */
export function parseJwtBundle(json: string): JwkSet {
  return { keys: keysOf(parseJwks(json), (jwk) => jwk.use === undefined || jwk.use === "jwt-svid") };
}

/** The JWK Set of `bundle` with public members only: `kty`, `kid`, `use: jwt-svid`, `alg` where known (JR-7 … JR-9). */
export function serialiseJwtBundle(bundle: JwkSet): string {
  return JSON.stringify({ keys: bundle.keys.map(publicJwtKey) });
}

/** `jwk` as a bundle shows it. */
export function publicJwtKey(jwk: Jwk): Jwk {
  const members = ["kid", "alg", ...(PUBLIC_MEMBERS[jwk.kty] ?? [])].filter((member) => jwk[member] !== undefined);
  return { kty: jwk.kty, use: "jwt-svid", ...Object.fromEntries(members.map((member) => [member, jwk[member]])) };
}

/** The elements of a JWK Set that are objects with a key type. Throws BundleError `bundle-malformed`. */
export function parseJwks(json: string): readonly Jwk[] {
  let value: unknown;
  try {
    value = parseStrictJson(json);
  } catch (cause) {
    throw new BundleError("bundle-malformed", "the bundle is not JSON with distinct keys", { cause });
  }
  const keys: unknown = isObject(value) ? value.keys : undefined;
  if (!Array.isArray(keys)) throw new BundleError("bundle-malformed", "the bundle has no list of keys");
  return keys.filter((key): key is Jwk => isObject(key) && typeof key.kty === "string");
}

/** The usable JWT keys among `jwks` that `accept` accepts. */
export function keysOf(jwks: readonly Jwk[], accept: (jwk: Jwk) => boolean): readonly Jwk[] {
  const usable = jwks.filter((jwk) => accept(jwk) && typeof jwk.kid === "string" && publicKeyOf(jwk) !== undefined);
  return usable.map(publicJwtKey);
}

/** A key is what its members say, so it may be kept as long as the bundle keeps this very object. */
const publicKeys = new WeakMap<Jwk, KeyObject | "unusable">();

/** The public key of `jwk`, or undefined if it is not an EC or RSA key (of at least 2048 bits) that can be read. */
export function publicKeyOf(jwk: Jwk): KeyObject | undefined {
  const known = publicKeys.get(jwk) ?? readPublicKey(jwk) ?? "unusable";
  publicKeys.set(jwk, known);
  return known === "unusable" ? undefined : known;
}

function readPublicKey(jwk: Jwk): KeyObject | undefined {
  const members = PUBLIC_MEMBERS[jwk.kty];
  if (members === undefined) return undefined;
  const key = { kty: jwk.kty, ...Object.fromEntries(members.map((member) => [member, jwk[member]])) };
  try {
    const publicKey = createPublicKey({ key, format: "jwk" });
    const bits = publicKey.asymmetricKeyDetails?.modulusLength;
    return bits !== undefined && bits < SMALLEST_RSA_BITS ? undefined : publicKey;
  } catch {
    // Bundle §4.1.1: an element that cannot be used is ignored, the others are not.
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
