import { type KeyObject, sign } from "node:crypto";
import { element, encode, TAG } from "../spiffe/der.js";

/** How X.509 names a signature algorithm, and how `node:crypto` is asked for it. */
export interface SignatureAlgorithm {
  /** DER of the AlgorithmIdentifier. */
  readonly identifier: Buffer;
  readonly digest: "sha256" | "sha384" | "sha512" | undefined;
}

/** RFC 5758 §3.2: parameters absent. */
export const ECDSA_WITH_SHA256 = algorithm("300a06082a8648ce3d040302", "sha256");
const ECDSA_WITH_SHA384 = algorithm("300a06082a8648ce3d040303", "sha384");
const ECDSA_WITH_SHA512 = algorithm("300a06082a8648ce3d040304", "sha512");
/** RFC 4055 §5: parameters NULL. */
const RSA_WITH_SHA256 = algorithm("300d06092a864886f70d01010b0500", "sha256");
/** RFC 8410 §3: parameters absent. */
const ED25519 = algorithm("300506032b6570", undefined);

/** The algorithm for certificates signed by `key`, or undefined if our own verifier would refuse what it signs. */
export function algorithmOf(key: KeyObject): SignatureAlgorithm | undefined {
  const { namedCurve, modulusLength } = key.asymmetricKeyDetails ?? {};
  switch (key.asymmetricKeyType) {
    case "ec":
      return { prime256v1: ECDSA_WITH_SHA256, secp384r1: ECDSA_WITH_SHA384, secp521r1: ECDSA_WITH_SHA512 }[
        namedCurve ?? ""
      ];
    case "rsa":
      return (modulusLength ?? 0) >= 2048 ? RSA_WITH_SHA256 : undefined;
    case "ed25519":
      return ED25519;
    default:
      return undefined;
  }
}

const NO_UNUSED_BITS = Buffer.of(0);

/** `SEQUENCE { toBeSigned, algorithm, signature }`: the outer structure of certificates and revocation lists. RFC 5280 §4.1, §5.1. */
export function signed(toBeSigned: Buffer, key: KeyObject, { identifier, digest }: SignatureAlgorithm): Buffer {
  const signature = sign(digest, toBeSigned, key);
  return encode(element(TAG.sequence, toBeSigned, identifier, element(TAG.bitString, NO_UNUSED_BITS, signature)));
}

function algorithm(hex: string, digest: SignatureAlgorithm["digest"]): SignatureAlgorithm {
  return { identifier: Buffer.from(hex, "hex"), digest };
}
