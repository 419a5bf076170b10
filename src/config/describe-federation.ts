import type {
  BundleEndpointConfig,
  FederationRelationship,
  HostPort,
  OidcConfig,
  WebCertificateFiles,
} from "./config.js";

/** `https_spiffe on 127.0.0.1:8443`. */
export function describeEndpoint({ listen, web }: BundleEndpointConfig): string {
  const profile = web === undefined ? "https_spiffe" : "https_web";
  return `${profile} on ${formatAddress(listen)}${certificateOf(web)}`;
}

/** `https_spiffe https://127.0.0.1:9443/ as spiffe://other.local/agentid/bundle-endpoint, first bundle /shop/other.json`. */
export function describeRelationship({ url, spiffe }: FederationRelationship): string {
  if (spiffe === undefined) return `https_web ${url}`;
  return `https_spiffe ${url} as ${spiffe.endpointId}, first bundle ${spiffe.bundleFile}`;
}

/** `http://127.0.0.1:8088 on 127.0.0.1:8088`. */
export function describeOidc({ issuer, listen, web }: OidcConfig): string {
  return `${issuer} on ${formatAddress(listen)}${certificateOf(web)}`;
}

/** `127.0.0.1:8443`, `[::1]:8443`. */
export function formatAddress({ host, port }: HostPort): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function certificateOf(web: WebCertificateFiles | undefined): string {
  return web === undefined ? "" : ` with ${web.certificate} and ${web.key}`;
}
