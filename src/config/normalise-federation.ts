import { resolve } from "node:path";
import { SpiffeId, TrustDomain } from "../spiffe/spiffe-id.js";
import type { FederationConfig, FederationRelationship, HostPort, OidcConfig, WebCertificateFiles } from "./config.js";
import type { FederationEntry, OidcEntry } from "./federation-schema.js";
import { parseHostPort } from "./values.js";

/** What the checked `federation` section means; nothing where there is none. */
export function federationOf(written: FederationEntry | undefined, projectDirectory: string): FederationConfig {
  const { endpoint, trustDomains = {} } = written ?? {};
  return {
    endpoint: endpoint && { listen: addressOf(endpoint.listen), web: webFilesOf(endpoint, projectDirectory) },
    relationships: Object.entries(trustDomains).map(([name, entry]): FederationRelationship => {
      const { url, endpointSpiffeId, bundle } = entry;
      const spiffe =
        endpointSpiffeId === undefined || bundle === undefined
          ? undefined
          : { endpointId: SpiffeId.parse(endpointSpiffeId), bundleFile: resolve(projectDirectory, bundle) };
      return { trustDomain: TrustDomain.parse(name), url: new URL(url).href, spiffe };
    }),
  };
}

export function oidcOf(written: OidcEntry, projectDirectory: string): OidcConfig {
  return {
    listen: addressOf(written.listen),
    issuer: written.issuer,
    web: webFilesOf(written, projectDirectory),
  };
}

function webFilesOf(
  { certificate, key }: { certificate?: string | undefined; key?: string | undefined },
  projectDirectory: string,
): WebCertificateFiles | undefined {
  if (certificate === undefined || key === undefined) return undefined;
  return { certificate: resolve(projectDirectory, certificate), key: resolve(projectDirectory, key) };
}

function addressOf(listen: string): HostPort {
  const address = parseHostPort(listen);
  if (address === undefined) throw new TypeError(`${listen} passed the schema and is not host:port`);
  return address;
}
