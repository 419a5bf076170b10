import "reflect-metadata";
import { hash, type KeyObject } from "node:crypto";
import { isIP } from "node:net";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Name,
  SubjectAlternativeNameExtension,
} from "@peculiar/x509";
import {
  contentOf,
  contextTag,
  element,
  encode,
  positiveInteger,
  readElements,
  TAG,
  timeElement,
  type UnwrittenElement,
} from "../spiffe/der.js";
import { ECDSA_WITH_SHA256, type SignatureAlgorithm, signed } from "./signed-structure.js";

/**
 * The certificates that we issue, with everything constant encoded once.
 *
 * The extensions come from `@peculiar/x509` (when a template is made), the outer structure is put together here and signed with
 * `node:crypto`: that is what makes thousands of SVIDs a second possible (`test/bench/issuing.ts`), and it is synchronous.
 */

const VERSION_3 = Buffer.of(0xa0, 0x03, 0x02, 0x01, 0x02);
const EXTENSIONS = contextTag(3, "constructed");
const SUBJECT_ALTERNATIVE_NAME = Buffer.from("0603551d11", "hex");
const CRITICAL = Buffer.of(0x01, 0x01, 0xff);
const SUBJECT_KEY_ID = Buffer.from("0603551d0e", "hex");

/** Everything of a certificate that changes from one issue to the next. */
export interface CertificateFields {
  /** Big-endian, positive, at most 20 octets (RFC 5280 §4.1.2.2). */
  readonly serial: Buffer;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly publicKeyInfo: Buffer;
}

/** All the rest. */
export interface CertificateTemplate {
  /** Names are DER. */
  readonly issuer: Buffer;
  readonly subject: Buffer;
  /** `Extension`s except the subject key identifier, which follows from the key. */
  readonly extensions: readonly (Buffer | UnwrittenElement)[];
}

/** The DER certificate of `template` and `fields`, signed by `issuerKey` with `algorithm`. */
export function signCertificate(
  template: CertificateTemplate,
  fields: CertificateFields,
  issuerKey: KeyObject,
  algorithm: SignatureAlgorithm = ECDSA_WITH_SHA256,
): Buffer {
  const subjectKeyId = element(
    TAG.sequence,
    SUBJECT_KEY_ID,
    element(TAG.octetString, element(TAG.octetString, subjectKeyIdentifier(fields.publicKeyInfo))),
  );
  const toBeSigned = element(
    TAG.sequence,
    VERSION_3,
    positiveInteger(fields.serial),
    algorithm.identifier,
    template.issuer,
    element(TAG.sequence, timeElement(fields.notBefore), timeElement(fields.notAfter)),
    template.subject,
    fields.publicKeyInfo,
    element(EXTENSIONS, element(TAG.sequence, ...template.extensions, subjectKeyId)),
  );
  return signed(encode(toBeSigned), issuerKey, algorithm);
}

/** SHA-1 of the public key's bits. RFC 5280 §4.2.1.2 (1): a name for the key, not a protection. */
export function subjectKeyIdentifier(publicKeyInfo: Buffer): Buffer {
  return hash("sha1", publicKeyBits(publicKeyInfo), "buffer");
}

/** The BIT STRING of a SubjectPublicKeyInfo, without the octet that counts its unused bits. */
function publicKeyBits(publicKeyInfo: Buffer): Buffer {
  const [, bits] = readElements(contentOf(publicKeyInfo, TAG.sequence));
  return bits?.content.subarray(1) ?? Buffer.alloc(0);
}

/** `C=US, O=SPIFFE` and the serial number, so that two authorities of one trust domain have different names (RFC 5280 path building goes by name). As SPIRE. */
export function authorityName(serial: Buffer): Buffer {
  return Buffer.from(
    new Name([
      { C: ["US"] },
      { O: ["SPIFFE"] },
      { "2.5.4.5": [BigInt(`0x${serial.toString("hex")}`).toString()] },
    ]).toArrayBuffer(),
  );
}

/**
 * Extensions of a signing certificate. X509-SVID §3.2, §4.1, §4.3 (XS-7). `issuerKeyId` is that of the upstream authority, undefined for a root;
 * what hangs below somebody else's root signs leaves only.
 */
export function authorityExtensions(trustDomainId: string, issuerKeyId?: Buffer): Buffer {
  return encodeExtensions([
    new BasicConstraintsExtension(true, issuerKeyId === undefined ? undefined : 0, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    new SubjectAlternativeNameExtension([{ type: "url", value: trustDomainId }]),
    ...(issuerKeyId === undefined ? [] : [new AuthorityKeyIdentifierExtension(issuerKeyId.toString("hex"))]),
  ]);
}

/** The extensions that all leaves of one authority share. X509-SVID §4 (XS-4 … XS-6). */
export function sharedLeafExtensions(authorityKeyId: Buffer): Buffer {
  return encodeExtensions([
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
    new AuthorityKeyIdentifierExtension(authorityKeyId.toString("hex")),
  ]);
}

/**
 * The leaf's names: exactly one URI (XS-1), then DNS names and IP addresses (X509-SVID §2 allows other names beside the URI). Critical, because the subject is empty or tells nothing that SPIFFE knows (XS-3, RFC 5280 §4.2.1.6).
 * The one extension that differs for each identity, so it is encoded here: a library takes longer for it than signing does.
 */
export function leafNames(spiffeId: string, dnsNames: readonly string[]): UnwrittenElement {
  const uri = element(contextTag(6, "primitive"), Buffer.from(spiffeId, "latin1"));
  const dns = dnsNames.map((name) =>
    isIP(name) === 0
      ? element(contextTag(2, "primitive"), Buffer.from(name, "latin1"))
      : element(contextTag(7, "primitive"), addressBytes(name)),
  );
  const names = element(TAG.octetString, element(TAG.sequence, uri, ...dns));
  return element(TAG.sequence, SUBJECT_ALTERNATIVE_NAME, CRITICAL, names);
}

/** RFC 5280 §4.2.1.6: 4 octets of IPv4, 16 of IPv6. */
function addressBytes(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split(".").map(Number));
  const [before = "", after] = address.split("::");
  const words = (text: string) => (text === "" ? [] : text.split(":").map((word) => Number.parseInt(word, 16)));
  const [head, tail] = [words(before), words(after ?? "")];
  const all = [...head, ...Array<number>(8 - head.length - tail.length).fill(0), ...tail];
  return Buffer.from(all.flatMap((word) => [word >> 8, word & 0xff]));
}

function encodeExtensions(extensions: readonly Extension[]): Buffer {
  return Buffer.concat(extensions.map((extension) => Buffer.from(extension.rawData)));
}
