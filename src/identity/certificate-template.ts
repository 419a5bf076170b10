import { hash, type KeyObject } from "node:crypto";
import { isIP } from "node:net";
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
 * The certificates that we issue, with everything constant encoded once, and signed with `node:crypto`: that is what makes thousands of SVIDs a second
 * possible (`test/bench/issuing.ts`), and it is synchronous. The tests compare each part with what `@peculiar/x509` writes; loading
 * that library would be a good part of the time from `agentid dev` typed to the first SVID.
 */

const VERSION_3 = Buffer.of(0xa0, 0x03, 0x02, 0x01, 0x02);
const EXTENSIONS = contextTag(3, "constructed");
/** BOOLEAN TRUE. */
const TRUE = Buffer.of(0x01, 0x01, 0xff);
/** OBJECT IDENTIFIERs, of extensions (RFC 5280 §4.2.1), of names (X.520) and of extended key usages. */
const SUBJECT_KEY_ID = Buffer.from("0603551d0e", "hex");
const KEY_USAGE = Buffer.from("0603551d0f", "hex");
const SUBJECT_ALTERNATIVE_NAME = Buffer.from("0603551d11", "hex");
const BASIC_CONSTRAINTS = Buffer.from("0603551d13", "hex");
const AUTHORITY_KEY_ID = Buffer.from("0603551d23", "hex");
const EXTENDED_KEY_USAGE = Buffer.from("0603551d25", "hex");
const COUNTRY = Buffer.from("0603550406", "hex");
const ORGANIZATION = Buffer.from("060355040a", "hex");
const SERIAL_NUMBER = Buffer.from("0603550405", "hex");
const SERVER_AUTH = Buffer.from("06082b06010505070301", "hex");
const CLIENT_AUTH = Buffer.from("06082b06010505070302", "hex");
/** BIT STRINGs of KeyUsage: the octet that counts unused bits, then the bits. */
const DIGITAL_SIGNATURE = Buffer.of(7, 0b1000_0000);
const KEY_CERT_SIGN_AND_CRL_SIGN = Buffer.of(1, 0b0000_0110);

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
  const subjectKeyId = extension(SUBJECT_KEY_ID, element(TAG.octetString, subjectKeyIdentifier(fields.publicKeyInfo)));
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
  const decimal = BigInt(`0x${serial.toString("hex")}`).toString();
  return encode(
    element(TAG.sequence, nameOf(COUNTRY, "US"), nameOf(ORGANIZATION, "SPIFFE"), nameOf(SERIAL_NUMBER, decimal)),
  );
}

/**
 * Extensions of a signing certificate. X509-SVID §3.2, §4.1, §4.3 (XS-7). `issuerKeyId` is that of the upstream authority, undefined for a root;
 * what hangs below somebody else's root signs leaves only.
 */
export function authorityExtensions(trustDomainId: string, issuerKeyId?: Buffer): readonly UnwrittenElement[] {
  const signsLeavesOnly = issuerKeyId === undefined ? [] : [positiveInteger(Buffer.of(0))];
  return [
    criticalExtension(BASIC_CONSTRAINTS, element(TAG.sequence, TRUE, ...signsLeavesOnly)),
    criticalExtension(KEY_USAGE, element(TAG.bitString, KEY_CERT_SIGN_AND_CRL_SIGN)),
    extension(SUBJECT_ALTERNATIVE_NAME, element(TAG.sequence, uriName(trustDomainId))),
    ...(issuerKeyId === undefined ? [] : [authorityKeyIdentifier(issuerKeyId)]),
  ];
}

/** The extensions that all leaves of one authority share, one after the other. X509-SVID §4 (XS-4 … XS-6). */
export function sharedLeafExtensions(authorityKeyId: Buffer): Buffer {
  const extensions = [
    criticalExtension(BASIC_CONSTRAINTS, element(TAG.sequence)),
    criticalExtension(KEY_USAGE, element(TAG.bitString, DIGITAL_SIGNATURE)),
    extension(EXTENDED_KEY_USAGE, element(TAG.sequence, SERVER_AUTH, CLIENT_AUTH)),
    authorityKeyIdentifier(authorityKeyId),
  ];
  return Buffer.concat(extensions.map(encode));
}

/**
 * The leaf's names: exactly one URI (XS-1), then DNS names and IP addresses (X509-SVID §2 allows other names beside the URI). Critical, because the subject is empty or tells nothing that SPIFFE knows (XS-3, RFC 5280 §4.2.1.6).
 * The one extension that differs for each identity.
 */
export function leafNames(spiffeId: string, dnsNames: readonly string[]): UnwrittenElement {
  const dns = dnsNames.map((name) =>
    isIP(name) === 0
      ? element(contextTag(2, "primitive"), Buffer.from(name, "latin1"))
      : element(contextTag(7, "primitive"), addressBytes(name)),
  );
  return criticalExtension(SUBJECT_ALTERNATIVE_NAME, element(TAG.sequence, uriName(spiffeId), ...dns));
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

function uriName(uri: string): UnwrittenElement {
  return element(contextTag(6, "primitive"), Buffer.from(uri, "latin1"));
}

/** §4.2.1.1: the issuer's key identifier, `[0]`, and nothing else. */
export function authorityKeyIdentifier(keyId: Buffer): UnwrittenElement {
  return extension(AUTHORITY_KEY_ID, element(TAG.sequence, element(contextTag(0, "primitive"), keyId)));
}

function nameOf(type: Buffer, value: string): UnwrittenElement {
  const text = element(TAG.printableString, Buffer.from(value, "latin1"));
  return element(TAG.set, element(TAG.sequence, type, text));
}

/** RFC 5280 §4.2. An extension that is not critical leaves the BOOLEAN out. */
export function extension(oid: Buffer, value: UnwrittenElement): UnwrittenElement {
  return element(TAG.sequence, oid, element(TAG.octetString, value));
}

function criticalExtension(oid: Buffer, value: UnwrittenElement): UnwrittenElement {
  return element(TAG.sequence, oid, TRUE, element(TAG.octetString, value));
}
