import { generateKeyPairSync } from "node:crypto";
import type { status } from "@grpc/grpc-js";
import type { Jwk } from "../../src/spiffe/jwt-bundle.js";
import type { ValidatedJwtSvid } from "../../src/spiffe/jwt-svid.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import type { X509SVID, X509SVIDResponse } from "../../src/workload-api/generated/workload.js";
import { KeyUsageFlags, keyUsage, leafExtensions } from "../spiffe/test-certificates.js";
import { type Behaviour, type Faults, FIRST, SECOND } from "./behaviour.js";
import { Refused } from "./scripted-parts.js";

export const leafWith = (changes: Parameters<typeof leafExtensions>[0]) => (id: string) => ({
  extensions: leafExtensions({ id, ...changes }),
});
export const authorityUsage = keyUsage(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign);
export const withRefusal = (refusals: Partial<Behaviour["refusals"]>): Faults => ({ refusals });
type JsonObject = Record<string, unknown>;
const partOf = (token: string, index: number): JsonObject => {
  const text = Buffer.from(token.split(".")[index] ?? "", "base64url").toString();
  return JSON.parse(text) as JsonObject;
};
const headerOf = (token: string) => partOf(token, 0);

/** What a server finds in a token that it does not look at closely. */
function believed(token: string): ValidatedJwtSvid {
  const claims = partOf(token, 1);
  const audience = [claims.aud ?? []].flat().map(String);
  return { id: SpiffeId.parse(String(claims.sub)), audience, claims, expiresAt: new Date(), keyId: undefined };
}

/** Accepts of tokens also what `accepts` accepts. */
export const lenient = (accepts: (header: JsonObject, audience: string) => boolean): Faults => ({
  validate(token, audience, strictly) {
    const [head = ""] = token.split(".");
    return token.split(".").length === 3 && head.length > 4 && accepts(headerOf(token), audience)
      ? believed(token)
      : strictly();
  },
});
/** Writes this into the header of its tokens, and takes them back. */
export const tokenWith = (changes: JsonObject): Faults => ({
  tokenHeader: (header) => ({ ...header, ...changes }),
  validate: (token, audience, strictly, issued) =>
    issued && believed(token).audience.includes(audience) ? believed(token) : strictly(),
});
/** Reads IDs as `change` makes them. */
export const readsAs = (change: (text: string) => string): Faults => ({
  parseId: (text) => SpiffeId.parse(change(text)),
});
/** Changes each element of the X.509-SVID response. */
export function eachOf(message: X509SVIDResponse, change: (svid: X509SVID) => Partial<X509SVID>): X509SVIDResponse {
  return { ...message, svids: message.svids.map((svid) => ({ ...svid, ...change(svid) })) };
}
export const eachSvid = (change: (svid: X509SVID) => Partial<X509SVID>): Faults => ({
  x509: (message) => eachOf(message, change),
});
export const other = (id: string) => (id === FIRST ? SECOND : FIRST);
export const pem = (der: Buffer) =>
  Buffer.from(`-----BEGIN CERTIFICATE-----\n${der.toString("base64")}\n-----END CERTIFICATE-----\n`);
export function anyKey(type: "pkcs8" | "sec1"): Buffer {
  return generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ type, format: "der" });
}

export const pick = <T>(map: Record<string, T>, key: string) =>
  Object.fromEntries(Object.entries(map).filter(([one]) => one === key));
export function bareKeys<T>(map: Record<string, T>): Record<string, T> {
  return Object.fromEntries(Object.entries(map).map(([key, value]) => [key.replace("spiffe://", ""), value]));
}
type JwkSets = Record<string, { keys: Jwk[] }>;
export function eachKey(sets: JwkSets, change: (jwk: Jwk) => object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(sets).map(([name, { keys }]) => [name, { keys: keys.map(change) }]));
}
/** Each JWK Set with its first key at its end again. */
export function twice(bundles: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(bundles).map(([key, text]) => {
      const { keys } = JSON.parse(text) as { keys: Jwk[] };
      return [key, JSON.stringify({ keys: [...keys, ...keys] })];
    }),
  );
}

/** Answers with a status instead. */
export function refuse(code: status): never {
  throw new Refused(code, "scripted");
}
