import { randomBytes } from "node:crypto";
import forge from "node-forge";
import { encryptedPrivateKeyInfo } from "./encrypted-pkcs8.js";

const { asn1, pkcs12 } = forge;
type Asn1 = forge.asn1.Asn1;

/** RFC 7292 and the PKCS #9 attributes it uses. */
const OID = {
  data: "1.2.840.113549.1.7.1",
  encryptedData: "1.2.840.113549.1.7.6",
  shroudedKeyBag: "1.2.840.113549.1.12.10.1.2",
  certificateBag: "1.2.840.113549.1.12.10.1.3",
  x509Certificate: "1.2.840.113549.1.9.22.1",
  friendlyName: "1.2.840.113549.1.9.20",
  localKeyId: "1.2.840.113549.1.9.21",
  sha256: "2.16.840.1.101.3.4.2.1",
  /** Oracle's: a certificate that has it is a trusted one, not a link of somebody's chain. */
  trustedKeyUsage: "2.16.840.1.113894.746875.1.1",
  anyExtendedKeyUsage: "2.5.29.37.0",
} as const;

const MAC_ITERATIONS = 10_000;
const MAC_KEY_BYTES = 32;
/** RFC 7292 appendix B.3: 3 makes a key for integrity. */
const INTEGRITY = 3;

/**
 * A PKCS #12 file (DER) with a private key and its chain, leaf first, under `alias`: AES-256 with PBKDF2, integrity by HMAC-SHA-256.
 * RFC 7292. `privateKeyPkcs8` is unencrypted PKCS#8 DER.
 */
export function encodeKeyStore(parts: {
  readonly privateKeyPkcs8: Buffer;
  readonly certificates: readonly Buffer[];
  readonly alias: string;
  readonly passphrase: string;
}): Buffer {
  const { alias, passphrase } = parts;
  const localKeyId = attribute(OID.localKeyId, octets(randomBytes(20)));
  const certificates = parts.certificates.map((der, index) =>
    // Who reads it finds the leaf by its key's id, and the others by their names.
    certificateBag(der, index === 0 ? [friendlyName(alias), localKeyId] : []),
  );
  const key = bag(OID.shroudedKeyBag, encryptedPrivateKeyInfo(parts.privateKeyPkcs8, passphrase), [
    friendlyName(alias),
    localKeyId,
  ]);
  return seal([encrypted(sequence(certificates), passphrase), plain(sequence([key]))], passphrase);
}

/** A PKCS #12 file (DER) of trusted authorities, each under its alias, as Java's keytool calls a trust store. */
export function encodeTrustStore(parts: {
  readonly authorities: readonly { readonly alias: string; readonly der: Buffer }[];
  readonly passphrase: string;
}): Buffer {
  const trusted = attribute(OID.trustedKeyUsage, oid(OID.anyExtendedKeyUsage));
  const bags = parts.authorities.map(({ alias, der }) => certificateBag(der, [friendlyName(alias), trusted]));
  return seal([encrypted(sequence(bags), parts.passphrase)], parts.passphrase);
}

/** PFX ::= SEQUENCE { version 3, authSafe, macData }. RFC 7292 §4. */
function seal(contents: readonly Asn1[], passphrase: string): Buffer {
  const safe = asn1.toDer(sequence(contents)).getBytes();
  const salt = randomBytes(16);
  const saltBuffer = forge.util.createBuffer(salt.toString("binary"));
  // Appendix B.1: this passphrase is a BMPString, whatever the encryption of the contents makes of it.
  const key = pkcs12.generateKey(
    passphrase,
    saltBuffer,
    INTEGRITY,
    MAC_ITERATIONS,
    MAC_KEY_BYTES,
    forge.md.sha256.create(),
  );
  const hmac = forge.hmac.create();
  hmac.start("sha256", key.getBytes());
  hmac.update(safe);
  const digestInfo = sequence([algorithm(OID.sha256), octets(Buffer.from(hmac.digest().getBytes(), "binary"))]);
  const macData = sequence([digestInfo, octets(salt), integer(MAC_ITERATIONS)]);
  const authSafe = contentInfo(OID.data, octets(Buffer.from(safe, "binary")));
  const pfx = sequence([integer(3), authSafe, macData]);
  return Buffer.from(asn1.toDer(pfx).getBytes(), "binary");
}

function plain(safeContents: Asn1): Asn1 {
  return contentInfo(OID.data, octets(Buffer.from(asn1.toDer(safeContents).getBytes(), "binary")));
}

/** EncryptedData, RFC 5652 §8: the algorithm and the bytes are those of an encrypted private key around other contents. */
function encrypted(safeContents: Asn1, passphrase: string): Asn1 {
  const der = Buffer.from(asn1.toDer(safeContents).getBytes(), "binary");
  const [scheme, bytes] = encryptedPrivateKeyInfo(der, passphrase).value as [Asn1, Asn1];
  const content = asn1.create(asn1.Class.CONTEXT_SPECIFIC, 0 as forge.asn1.Type, false, bytes.value);
  return contentInfo(OID.encryptedData, sequence([integer(0), sequence([oid(OID.data), scheme, content])]));
}

function certificateBag(der: Buffer, attributes: readonly Asn1[]): Asn1 {
  return bag(OID.certificateBag, sequence([oid(OID.x509Certificate), explicit(octets(der))]), attributes);
}

/** SafeBag ::= SEQUENCE { bagId, [0] bagValue, bagAttributes SET OPTIONAL }. RFC 7292 §4.2. */
function bag(bagId: string, value: Asn1, attributes: readonly Asn1[]): Asn1 {
  return sequence([oid(bagId), explicit(value), ...(attributes.length === 0 ? [] : [set(attributes)])]);
}

function attribute(type: string, value: Asn1): Asn1 {
  return sequence([oid(type), set([value])]);
}

function friendlyName(alias: string): Asn1 {
  return attribute(OID.friendlyName, primitive(asn1.Type.BMPSTRING, alias));
}

function contentInfo(type: string, content: Asn1): Asn1 {
  return sequence([oid(type), explicit(content)]);
}

function algorithm(type: string): Asn1 {
  return sequence([oid(type), primitive(asn1.Type.NULL, "")]);
}

function sequence(values: readonly Asn1[]): Asn1 {
  return asn1.create(asn1.Class.UNIVERSAL, asn1.Type.SEQUENCE, true, [...values]);
}

/** X.690 §11.6: the members of a SET OF in the order of their encodings. */
function set(values: readonly Asn1[]): Asn1 {
  const encoded = values.map((value) => ({ value, der: Buffer.from(asn1.toDer(value).getBytes(), "binary") }));
  const ordered = encoded.sort((one, other) => one.der.compare(other.der)).map(({ value }) => value);
  return asn1.create(asn1.Class.UNIVERSAL, asn1.Type.SET, true, ordered);
}

function explicit(value: Asn1): Asn1 {
  return asn1.create(asn1.Class.CONTEXT_SPECIFIC, 0 as forge.asn1.Type, true, [value]);
}

function oid(dotted: string): Asn1 {
  return primitive(asn1.Type.OID, asn1.oidToDer(dotted).getBytes());
}

function octets(bytes: Buffer): Asn1 {
  return primitive(asn1.Type.OCTETSTRING, bytes.toString("binary"));
}

function integer(value: number): Asn1 {
  return primitive(asn1.Type.INTEGER, asn1.integerToDer(value).getBytes());
}

function primitive(type: forge.asn1.Type, value: string): Asn1 {
  return asn1.create(asn1.Class.UNIVERSAL, type, false, value);
}
