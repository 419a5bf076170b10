import { BUNDLE_ENDPOINT_IDENTITY, type BundleEndpointConfig } from "../config/config.js";
import type { X509SvidSource } from "../identity/svid-source.js";
import type { Clock } from "../platform/clock.js";
import { serialiseSpiffeBundle } from "../spiffe/spiffe-bundle.js";
import { SpiffeId, type TrustDomain } from "../spiffe/spiffe-id.js";
import { type DocumentServer, serveDocuments } from "./document-server.js";
import type { PublishedBundle } from "./published-bundle.js";
import { fileCertificate, svidCertificate } from "./server-certificate.js";

/**
 * The bundle endpoint of `ours`: `GET /` answers 200 with the bundle as `application/json` (Federation §5). Anybody may ask.
 * Throws CodedError `port-in-use`, `cannot-listen`, `certificate-unreadable`.
 */
export async function openBundleEndpoint(options: {
  readonly config: BundleEndpointConfig;
  readonly ours: TrustDomain;
  readonly published: PublishedBundle;
  readonly svids: X509SvidSource;
  readonly clock: Clock;
  readonly onProblem: (thrown: unknown) => void;
}): Promise<DocumentServer> {
  const { config, ours, published, svids, clock, onProblem } = options;
  return serveDocuments({
    listen: config.listen,
    documents: [{ path: "/", body: () => serialiseSpiffeBundle(published.current()) }],
    certificate:
      config.web === undefined
        ? svidCertificate(svids, SpiffeId.of(ours, BUNDLE_ENDPOINT_IDENTITY))
        : fileCertificate(config.web, clock, onProblem),
    what: "federation.endpoint",
    onProblem,
  });
}
