import { CodedError } from "../coded-error.js";

export type X509SvidErrorCode =
  | "x509-svid-malformed"
  | "x509-svid-chain-empty"
  | "x509-svid-chain-too-long"
  | "x509-svid-uri-missing"
  | "x509-svid-uri-several"
  | "x509-svid-uri-invalid"
  | "x509-svid-path-missing"
  | "x509-svid-leaf-is-ca"
  | "x509-svid-key-usage-missing"
  | "x509-svid-key-usage-not-critical"
  | "x509-svid-leaf-signs-certificates"
  | "x509-svid-leaf-signs-crls"
  | "x509-svid-digital-signature-missing"
  | "x509-svid-extended-key-usage"
  | "x509-svid-trust-domain-unknown"
  | "x509-svid-not-yet-valid"
  | "x509-svid-expired"
  | "x509-svid-critical-extension"
  | "x509-svid-name-constraints"
  | "x509-svid-issuer-unknown"
  | "x509-svid-issuer-not-ca"
  | "x509-svid-issuer-key-usage"
  | "x509-svid-path-length"
  | "x509-svid-signature-algorithm"
  | "x509-svid-signature";

/** A certificate or chain is not a valid X.509-SVID. One code for each rule of X509-SVID §2–5 and RFC 5280 §6. */
export class X509SvidError extends CodedError<X509SvidErrorCode> {
  override readonly name = "X509SvidError";
}
