import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { CodedError } from "../coded-error.js";
import type { Jwk } from "../spiffe/jwt-bundle.js";
import type { SpiffeId, TrustDomain } from "../spiffe/spiffe-id.js";
import { es256JwkOf, thumbprint } from "./es256-jwk.js";

/** Whose tokens a key signs, and from when to when it is believed. */
export interface TokenSignerLife {
  readonly trustDomain: TrustDomain;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** What the authorities for all kinds of tokens have. */
export interface TokenSigner extends TokenSignerLife {
  readonly keyId: string;
  /** The bundle's entry: public members only, `use`, `kid` (JS-7). */
  readonly publicJwk: Jwk;
  /** Unencrypted PKCS#8, for the key store only. */
  readonly privateKeyPkcs8: Buffer;
}

/** One kind of token. */
interface TokenKind {
  /** For messages: `JWT`. */
  readonly name: string;
  /** The header's `typ`. */
  readonly type: string;
  /** `use` of its keys in bundles. */
  readonly use: string;
}

/** Seconds since the Unix epoch. */
interface TokenTimes {
  readonly iat: number;
  readonly exp: number;
}

interface SigningOperations {
  /** From `now` (ms), as long as the key is believed. Throws CodedError `identity-foreign`, `authority-expired`. */
  timesFor(id: SpiffeId, lifetimeSeconds: number, now: number): TokenTimes;
  /** The compact JWS of `claims`. */
  signed(claims: object): string;
}

/** Unencrypted PKCS#8 of a new key. */
export function newTokenKey(): Buffer {
  return generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "der", type: "pkcs8" });
}

/** Signs tokens of `kind` with ES256. Throws CodedError `authority-key-mismatch` for another kind of key. */
export function tokenSigner(
  kind: TokenKind,
  life: TokenSignerLife & { readonly privateKeyPkcs8: Buffer },
): { readonly facts: TokenSigner } & SigningOperations {
  const { trustDomain, notBefore, notAfter, privateKeyPkcs8 } = life;
  const key = createPrivateKey({ key: privateKeyPkcs8, format: "der", type: "pkcs8" });
  const publicPart = es256JwkOf(createPublicKey(key));
  const keyId = thumbprint(publicPart);
  // The same key signs every token until it is replaced, so the header is constant (JS-2, JS-4).
  const header = encodeJson({ alg: "ES256", kid: keyId, typ: kind.type });
  const publicJwk = { ...publicPart, kid: keyId, use: kind.use };
  return {
    facts: { trustDomain, notBefore, notAfter, keyId, publicJwk, privateKeyPkcs8 },
    timesFor(id, lifetimeSeconds, now) {
      if (!id.memberOf(trustDomain) || id.path === "") {
        throw new CodedError("identity-foreign", `${id} is not an identity of the trust domain ${trustDomain}`);
      }
      if (now < notBefore.getTime() || now >= notAfter.getTime()) {
        const message = `the ${kind.name} authority of ${trustDomain} is not valid at this time`;
        throw new CodedError("authority-expired", message);
      }
      const iat = Math.floor(now / 1000);
      return { iat, exp: Math.min(iat + lifetimeSeconds, Math.floor(notAfter.getTime() / 1000)) };
    },
    signed(claims) {
      const signed = `${header}.${encodeJson(claims)}`;
      const signature = sign("sha256", Buffer.from(signed, "latin1"), { key, dsaEncoding: "ieee-p1363" });
      return `${signed}.${signature.toString("base64url")}`;
    },
  };
}

function encodeJson(value: unknown): string {
  return Buffer.from(JSON.stringify(value), "utf8").toString("base64url");
}
