import { createHash, type KeyObject } from "node:crypto";
import { CodedError } from "../coded-error.js";

/** A public P-256 key for ES256, as a JWK. A type, so that it is a record of members too. */
type Es256Jwk = {
  readonly kty: "EC";
  readonly crv: "P-256";
  readonly x: string;
  readonly y: string;
  readonly alg: "ES256";
};

/** The public JWK of `publicKey`. Throws CodedError `authority-key-mismatch` for any key that is not a P-256 one. */
export function es256JwkOf(publicKey: KeyObject): Es256Jwk {
  const { kty, crv, x, y } = publicKey.export({ format: "jwk" });
  if (kty !== "EC" || crv !== "P-256" || x === undefined || y === undefined) {
    throw new CodedError("authority-key-mismatch", "the token authority's key is not a P-256 key");
  }
  return { kty, crv, x, y, alg: "ES256" };
}

/** RFC 7638: a name that follows from the key, so that it is unique and stable without being stored. */
export function thumbprint({ crv, kty, x, y }: Es256Jwk): string {
  return createHash("sha256").update(JSON.stringify({ crv, kty, x, y })).digest("base64url");
}
