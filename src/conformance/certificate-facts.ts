import { contentOf, contextTag, readBoolean, readElements, readObjectIdentifier, TAG } from "../spiffe/der.js";

/** What conformance asks of a certificate and validation does not. */
interface CertificateFacts {
  /** Content octets of the serial number, as encoded. RFC 5280 §4.1.2.2. */
  readonly serial: Buffer;
  readonly subjectIsEmpty: boolean;
  readonly alternativeNameIsCritical: boolean;
}

const SUBJECT_ALTERNATIVE_NAME = "2.5.29.17";
const VERSION = contextTag(0, "constructed");
const EXTENSIONS = contextTag(3, "constructed");

/** Of a certificate that `parseCertificate` can read. */
export function certificateFacts(der: Buffer): CertificateFacts {
  const [tbs] = readElements(contentOf(der, TAG.sequence));
  const fields = readElements(tbs?.content ?? Buffer.alloc(0));
  if (fields[0]?.tag === VERSION) fields.shift();
  const [serial, , , , subject] = fields;
  const extensions = fields.find(({ tag }) => tag === EXTENSIONS);
  return {
    serial: serial?.content ?? Buffer.alloc(0),
    subjectIsEmpty: subject?.content.length === 0,
    alternativeNameIsCritical: extensions !== undefined && isCritical(extensions.content, SUBJECT_ALTERNATIVE_NAME),
  };
}

function isCritical(extensions: Buffer, wanted: string): boolean {
  return readElements(contentOf(extensions, TAG.sequence)).some(({ content }) => {
    const [oid, second] = readElements(content);
    if (oid === undefined || readObjectIdentifier(oid.content) !== wanted) return false;
    return second?.tag === TAG.boolean && readBoolean(second.content);
  });
}
