import type { Node } from "../generated/envoy/config/core/v3/base.js";

/**
 * How a client checks the certificates of its peers.
 *
 * `by-trust-domain`: Envoy's SPIFFE validator, each peer against the bundle of the trust domain that its SPIFFE ID names.
 * `by-roots`: one trust domain's roots as a plain list of authorities.
 */
export type Validation = "by-trust-domain" | "by-roots";

const SWITCH = "disable_spiffe_cert_validation";

/** What the client that calls itself `node` can do: the SPIFFE validator is in Envoy since 1.18, and its node's metadata may switch it off (as SPIRE). */
export function validationOf(node: Node): Validation {
  const disabled: unknown = node.metadata?.[SWITCH];
  if (disabled === true || disabled === "true") return "by-roots";
  const { majorNumber = 0, minorNumber = 0 } = node.userAgentBuildVersion?.version ?? {};
  return majorNumber > 1 || (majorNumber === 1 && minorNumber >= 18) ? "by-trust-domain" : "by-roots";
}
