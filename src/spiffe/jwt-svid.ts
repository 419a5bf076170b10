import { type KeyObject, verify } from "node:crypto";
import { CodedError } from "../coded-error.js";
import { algorithmFor, type JwtAlgorithm } from "./jwt-algorithm.js";
import { type Jwk, type JwkSet, publicKeyOf } from "./jwt-bundle.js";
import { SpiffeId, SpiffeIdError, type TrustDomain } from "./spiffe-id.js";
import { parseStrictJson } from "./strict-json.js";

export type JwtSvidErrorCode =
  | "jwt-svid-malformed"
  | "jwt-svid-too-long"
  | "jwt-svid-json-serialization"
  | "jwt-svid-algorithm"
  | "jwt-svid-type"
  | "jwt-svid-critical"
  | "jwt-svid-header-member"
  | "jwt-svid-key-id"
  | "jwt-svid-subject-missing"
  | "jwt-svid-subject-invalid"
  | "jwt-svid-subject-path-missing"
  | "jwt-svid-audience-missing"
  | "jwt-svid-audience"
  | "jwt-svid-expiry-missing"
  | "jwt-svid-expired"
  | "jwt-svid-not-yet-valid"
  | "jwt-svid-trust-domain-unknown"
  | "jwt-svid-key-unknown"
  | "jwt-svid-key-mismatch"
  | "jwt-svid-signature";

/** A token is not a valid JWT-SVID. One code for each cause; JWT-SVID §2–5, Workload API §6.2.3. */
export class JwtSvidError extends CodedError<JwtSvidErrorCode> {
  override readonly name = "JwtSvidError";
}

/** A token whose signature, audience and times are good. */
export interface ValidatedJwtSvid {
  readonly id: SpiffeId;
  /** Always a list, whatever the token wrote (JR-13). */
  readonly audience: readonly string[];
  readonly expiresAt: Date;
  /** Every claim, as the token has it. */
  readonly claims: Readonly<Record<string, unknown>>;
  readonly keyId: string | undefined;
}

/** The JWT bundle of one trust domain, or undefined if it is not known. */
export type JwtBundles = (trustDomain: TrustDomain) => JwkSet | undefined;

/** More than any real token; parsing costs grow with length. */
const MAX_TOKEN_LENGTH = 64 * 1024;
const HEADER_MEMBERS: ReadonlySet<string> = new Set(["alg", "kid", "typ"]);

interface TokenParts {
  readonly headerPart: string;
  readonly payloadPart: string;
  readonly signature: Buffer;
}

interface Header {
  readonly algorithm: JwtAlgorithm;
  readonly keyId: string | undefined;
}

interface Claims {
  readonly id: SpiffeId;
  readonly audience: readonly string[];
  readonly expiresAt: number;
  readonly notBefore: number | undefined;
}

/** What a token says of itself; nobody has vouched for it yet. */
export interface ReadJwtSvid extends ValidatedJwtSvid {
  readonly notBefore: Date | undefined;
}

/** Reads `token` by the rules of JWT-SVID §2, §3 and §5.1 without looking at signature, audience or time. Throws JwtSvidError. */
export function readJwtSvid(token: string): ReadJwtSvid {
  const { headerPart, payloadPart } = splitToken(token);
  const { keyId } = readHeader(parsePart(headerPart, "header"));
  const claims = parsePart(payloadPart, "payload");
  const { id, audience, expiresAt, notBefore } = readClaims(claims);
  const begins = notBefore === undefined ? undefined : new Date(notBefore * 1000);
  return { id, audience, expiresAt: new Date(expiresAt * 1000), notBefore: begins, claims, keyId };
}

/**
 * Validates `token` for `audience` at `now`, with the bundle of its subject's own trust domain and no other (JR-11, JR-15).
 * `aud` may be a string or a list, `typ` and `kid` may be missing (JS-6). No leeway: issuer and validator share this machine's clock.
 * Throws JwtSvidError.
 */
export function parseAndValidateJwtSvid(
  token: string,
  audience: string,
  bundles: JwtBundles,
  now: Date,
): ValidatedJwtSvid {
  const { headerPart, payloadPart, signature } = splitToken(token);
  const { algorithm, keyId } = readHeader(parsePart(headerPart, "header"));
  const claims = parsePart(payloadPart, "payload");
  const { id, audience: audiences, expiresAt, notBefore } = readClaims(claims);
  if (!audiences.includes(audience)) {
    throw new JwtSvidError(
      "jwt-svid-audience",
      `the token is for ${JSON.stringify(audiences)}, not for ${JSON.stringify(audience)}`,
    );
  }
  const seconds = now.getTime() / 1000;
  if (seconds >= expiresAt) throw new JwtSvidError("jwt-svid-expired", `the token of ${id} has expired`);
  if (notBefore !== undefined && seconds < notBefore) {
    throw new JwtSvidError("jwt-svid-not-yet-valid", `the token of ${id} is not valid yet`);
  }
  const bundle = bundles(id.trustDomain);
  if (bundle === undefined) {
    throw new JwtSvidError("jwt-svid-trust-domain-unknown", `no trust bundle for ${id.trustDomain}`);
  }
  checkSignature({ headerPart, payloadPart, signature }, { algorithm, keyId }, bundle);
  return { id, audience: audiences, expiresAt: new Date(expiresAt * 1000), claims, keyId };
}

/** RFC 7515 §7.1: three parts of base64url. JWT-SVID §5.1 forbids the JSON serialization. */
export function splitToken(token: string): TokenParts {
  if (token.length > MAX_TOKEN_LENGTH) throw new JwtSvidError("jwt-svid-too-long", "the token is too long");
  if (/^\s*\{/.test(token)) {
    throw new JwtSvidError("jwt-svid-json-serialization", "the token must be in the compact serialization");
  }
  const [headerPart, payloadPart, signaturePart, more] = token.split(".");
  if (!headerPart || !payloadPart || signaturePart === undefined || more !== undefined) {
    throw new JwtSvidError("jwt-svid-malformed", "a token has three parts");
  }
  return { headerPart, payloadPart, signature: decodePart(signaturePart, "signature") };
}

export function parsePart(part: string, what: string): Record<string, unknown> {
  const bytes = decodePart(part, what);
  let value: unknown;
  try {
    value = parseStrictJson(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (cause) {
    throw new JwtSvidError("jwt-svid-malformed", `the token's ${what} is not JSON with distinct keys`, { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new JwtSvidError("jwt-svid-malformed", `the token's ${what} is not a JSON object`);
  }
  return value as Record<string, unknown>;
}

/** Node's decoder skips what it does not know; only text that encodes back to itself is base64url without padding. */
function decodePart(part: string, what: string): Buffer {
  const bytes = Buffer.from(part, "base64url");
  if (bytes.toString("base64url") !== part) {
    throw new JwtSvidError("jwt-svid-malformed", `the token's ${what} is not base64url`);
  }
  return bytes;
}

/** JWT-SVID §2: only `alg`, `kid` and `typ`; §2.1 the algorithms; §2.3 the types. */
export function readHeader(header: Record<string, unknown>): Header {
  const algorithm = algorithmFor(header.alg);
  if (algorithm === undefined) {
    throw new JwtSvidError(
      "jwt-svid-algorithm",
      `the algorithm ${JSON.stringify(header.alg)} is not allowed in a JWT-SVID`,
    );
  }
  // RFC 7515 §4.1.11: an extension that is not understood must be refused, and we understand none.
  if (Object.hasOwn(header, "crit"))
    throw new JwtSvidError("jwt-svid-critical", "the header asks for an unknown extension");
  const { typ, kid } = header;
  if (typ !== undefined && typ !== "JWT" && typ !== "JOSE") {
    throw new JwtSvidError("jwt-svid-type", `the type ${JSON.stringify(typ)} is neither JWT nor JOSE`);
  }
  if (kid !== undefined && (typeof kid !== "string" || kid === "")) {
    throw new JwtSvidError("jwt-svid-key-id", "the key id is not a string");
  }
  const extra = Object.keys(header).find((member) => !HEADER_MEMBERS.has(member));
  if (extra !== undefined) {
    throw new JwtSvidError(
      "jwt-svid-header-member",
      `the header holds ${JSON.stringify(extra)}; only alg, kid and typ may be there`,
    );
  }
  return { algorithm, keyId: kid };
}

/** JWT-SVID §3: `sub`, `aud` and `exp` must be there. */
function readClaims(claims: Record<string, unknown>): Claims {
  const { exp, nbf } = claims;
  const id = readSubject(claims.sub);
  const audience = readAudience(claims.aud);
  if (exp === undefined) throw new JwtSvidError("jwt-svid-expiry-missing", "the token has no exp claim");
  return {
    id,
    audience,
    expiresAt: readTime(exp, "exp"),
    notBefore: nbf === undefined ? undefined : readTime(nbf, "nbf"),
  };
}

export function readSubject(sub: unknown): SpiffeId {
  if (sub === undefined) throw new JwtSvidError("jwt-svid-subject-missing", "the token has no sub claim");
  if (typeof sub !== "string") throw new JwtSvidError("jwt-svid-subject-invalid", "the sub claim is not a string");
  let id: SpiffeId;
  try {
    id = SpiffeId.parse(sub);
  } catch (cause) {
    if (!(cause instanceof SpiffeIdError)) throw cause;
    throw new JwtSvidError("jwt-svid-subject-invalid", cause.message, { cause });
  }
  if (id.path === "") {
    throw new JwtSvidError("jwt-svid-subject-path-missing", `${id} names a trust domain, not a workload`);
  }
  return id;
}

export function readAudience(aud: unknown): readonly string[] {
  const list: readonly unknown[] = Array.isArray(aud) ? aud : aud === undefined ? [] : [aud];
  if (list.length === 0) throw new JwtSvidError("jwt-svid-audience-missing", "the token has no aud claim");
  const strings = list.filter((one) => typeof one === "string");
  if (strings.length !== list.length)
    throw new JwtSvidError("jwt-svid-malformed", "the aud claim holds what is not a string");
  return strings;
}

/** RFC 7519 §2 NumericDate. */
export function readTime(value: unknown, claim: string): number {
  // JSON.parse makes 1e999 Infinity, and a Date ends long before: neither is a time.
  if (typeof value !== "number" || Math.abs(value) > 8.64e12) {
    throw new JwtSvidError("jwt-svid-malformed", `the ${claim} claim is not a time`);
  }
  return value;
}

/** RFC 7515 §5.2: signed by one of the keys that may have. Throws JwtSvidError. */
export function checkSignature(parts: TokenParts, { algorithm, keyId }: Header, bundle: JwkSet): void {
  const keys = keysFor(bundle, algorithm, keyId);
  const signed = Buffer.from(`${parts.headerPart}.${parts.payloadPart}`, "latin1");
  if (keys.some((key) => isSignedBy(key, algorithm, signed, parts.signature))) return;
  throw new JwtSvidError("jwt-svid-signature", "the token's signature is wrong");
}

/** The bundle's keys that may have signed: the one named by `kid`, or without `kid` all that fit the algorithm (JS-6). */
function keysFor(bundle: JwkSet, algorithm: JwtAlgorithm, keyId: string | undefined): readonly KeyObject[] {
  const ofSvids = bundle.keys.filter((jwk) => jwk.use === undefined || jwk.use === "jwt-svid");
  const named = keyId === undefined ? ofSvids : ofSvids.filter((jwk) => jwk.kid === keyId);
  if (named.length === 0)
    throw new JwtSvidError("jwt-svid-key-unknown", "the token's key is not in its trust domain's bundle");
  const fitting = named
    .filter((jwk) => mayVerify(jwk, algorithm))
    .map(publicKeyOf)
    .filter((key) => key !== undefined);
  if (fitting.length === 0) {
    throw new JwtSvidError("jwt-svid-key-mismatch", `the bundle's key is not one for ${algorithm.name}`);
  }
  return fitting;
}

/** The algorithm is the key's to choose, never the token's alone: RFC 8725 §3.1. */
function mayVerify(jwk: Jwk, algorithm: JwtAlgorithm): boolean {
  if (jwk.alg !== undefined && jwk.alg !== algorithm.name) return false;
  return jwk.kty === algorithm.keyType && (algorithm.curve === undefined || jwk.crv === algorithm.curve);
}

function isSignedBy(key: KeyObject, algorithm: JwtAlgorithm, signed: Buffer, signature: Buffer): boolean {
  return verify(algorithm.hash, signed, { key, ...algorithm.options }, signature);
}
