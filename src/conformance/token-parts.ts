import { createHmac, generateKeyPairSync, type KeyObject, sign } from "node:crypto";

/** What the tokens of a run are for. */
export const AUDIENCE = "conformance-audience";

export type JsonObject = Readonly<Record<string, unknown>>;

/** A token as it is written, by whoever made it. */
export interface TokenParts {
  readonly header: JsonObject;
  readonly claims: JsonObject;
  readonly signature: string;
}

/** The parts of a compact JWS; undefined for anything else. RFC 7515 §7.1. */
export function tokenParts(token: string): TokenParts | undefined {
  if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) return undefined;
  const [header, payload, signature = ""] = token.split(".");
  const parsed = [header, payload].map((part) => jsonObject(Buffer.from(part ?? "", "base64url").toString("utf8")));
  const [first, second] = parsed;
  return first === undefined || second === undefined ? undefined : { header: first, claims: second, signature };
}

/** Undefined for what is not a JSON object. */
export function jsonObject(text: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined;
  } catch {
    return undefined;
  }
}

/** What a token is signed with: a key of nobody, another signature, or nothing. */
export type Signer = (signed: string) => string;

/** A compact JWS of these parts. */
export function writeToken(header: JsonObject, claims: JsonObject, signer: Signer): string {
  const signed = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${signed}.${signer(signed)}`;
}

export function ecdsa(key: KeyObject): Signer {
  return (signed) => sign("sha256", Buffer.from(signed), { key, dsaEncoding: "ieee-p1363" }).toString("base64url");
}

export function ed25519(): Signer {
  const { privateKey } = generateKeyPairSync("ed25519");
  return (signed) => sign(null, Buffer.from(signed), privateKey).toString("base64url");
}

/** RFC 8725 §2.1: a verifier that takes the algorithm from the token can be led to use a public key as a secret. */
export function hmac(secret: Buffer | string): Signer {
  return (signed) => createHmac("sha256", secret).update(signed).digest("base64url");
}

export const unsigned: Signer = () => "";

/** The signature of other bytes. */
export function reused(signature: string): Signer {
  return () => signature;
}
