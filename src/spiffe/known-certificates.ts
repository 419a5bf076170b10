import type { X509Certificate } from "node:crypto";
import { type ParsedCertificate, parseCertificate } from "./x509-certificate.js";

/*
 * The same few peers connect again and again. What a certificate says follows from its bytes alone and holds for the same bytes at any time, so it is read once;
 * what has to do with time, trust or revocation is looked at anew each time.
 */

/** By all octets, not a digest of them: nothing need be believed about a hash. */
const known = new Map<string, ParsedCertificate>();
const MAX_KNOWN = 1_024;
const MAX_BYTES = 4_096;

/** `parseCertificate`, or what it said of the same bytes before. Throws X509SvidError `x509-svid-malformed`. */
export function readCertificate(certificate: Buffer | X509Certificate): ParsedCertificate {
  const der = Buffer.isBuffer(certificate) ? certificate : certificate.raw;
  const found = der.length > MAX_BYTES ? undefined : known.get(der.toString("latin1"));
  return found ?? parseCertificate(certificate);
}

/** For those of a good chain: what strangers present is not worth keeping. When there are too many, all are forgotten. */
export function keepCertificate(parsed: ParsedCertificate): void {
  const { raw } = parsed.x509;
  const key = raw.toString("latin1");
  if (raw.length > MAX_BYTES || known.has(key)) return;
  if (known.size >= MAX_KNOWN) known.clear();
  known.set(key, parsed);
}
