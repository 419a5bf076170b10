import { X509Certificate } from "node:crypto";
import {
  contentOf,
  contextTag,
  type DerElement,
  DerError,
  readBoolean,
  readElement,
  readElements,
  readNamedBits,
  readObjectIdentifier,
  readSmallInteger,
  TAG,
} from "./der.js";
import { X509SvidError } from "./x509-svid-error.js";

/** What X.509-SVID validation needs of a certificate. The values are what its bytes say; nothing here is checked against time or issuer. */
export interface ParsedCertificate {
  /** For keys, signatures and TLS. */
  readonly x509: X509Certificate;
  readonly notBefore: number;
  readonly notAfter: number;
  /** DER of the names, compared octet by octet. RFC 5280 §7.1. */
  readonly issuer: Buffer;
  readonly subject: Buffer;
  readonly signatureAlgorithm: string;
  /** URI names of the subject alternative name, in order. */
  readonly uris: readonly string[];
  readonly basicConstraints: { readonly cA: boolean; readonly pathLength: number | undefined } | undefined;
  readonly keyUsage: KeyUsage | undefined;
  /** Object identifiers of the extended key usage, or undefined if there is none. */
  readonly extendedKeyUsage: readonly string[] | undefined;
  readonly hasNameConstraints: boolean;
  /** Critical extensions that are none of the above. RFC 5280 §4.2: a system that does not process one must reject. */
  readonly unprocessedCritical: readonly string[];
}

interface KeyUsage {
  readonly critical: boolean;
  readonly digitalSignature: boolean;
  readonly keyCertSign: boolean;
  readonly cRLSign: boolean;
}

const OID = {
  keyUsage: "2.5.29.15",
  subjectAlternativeName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  nameConstraints: "2.5.29.30",
  extendedKeyUsage: "2.5.29.37",
} as const;
const SUBJECT_KEY_IDENTIFIER = "2.5.29.14";
/** Processed here or only hints for path building. */
const PROCESSED: ReadonlySet<string> = new Set(Object.values(OID));
const URI_NAME = contextTag(6, "primitive");
const EXTENSIONS = contextTag(3, "constructed");
const VERSION = contextTag(0, "constructed");
const MAX_CHAIN_BYTES = 64 * 1024;

/**
 * The certificates of concatenated DER, leaf first (XR-3). Throws X509SvidError `x509-svid-malformed` for anything else:
 * PEM, BER lengths, trailing bytes, bytes that are not a certificate; `x509-svid-chain-empty` for no bytes.
 */
export function parseX509Chain(der: Buffer): readonly X509Certificate[] {
  return splitX509Chain(der).map((certificate) => parseCertificate(certificate).x509);
}

/** The DER of each certificate of concatenated DER, without parsing further. Throws as `parseX509Chain`. */
export function splitX509Chain(der: Buffer): readonly Buffer[] {
  if (der.length === 0) throw new X509SvidError("x509-svid-chain-empty", "there is no certificate");
  return malformedUnless(() =>
    readElements(der).map(({ tag, encoding }) => {
      if (tag !== TAG.sequence) throw new DerError("der-unexpected", "not a certificate");
      return encoding;
    }),
  );
}

/** One certificate, as DER or as TLS hands it over. Throws X509SvidError `x509-svid-malformed`. */
export function parseCertificate(certificate: Buffer | X509Certificate): ParsedCertificate {
  const der = Buffer.isBuffer(certificate) ? certificate : certificate.raw;
  if (der.length > MAX_CHAIN_BYTES) throw new X509SvidError("x509-svid-malformed", "certificate is too large");
  return malformedUnless(() => {
    const [tbs, algorithm] = readElements(contentOf(der, TAG.sequence));
    if (tbs === undefined || algorithm === undefined) throw new DerError("der-truncated", "certificate is incomplete");
    const fields = readElements(contentOf(tbs.encoding, TAG.sequence));
    if (fields[0]?.tag === VERSION) fields.shift();
    const [, innerAlgorithm, issuer, , subject] = fields;
    if (innerAlgorithm === undefined || issuer === undefined || subject === undefined) {
      throw new DerError("der-truncated", "certificate is incomplete");
    }
    if (!innerAlgorithm.encoding.equals(algorithm.encoding)) {
      throw new DerError("der-unexpected", "the signature algorithm inside differs from the one outside");
    }
    const x509 = Buffer.isBuffer(certificate) ? new X509Certificate(der) : certificate;
    return {
      x509,
      notBefore: x509.validFromDate.getTime(),
      notAfter: x509.validToDate.getTime(),
      issuer: issuer.encoding,
      subject: subject.encoding,
      signatureAlgorithm: firstObjectIdentifier(algorithm.content),
      ...readExtensions(fields.find((field) => field.tag === EXTENSIONS)),
    };
  });
}

type ExtensionFacts = Pick<
  ParsedCertificate,
  "uris" | "basicConstraints" | "keyUsage" | "extendedKeyUsage" | "hasNameConstraints" | "unprocessedCritical"
>;

/** The name that `certificate` gives its own key, undefined if it gives none. RFC 5280 §4.2.1.2. Throws X509SvidError `x509-svid-malformed`. */
export function subjectKeyIdOf(certificate: X509Certificate): Buffer | undefined {
  return malformedUnless(() => {
    const [tbs] = readElements(contentOf(certificate.raw, TAG.sequence));
    const fields = readElements(contentOf(tbs?.encoding ?? Buffer.alloc(0), TAG.sequence));
    const extensions = extensionsIn(fields.find((field) => field.tag === EXTENSIONS));
    const given = extensions.get(SUBJECT_KEY_IDENTIFIER);
    return given && contentOf(given.value, TAG.octetString);
  });
}

type Extensions = ReadonlyMap<string, { readonly critical: boolean; readonly value: Buffer }>;

function extensionsIn(field: DerElement | undefined): Extensions {
  const extensions = new Map<string, { critical: boolean; value: Buffer }>();
  if (field !== undefined) {
    for (const { encoding } of readElements(contentOf(field.content, TAG.sequence))) {
      const { oid, ...extension } = readExtension(encoding);
      if (extensions.has(oid)) throw new DerError("der-unexpected", `extension ${oid} occurs twice`);
      extensions.set(oid, extension);
    }
  }
  return extensions;
}

function readExtensions(field: DerElement | undefined): ExtensionFacts {
  const extensions = extensionsIn(field);
  const value = (oid: string) => extensions.get(oid)?.value;
  const keyUsage = extensions.get(OID.keyUsage);
  return {
    uris: readUris(value(OID.subjectAlternativeName)),
    basicConstraints: readBasicConstraints(value(OID.basicConstraints)),
    keyUsage: keyUsage && readKeyUsage(keyUsage.value, keyUsage.critical),
    extendedKeyUsage: readExtendedKeyUsage(value(OID.extendedKeyUsage)),
    hasNameConstraints: extensions.has(OID.nameConstraints),
    unprocessedCritical: [...extensions]
      .filter(([oid, { critical }]) => critical && !PROCESSED.has(oid))
      .map(([oid]) => oid),
  };
}

function readExtension(encoding: Buffer): { oid: string; critical: boolean; value: Buffer } {
  const [oid, second, third, more] = readElements(contentOf(encoding, TAG.sequence));
  if (oid?.tag !== TAG.objectIdentifier || second === undefined || more !== undefined) {
    throw new DerError("der-unexpected", "extension is malformed");
  }
  const value = third ?? second;
  const critical = third !== undefined && second.tag === TAG.boolean && readBoolean(second.content);
  if ((third !== undefined && !critical) || value.tag !== TAG.octetString) {
    throw new DerError("der-not-canonical", "extension is malformed");
  }
  return { oid: readObjectIdentifier(oid.content), critical, value: value.content };
}

function readUris(value: Buffer | undefined): readonly string[] {
  if (value === undefined) return [];
  const names = readElements(contentOf(value, TAG.sequence));
  return names.filter((name) => name.tag === URI_NAME).map((name) => name.content.toString("latin1"));
}

function readBasicConstraints(value: Buffer | undefined): ParsedCertificate["basicConstraints"] {
  if (value === undefined) return undefined;
  const fields = readElements(contentOf(value, TAG.sequence));
  const cA = fields[0]?.tag === TAG.boolean ? readBoolean(fields.shift()?.content ?? Buffer.alloc(0)) : false;
  const pathLength =
    fields[0]?.tag === TAG.integer ? readSmallInteger(fields.shift()?.content ?? Buffer.alloc(0)) : undefined;
  if (fields.length > 0) throw new DerError("der-unexpected", "basic constraints are malformed");
  return { cA, pathLength };
}

function readKeyUsage(value: Buffer, critical: boolean): KeyUsage {
  const bits = readNamedBits(contentOf(value, TAG.bitString));
  return {
    critical,
    digitalSignature: bits[0] === true,
    keyCertSign: bits[5] === true,
    cRLSign: bits[6] === true,
  };
}

function readExtendedKeyUsage(value: Buffer | undefined): readonly string[] | undefined {
  if (value === undefined) return undefined;
  return readElements(contentOf(value, TAG.sequence)).map(({ encoding }) =>
    readObjectIdentifier(contentOf(encoding, TAG.objectIdentifier)),
  );
}

function firstObjectIdentifier(sequence: Buffer): string {
  return readObjectIdentifier(contentOf(readElement(sequence).encoding, TAG.objectIdentifier));
}

function malformedUnless<T>(parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    if (cause instanceof X509SvidError) throw cause;
    const why = cause instanceof DerError ? cause.message : "not an X.509 certificate";
    throw new X509SvidError("x509-svid-malformed", `malformed certificate: ${why}`, { cause });
  }
}
