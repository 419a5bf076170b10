import type { OidcConfig } from "../config/config.js";
import type { JwtBundleSource } from "../identity/svid-source.js";
import type { Clock } from "../platform/clock.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import { type DocumentServer, serveDocuments } from "./document-server.js";
import { fileCertificate } from "./server-certificate.js";

const NEVER_CACHED = { "cache-control": "no-cache, no-store, must-revalidate", pragma: "no-cache", expires: "0" };

/**
 * OpenID Connect discovery for the JWT-SVIDs of `ours`, with the very documents of SPIRE's discovery provider: `/.well-known/openid-configuration`
 * and `/keys`, below the issuer's path. Throws CodedError `port-in-use`, `cannot-listen`, `certificate-unreadable`.
 */
export async function openOidcDiscovery(options: {
  readonly config: OidcConfig;
  readonly ours: TrustDomain;
  readonly bundles: JwtBundleSource;
  readonly clock: Clock;
  readonly onProblem: (thrown: unknown) => void;
}): Promise<DocumentServer> {
  const { config, ours, bundles, clock, onProblem } = options;
  const issuer = new URL(config.issuer);
  const below = issuer.pathname.replace(/\/$/, "");
  return serveDocuments({
    listen: config.listen,
    documents: [
      {
        path: `${below}/.well-known/openid-configuration`,
        body: () => JSON.stringify(discoveryDocument(config.issuer)),
      },
      { path: `${below}/keys`, headers: NEVER_CACHED, body: () => JSON.stringify(keySet(bundles, ours)) },
    ],
    certificate: config.web && fileCertificate(config.web, clock, onProblem),
    // A proxy in front passes on the Host that the verifier asked for.
    names: [issuer.host],
    what: "oidc",
    onProblem,
  });
}

/** OpenID Connect Discovery §3: the required members; nobody logs in here, so those about logging in are empty, as in SPIRE. */
function discoveryDocument(issuer: string) {
  return {
    issuer,
    jwks_uri: `${issuer}/keys`,
    authorization_endpoint: "",
    response_types_supported: ["id_token"],
    subject_types_supported: [],
    id_token_signing_alg_values_supported: ["RS256", "ES256", "ES384"],
  };
}

/** The keys without `use`: verifiers outside know `sig` and not `jwt-svid`, and take a key that does not say (RFC 7517 §4.2). */
function keySet(bundles: JwtBundleSource, ours: TrustDomain): { readonly keys: readonly object[] } {
  const keys = bundles.jwtBundle(ours)?.keys ?? [];
  return { keys: keys.map(({ use: _use, ...key }) => key) };
}
