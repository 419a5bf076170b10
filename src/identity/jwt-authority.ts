import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { CodedError } from "../coded-error.js";
import type { Jwk } from "../spiffe/jwt-bundle.js";
import type { SpiffeId, TrustDomain } from "../spiffe/spiffe-id.js";
import { es256JwkOf, thumbprint } from "./es256-jwk.js";

/** What becomes a JWT-SVID. */
interface JwtSvidRequest {
  readonly id: SpiffeId;
  /** At least one. JWT-SVID §3.2. */
  readonly audiences: readonly string[];
  readonly lifetimeSeconds: number;
  /** `iss`, for verifiers that find keys by OpenID Connect discovery; absent where nobody serves that. */
  readonly issuer?: string | undefined;
  /** Beside those of the standard. */
  readonly claims?: Readonly<Record<string, unknown>>;
}

/** Signs the JWT-SVIDs of one trust domain with ES256. */
export interface JwtAuthority {
  readonly trustDomain: TrustDomain;
  readonly keyId: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** The bundle's entry: public members only, `use: jwt-svid`, `kid` (JS-7). */
  readonly publicJwk: Jwk;
  /** Unencrypted PKCS#8, for the key store only. */
  readonly privateKeyPkcs8: Buffer;
  /** Signs at `now` (ms). Throws CodedError `authority-expired`, `identity-foreign`, `audience-missing`. */
  issue(request: JwtSvidRequest, now: number): { readonly token: string; readonly expiresAt: Date };
}

/** A new signing key, believed from `notBefore` to `notAfter`. */
export function createJwtAuthority(options: {
  readonly trustDomain: TrustDomain;
  readonly notBefore: Date;
  readonly notAfter: Date;
}): JwtAuthority {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return restoreJwtAuthority({ ...options, privateKeyPkcs8: privateKey.export({ format: "der", type: "pkcs8" }) });
}

/** The authority of a key that was stored. Throws CodedError `authority-key-mismatch`. */
export function restoreJwtAuthority(options: {
  readonly trustDomain: TrustDomain;
  readonly privateKeyPkcs8: Buffer;
  readonly notBefore: Date;
  readonly notAfter: Date;
}): JwtAuthority {
  const { trustDomain, privateKeyPkcs8, notBefore, notAfter } = options;
  const privateKey = createPrivateKey({ key: privateKeyPkcs8, format: "der", type: "pkcs8" });
  const publicPart = es256JwkOf(createPublicKey(privateKey));
  const keyId = thumbprint(publicPart);
  // The same key signs every token until it is replaced, so the header is constant (JS-2, JS-4).
  const header = encodeJson({ alg: "ES256", kid: keyId, typ: "JWT" });

  return {
    trustDomain,
    keyId,
    notBefore,
    notAfter,
    publicJwk: { ...publicPart, kid: keyId, use: "jwt-svid" },
    privateKeyPkcs8,
    issue({ id, audiences, lifetimeSeconds, issuer, claims }, now) {
      if (!id.memberOf(trustDomain) || id.path === "") {
        throw new CodedError("identity-foreign", `${id} is not an identity of the trust domain ${trustDomain}`);
      }
      if (audiences.length === 0) throw new CodedError("audience-missing", "a JWT-SVID needs at least one audience");
      if (now < notBefore.getTime() || now >= notAfter.getTime()) {
        throw new CodedError("authority-expired", `the JWT authority of ${trustDomain} is not valid at this time`);
      }
      const iat = Math.floor(now / 1000);
      const exp = Math.min(iat + lifetimeSeconds, Math.floor(notAfter.getTime() / 1000));
      // `aud` is always a list, as SPIRE writes it; every validator accepts that (JS-6).
      const payload = encodeJson({ iss: issuer, sub: id.toString(), aud: audiences, exp, iat, ...claims });
      const signed = `${header}.${payload}`;
      const signature = sign("sha256", Buffer.from(signed, "latin1"), { key: privateKey, dsaEncoding: "ieee-p1363" });
      return { token: `${signed}.${signature.toString("base64url")}`, expiresAt: new Date(exp * 1000) };
    },
  };
}

function encodeJson(value: unknown): string {
  return Buffer.from(JSON.stringify(value), "utf8").toString("base64url");
}
