import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { CodedError } from "../coded-error.js";
import type { Jwk } from "../spiffe/jwt-bundle.js";
import type { SpiffeId, TrustDomain } from "../spiffe/spiffe-id.js";
import { es256JwkOf, thumbprint } from "./es256-jwk.js";

/** What becomes a WIT-SVID. */
interface WitSvidRequest {
  readonly id: SpiffeId;
  readonly lifetimeSeconds: number;
  /** Beside those of the standard. */
  readonly claims?: Readonly<Record<string, unknown>>;
}

/** A Workload Identity Token as the authority signed it, with the key made for it. */
interface IssuedWitSvid {
  /** Compact JWS. */
  readonly token: string;
  /** The private JWK whose public part is the token's `cnf.jwk`. */
  readonly privateJwk: Jwk;
  readonly issuedAt: Date;
  readonly expiresAt: Date;
  /** `jti`: the token's name in the record. */
  readonly tokenId: string;
}

/** Signs the WIT-SVIDs of one trust domain with ES256. Incubating: SPIFFE WIT-SVID. */
export interface WitAuthority {
  readonly trustDomain: TrustDomain;
  readonly keyId: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** The bundle's entry: public members only, `use: wit-svid`, `kid`. */
  readonly publicJwk: Jwk;
  /** Unencrypted PKCS#8, for the key store only. */
  readonly privateKeyPkcs8: Buffer;
  /** Makes a key and signs its token at `now` (ms). Throws CodedError `authority-expired`, `identity-foreign`. */
  issue(request: WitSvidRequest, now: number): IssuedWitSvid;
}

/** A new signing key, believed from `notBefore` to `notAfter`. */
export function createWitAuthority(options: {
  readonly trustDomain: TrustDomain;
  readonly notBefore: Date;
  readonly notAfter: Date;
}): WitAuthority {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return restoreWitAuthority({ ...options, privateKeyPkcs8: privateKey.export({ format: "der", type: "pkcs8" }) });
}

/** The authority of a key that was stored. Throws CodedError `authority-key-mismatch`. */
export function restoreWitAuthority(options: {
  readonly trustDomain: TrustDomain;
  readonly privateKeyPkcs8: Buffer;
  readonly notBefore: Date;
  readonly notAfter: Date;
}): WitAuthority {
  const { trustDomain, privateKeyPkcs8, notBefore, notAfter } = options;
  const signingKey = createPrivateKey({ key: privateKeyPkcs8, format: "der", type: "pkcs8" });
  const publicPart = es256JwkOf(createPublicKey(signingKey));
  const keyId = thumbprint(publicPart);
  // WIT-SVID: "typ" is `wit+jwt`, and "kid" is mandatory.
  const header = encodeJson({ alg: "ES256", kid: keyId, typ: "wit+jwt" });

  return {
    trustDomain,
    keyId,
    notBefore,
    notAfter,
    publicJwk: { ...publicPart, kid: keyId, use: "wit-svid" },
    privateKeyPkcs8,
    issue({ id, lifetimeSeconds, claims }, now) {
      if (!id.memberOf(trustDomain) || id.path === "") {
        throw new CodedError("identity-foreign", `${id} is not an identity of the trust domain ${trustDomain}`);
      }
      if (now < notBefore.getTime() || now >= notAfter.getTime()) {
        throw new CodedError("authority-expired", `the WIT authority of ${trustDomain} is not valid at this time`);
      }
      const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
      const confirmed = es256JwkOf(publicKey);
      const iat = Math.floor(now / 1000);
      const exp = Math.min(iat + lifetimeSeconds, Math.floor(notAfter.getTime() / 1000));
      const jti = randomBytes(16).toString("base64url");
      // No `aud`: a WIT is no bearer token, and says to nobody in particular who holds the key of `cnf`. No `iss`: there is nothing to discover.
      const payload = encodeJson({ sub: id.toString(), exp, iat, jti, cnf: { jwk: confirmed }, ...claims });
      const signed = `${header}.${payload}`;
      const signature = sign("sha256", Buffer.from(signed, "latin1"), { key: signingKey, dsaEncoding: "ieee-p1363" });
      const { d } = privateKey.export({ format: "jwk" });
      return {
        token: `${signed}.${signature.toString("base64url")}`,
        privateJwk: { ...confirmed, d },
        issuedAt: new Date(iat * 1000),
        expiresAt: new Date(exp * 1000),
        tokenId: jti,
      };
    },
  };
}

function encodeJson(value: unknown): string {
  return Buffer.from(JSON.stringify(value), "utf8").toString("base64url");
}
