import type { SecretDiscoveryServiceServer } from "../generated/envoy/service/secret/v3/sds.js";
import { deltaSecrets } from "./delta.js";
import type { SdsDependencies } from "./protocol.js";
import { fetchSecrets, streamSecrets } from "./state-of-the-world.js";

/**
 * Envoy's secret discovery service, v3: X.509-SVIDs and bundles for proxies that know no SPIFFE.
 * The caller is the proxy's process, attested as any other; the security header is not asked for, as Envoy does not send it (SPIRE neither).
 *
 * | Resource name | Gives |
 * |---|---|
 * | a SPIFFE ID, or `default` | certificate and key |
 * | a trust domain's SPIFFE ID, or `ROOTCA` for our own | what peers of that trust domain are verified with |
 * | `ALL` | what peers of every known trust domain are verified with, each with its own bundle |
 * | nothing named | a certificate for each identity and the bundle of each trust domain |
 */
export function secretDiscoveryService(d: SdsDependencies): SecretDiscoveryServiceServer {
  return { streamSecrets: streamSecrets(d), deltaSecrets: deltaSecrets(d), fetchSecrets: fetchSecrets(d) };
}
