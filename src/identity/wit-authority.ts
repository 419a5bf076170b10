import { generateKeyPairSync, randomBytes } from "node:crypto";
import type { Jwk } from "../spiffe/jwt-bundle.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import { es256JwkOf } from "./es256-jwk.js";
import { newTokenKey, type TokenSigner, type TokenSignerLife, tokenSigner } from "./token-signer.js";

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
export interface WitAuthority extends TokenSigner {
  /** Makes a key and signs its token at `now` (ms). Throws CodedError `authority-expired`, `identity-foreign`. */
  issue(request: WitSvidRequest, now: number): IssuedWitSvid;
}

/** WIT-SVID: "typ" is `wit+jwt`, and "kid" is mandatory. */
const KIND = { name: "WIT", type: "wit+jwt", use: "wit-svid" } as const;

/** A new signing key, believed from `notBefore` to `notAfter`. */
export function createWitAuthority(life: TokenSignerLife): WitAuthority {
  return restoreWitAuthority({ ...life, privateKeyPkcs8: newTokenKey() });
}

/** The authority of a key that was stored. Throws CodedError `authority-key-mismatch`. */
export function restoreWitAuthority(life: TokenSignerLife & { readonly privateKeyPkcs8: Buffer }): WitAuthority {
  const { facts, timesFor, signed } = tokenSigner(KIND, life);
  return {
    ...facts,
    issue({ id, lifetimeSeconds, claims }, now) {
      const { iat, exp } = timesFor(id, lifetimeSeconds, now);
      const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
      const confirmed = es256JwkOf(publicKey);
      const jti = randomBytes(16).toString("base64url");
      const { d } = privateKey.export({ format: "jwk" });
      return {
        // No `aud`: a WIT is no bearer token, and says to nobody in particular who holds the key of `cnf`. No `iss`: there is nothing to discover.
        token: signed({ sub: id.toString(), exp, iat, jti, cnf: { jwk: confirmed }, ...claims }),
        privateJwk: { ...confirmed, d },
        issuedAt: new Date(iat * 1000),
        expiresAt: new Date(exp * 1000),
        tokenId: jti,
      };
    },
  };
}
