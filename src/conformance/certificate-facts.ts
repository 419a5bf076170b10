import "reflect-metadata";
import { X509Certificate } from "@peculiar/x509";
import forge from "node-forge";

/**
 * What conformance asks of a certificate and validation does not. Read by other libraries than the encoder and the parser that serve the rest of this program:
 * a judge that shares the mistakes of the judged would find none.
 */
interface CertificateFacts {
  /** Content octets of the serial number, as encoded. RFC 5280 §4.1.2.2. */
  readonly serial: Buffer;
  readonly subjectIsEmpty: boolean;
  readonly alternativeNameIsCritical: boolean;
}

const SUBJECT_ALTERNATIVE_NAME = "2.5.29.17";

/** Of a certificate that `parseCertificate` can read. */
export function certificateFacts(der: Buffer): CertificateFacts {
  const certificate = new X509Certificate(der);
  return {
    serial: serialOctets(der),
    subjectIsEmpty: certificate.subject === "",
    alternativeNameIsCritical: certificate.getExtension(SUBJECT_ALTERNATIVE_NAME)?.critical === true,
  };
}

/** As encoded: `X509Certificate.serialNumber` leaves out the leading zero that makes a number positive. */
function serialOctets(der: Buffer): Buffer {
  const { value: certificate } = forge.asn1.fromDer(der.toString("binary"));
  const tbs = sequenceIn(certificate, 0);
  // RFC 5280 §4.1: TBSCertificate ::= SEQUENCE { version [0] EXPLICIT DEFAULT v1, serialNumber INTEGER, …
  const serial = tbs.find(
    (part) => typeof part === "object" && part.type === forge.asn1.Type.INTEGER && !part.constructed,
  );
  return Buffer.from(String(serial?.value ?? ""), "binary");
}

function sequenceIn(of: string | forge.asn1.Asn1[], index: number): readonly forge.asn1.Asn1[] {
  const inside = typeof of === "string" ? undefined : of[index]?.value;
  return typeof inside === "string" || inside === undefined ? [] : inside;
}
