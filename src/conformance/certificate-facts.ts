import "reflect-metadata";
import { X509Certificate } from "@peculiar/x509";

/**
 * What conformance asks of a certificate and validation does not. Read by another library than the encoder and the parser that serve the rest of this program:
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
    serial: Buffer.from(certificate.serialNumber, "hex"),
    subjectIsEmpty: certificate.subject === "",
    alternativeNameIsCritical: certificate.getExtension(SUBJECT_ALTERNATIVE_NAME)?.critical === true,
  };
}
