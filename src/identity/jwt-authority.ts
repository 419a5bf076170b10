import { CodedError } from "../coded-error.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import { newTokenKey, type TokenSigner, type TokenSignerLife, tokenSigner } from "./token-signer.js";

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
export interface JwtAuthority extends TokenSigner {
  /** Signs at `now` (ms). Throws CodedError `authority-expired`, `identity-foreign`, `audience-missing`. */
  issue(request: JwtSvidRequest, now: number): { readonly token: string; readonly expiresAt: Date };
}

const KIND = { name: "JWT", type: "JWT", use: "jwt-svid" } as const;

/** A new signing key, believed from `notBefore` to `notAfter`. */
export function createJwtAuthority(life: TokenSignerLife): JwtAuthority {
  return restoreJwtAuthority({ ...life, privateKeyPkcs8: newTokenKey() });
}

/** The authority of a key that was stored. Throws CodedError `authority-key-mismatch`. */
export function restoreJwtAuthority(life: TokenSignerLife & { readonly privateKeyPkcs8: Buffer }): JwtAuthority {
  const { facts, timesFor, signed } = tokenSigner(KIND, life);
  return {
    ...facts,
    issue({ id, audiences, lifetimeSeconds, issuer, claims }, now) {
      const { iat, exp } = timesFor(id, lifetimeSeconds, now);
      if (audiences.length === 0) throw new CodedError("audience-missing", "a JWT-SVID needs at least one audience");
      // `aud` is always a list, as SPIRE writes it; every validator accepts that (JS-6).
      const token = signed({ iss: issuer, sub: id.toString(), aud: audiences, exp, iat, ...claims });
      return { token, expiresAt: new Date(exp * 1000) };
    },
  };
}
