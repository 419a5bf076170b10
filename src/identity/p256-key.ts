import type { KeyObject } from "node:crypto";
import { CodedError } from "../coded-error.js";

/** A P-256 key in the forms that certificates and the Workload API need. */
export interface P256Key {
  readonly privateKey: KeyObject;
  /** Unencrypted PKCS#8 DER. */
  readonly privateKeyPkcs8: Buffer;
  /** SubjectPublicKeyInfo DER. */
  readonly publicKeyInfo: Buffer;
}

/** A P-256 SubjectPublicKeyInfo is this and the two 32-octet coordinates of the point. RFC 5480 §2. */
const P256_KEY_INFO_PREFIX = Buffer.from("3059301306072a8648ce3d020106082a8648ce3d03010703420004", "hex");
/** A P-256 PrivateKeyInfo is this, the 32-octet scalar, the next, and the two coordinates. RFC 5208 §5, RFC 5915 §3. */
const PKCS8_PREFIX = Buffer.from("308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420", "hex");
const PKCS8_POINT = Buffer.from("a14403420004", "hex");
const COORDINATE_BYTES = 32;

/**
 * The DER forms of `privateKey`. Every field of them has a fixed length, so they are put together from the numbers of the key: OpenSSL's own
 * encoders take as long as the signature of a certificate. Throws CodedError `authority-key-mismatch` for any key that is not a P-256 one.
 */
export function encodeP256Key(privateKey: KeyObject): P256Key {
  const { crv, d, x, y } = privateKey.export({ format: "jwk" });
  const [scalar, ...point] = [d, x, y].map((number) => Buffer.from(number ?? "", "base64url"));
  const fits = [scalar, ...point].every((number) => number?.length === COORDINATE_BYTES);
  if (crv !== "P-256" || scalar === undefined || !fits) {
    throw new CodedError("authority-key-mismatch", "the key is not a P-256 key");
  }
  return {
    privateKey,
    privateKeyPkcs8: Buffer.concat([PKCS8_PREFIX, scalar, PKCS8_POINT, ...point]),
    publicKeyInfo: Buffer.concat([P256_KEY_INFO_PREFIX, ...point]),
  };
}
