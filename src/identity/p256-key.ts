import { createECDH } from "node:crypto";
import { drawRandom, type RandomBytes } from "./random-stock.js";

/** A P-256 key in the forms that certificates and the Workload API need. */
export interface P256Key {
  /** Unencrypted PKCS#8 DER. */
  readonly privateKeyPkcs8: Buffer;
  /** SubjectPublicKeyInfo DER. */
  readonly publicKeyInfo: Buffer;
}

/** A P-256 SubjectPublicKeyInfo is this and the point. RFC 5480 §2. */
const KEY_INFO_PREFIX = Buffer.from("3059301306072a8648ce3d020106082a8648ce3d030107034200", "hex");
/** A P-256 PrivateKeyInfo is this, the 32-octet scalar, the next, and the point. RFC 5208 §5, RFC 5915 §3. */
const PKCS8_PREFIX = Buffer.from("308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420", "hex");
const PKCS8_POINT = Buffer.from("a144034200", "hex");
const SCALAR_END = PKCS8_PREFIX.length + 32;
const POINT_AT = SCALAR_END + PKCS8_POINT.length;

/**
 * The exchange itself is never used: of what Node offers, this makes a key without objects that wait for the garbage collector. Its own generation takes
 * twice as long as choosing the scalar and asking for its point.
 */
const curve = createECDH("prime256v1");
const SCALAR_BYTES = 32;

/** The number of points, n. FIPS 186-4 D.1.2.3. */
const ORDER = Buffer.from("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", "hex");
const ZERO = Buffer.alloc(SCALAR_BYTES);

/** A new key. No KeyObject: making one and asking OpenSSL to encode it takes longer than the signature of a certificate, and it holds kilobytes. */
export function generateP256Key(random: RandomBytes = drawRandom): P256Key {
  const scalar = chooseScalar(random);
  curve.setPrivateKey(scalar);
  const key = encodeP256Key(scalar, curve.getPublicKey());
  scalar.fill(0);
  return key;
}

/** FIPS 186-5 A.2.2, by rejection: each scalar from 1 to n - 1 is as likely as any other. */
function chooseScalar(random: RandomBytes): Buffer {
  for (;;) {
    const scalar = random(SCALAR_BYTES);
    if (!scalar.equals(ZERO) && scalar.compare(ORDER) < 0) return scalar;
  }
}

/**
 * The DER forms of a key from its scalar, which may come without its leading zeros, and its uncompressed point.
 * Every field of them has a fixed length. In memory of its own, since it is held for minutes.
 */
export function encodeP256Key(scalar: Buffer, publicPoint: Buffer): P256Key {
  const privateKeyPkcs8 = Buffer.allocUnsafeSlow(POINT_AT + publicPoint.length);
  privateKeyPkcs8.set(PKCS8_PREFIX);
  privateKeyPkcs8.fill(0, PKCS8_PREFIX.length, SCALAR_END - scalar.length);
  privateKeyPkcs8.set(scalar, SCALAR_END - scalar.length);
  privateKeyPkcs8.set(PKCS8_POINT, SCALAR_END);
  privateKeyPkcs8.set(publicPoint, POINT_AT);
  return { privateKeyPkcs8, publicKeyInfo: Buffer.concat([KEY_INFO_PREFIX, publicPoint]) };
}
