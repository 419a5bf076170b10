import type { X509Bundle, X509Svid } from "../../identity/svid-source.js";
import { encodePem } from "../../spiffe/pem.js";
import type { DataSource } from "../generated/envoy/config/core/v3/base.js";
import type { Secret } from "../generated/envoy/extensions/transport_sockets/tls/v3/secret.js";
import { SPIFFECertValidatorConfig } from "../generated/envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.js";

const VALIDATOR = "envoy.tls.cert_validator.spiffe";
const VALIDATOR_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/** The certificate and key that a TLS context presents. */
export function certificateSecret(name: string, { certificates, privateKeyPkcs8 }: X509Svid): Secret {
  return {
    name,
    tlsCertificate: {
      certificateChain: inline(certificates.map((der) => encodePem("CERTIFICATE", der)).join("")),
      privateKey: inline(encodePem("PRIVATE KEY", privateKeyPkcs8)),
    },
  };
}

/** The roots of one trust domain. Whoever it is that they vouch for, the TLS context's own matchers must say. */
export function rootsSecret(name: string, bundle: X509Bundle): Secret {
  return { name, validationContext: { trustedCa: rootsOf(bundle), customValidatorConfig: undefined } };
}

/** Envoy's SPIFFE validator: a peer is verified against its own trust domain's roots and no others (D12). */
export function trustDomainsSecret(name: string, bundles: readonly X509Bundle[]): Secret {
  const trustDomains = bundles.map((bundle) => ({ name: bundle.trustDomain.name, trustBundle: rootsOf(bundle) }));
  const value = Buffer.from(SPIFFECertValidatorConfig.encode({ trustDomains }).finish());
  const customValidatorConfig = { name: VALIDATOR, typedConfig: { typeUrl: VALIDATOR_TYPE, value } };
  return { name, validationContext: { trustedCa: undefined, customValidatorConfig } };
}

function rootsOf({ authorities }: X509Bundle): DataSource {
  return inline(authorities.map((der) => encodePem("CERTIFICATE", der)).join(""));
}

function inline(pem: string): DataSource {
  return { inlineBytes: Buffer.from(pem) };
}
