import type { KeyObject } from "node:crypto";
import { contextTag, element, encode, positiveInteger, TAG, timeElement } from "../spiffe/der.js";
import { authorityKeyIdentifier, extension } from "./certificate-template.js";
import { ECDSA_WITH_SHA256, signed } from "./signed-structure.js";

/** INTEGER 1: version 2, which has extensions. RFC 5280 §5.1.2.1. */
const VERSION_2 = Buffer.of(0x02, 0x01, 0x01);
const EXTENSIONS = contextTag(0, "constructed");
/** OBJECT IDENTIFIER 2.5.29.20. */
const CRL_NUMBER = Buffer.from("0603551d14", "hex");

/** A certificate that is no longer believed although it has not expired. */
export interface RevokedEntry {
  /** Big-endian. */
  readonly serial: Buffer;
  readonly since: Date;
}

/** Everything a revocation list says. RFC 5280 §5. */
export interface RevocationListFields {
  /** DER of the authority's name. */
  readonly issuer: Buffer;
  readonly authorityKeyId: Buffer;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date;
  /** Larger than that of every earlier list of this issuer. §5.2.3. */
  readonly number: bigint;
  readonly revoked: readonly RevokedEntry[];
}

/** The DER CertificateList of `fields`, signed by the authority's own P-256 key. */
export function signRevocationList(fields: RevocationListFields, key: KeyObject): Buffer {
  const { issuer, authorityKeyId, thisUpdate, nextUpdate, revoked } = fields;
  const entries = revoked.map(({ serial, since }) =>
    element(TAG.sequence, positiveInteger(serial), timeElement(since)),
  );
  const toBeSigned = element(
    TAG.sequence,
    VERSION_2,
    ECDSA_WITH_SHA256.identifier,
    issuer,
    timeElement(thisUpdate),
    timeElement(nextUpdate),
    // §5.1.2.6: "When there are no revoked certificates, the revoked certificates list MUST be absent."
    ...(entries.length === 0 ? [] : [element(TAG.sequence, ...entries)]),
    element(
      EXTENSIONS,
      element(
        TAG.sequence,
        authorityKeyIdentifier(authorityKeyId),
        extension(CRL_NUMBER, positiveInteger(bytesOf(fields.number))),
      ),
    ),
  );
  return signed(encode(toBeSigned), key, ECDSA_WITH_SHA256);
}

function bytesOf(number: bigint): Buffer {
  const hex = number.toString(16);
  return Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, "hex");
}
