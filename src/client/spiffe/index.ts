/**
 * A SPIFFE client for Node: X.509- and JWT-SVIDs over any Workload API, and TLS that authenticates its peers by SPIFFE ID.
 * Published as `@agentid-dev/agentid/client`. Nothing here knows agentid.
 */

export { BundleError, type BundleErrorCode } from "../../spiffe/bundle-error.js";
export type { Jwk, JwkSet } from "../../spiffe/jwt-bundle.js";
export { JwtSvidError, type JwtSvidErrorCode, type ValidatedJwtSvid } from "../../spiffe/jwt-svid.js";
export { SpiffeId, SpiffeIdError, type SpiffeIdErrorCode, TrustDomain } from "../../spiffe/spiffe-id.js";
export { X509SvidError, type X509SvidErrorCode } from "../../spiffe/x509-svid-error.js";
export { type Authorizer, anyId, memberOf, oneOf } from "./authorize.js";
export { type WorkloadEndpoint, workloadEndpoint } from "./endpoint.js";
export { createDispatcher, createHttpsServer, createSpiffeFetch, type SpiffeFetch } from "./http.js";
export type { JwtBundleMap, JwtSvid, JwtSvidRequest, ServerValidatedJwtSvid } from "./jwt-messages.js";
export { createJwtSource, type JwtSource } from "./jwt-source.js";
export { type Peer, PeerError } from "./peer.js";
export { type ConnectTlsOptions, connectTls, createTlsServer, peerOf, type TlsServerOptions } from "./tls.js";
export type { Watch, WatchListener, WatchState } from "./watched-stream.js";
export {
  type CallOptions,
  createWorkloadApiClient,
  type WorkloadApiClient,
  type WorkloadApiOptions,
} from "./workload-api-client.js";
export { WorkloadApiError, type WorkloadApiErrorCode } from "./workload-api-error.js";
export type { X509Bundles, X509Context, X509Svid } from "./x509-context.js";
export {
  createX509Source,
  type SourceOptions,
  type SvidPicker,
  type TlsIdentity,
  type X509Source,
  type X509SourceOptions,
} from "./x509-source.js";
