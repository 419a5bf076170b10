import { X509Certificate } from "node:crypto";

/** The serial number of a DER certificate, as `canonicalSerial` writes it. */
export function serialOf(certificate: Buffer): string {
  return canonicalSerial(new X509Certificate(certificate).serialNumber);
}

/** Lower-case hex without leading zeros: OpenSSL writes other forms of the same number. */
export function canonicalSerial(hex: string): string {
  const digits = hex.toLowerCase().replace(/^0+/, "");
  return digits === "" ? "0" : digits;
}

/** Big-endian, as revocation lists have it. */
export function serialBytes(serial: string): Buffer {
  return Buffer.from(serial.length % 2 === 0 ? serial : `0${serial}`, "hex");
}
