import { X509Certificate } from "node:crypto";
import { createSecureContext } from "node:tls";
import { credentials } from "@grpc/grpc-js";
import type { Node } from "../../src/workload-api/generated/envoy/config/core/v3/base.js";
import { Secret } from "../../src/workload-api/generated/envoy/extensions/transport_sockets/tls/v3/secret.js";
import { SPIFFECertValidatorConfig } from "../../src/workload-api/generated/envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.js";
import type {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  DiscoveryRequest,
  DiscoveryResponse,
} from "../../src/workload-api/generated/envoy/service/discovery/v3/discovery.js";
import { SecretDiscoveryServiceClient } from "../../src/workload-api/generated/envoy/service/secret/v3/sds.js";
import { type Received, receive } from "./received.js";
import type { RunningApi } from "./running-api.js";

export const SECRET_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/** What an Envoy of this version says of itself. */
export function envoy(majorNumber: number, minorNumber: number, metadata?: Record<string, unknown>): Node {
  const userAgentBuildVersion = { version: { majorNumber, minorNumber, patch: 0 } };
  return { id: "test", cluster: "test", metadata, userAgentName: "envoy", userAgentBuildVersion };
}

/** A client of the secret discovery service on a connection of its own. Sends no security header, as Envoy. */
export function sdsClient({ path }: RunningApi): SecretDiscoveryServiceClient {
  return new SecretDiscoveryServiceClient(`unix:${path}`, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });
}

export interface Talk<Request, Response> extends Received<Response> {
  say(request: Partial<Request>): void;
  /** Ends the client's side and leaves the server's. */
  end(): void;
}

/** A StreamSecrets stream. */
export function talk(client: SecretDiscoveryServiceClient): Talk<DiscoveryRequest, DiscoveryResponse> {
  const stream = client.streamSecrets();
  const received = receive(stream);
  const nothing: DiscoveryRequest = {
    ...{ versionInfo: "", node: undefined, resourceNames: [], typeUrl: SECRET_TYPE },
    ...{ responseNonce: "", errorDetail: undefined },
  };
  const own = { say: (request: Partial<DiscoveryRequest>) => stream.write({ ...nothing, ...request }) };
  return Object.assign(received, own, { end: () => stream.end() });
}

/** A DeltaSecrets stream. */
export function talkDelta(client: SecretDiscoveryServiceClient): Talk<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
  const stream = client.deltaSecrets();
  const received = receive(stream);
  const nothing: DeltaDiscoveryRequest = {
    ...{ node: undefined, typeUrl: SECRET_TYPE, resourceNamesSubscribe: [], resourceNamesUnsubscribe: [] },
    ...{ initialResourceVersions: {}, responseNonce: "", errorDetail: undefined },
  };
  const own = { say: (request: Partial<DeltaDiscoveryRequest>) => stream.write({ ...nothing, ...request }) };
  return Object.assign(received, own, { end: () => stream.end() });
}

/** The secrets of an answer, by name. */
export function secretsIn(response: DiscoveryResponse | DeltaDiscoveryResponse): Map<string, Secret> {
  const secrets = response.resources.map((resource) => {
    const any = "resource" in resource ? resource.resource : resource;
    if (any?.typeUrl !== SECRET_TYPE) throw new Error(`not a secret: ${any?.typeUrl}`);
    return Secret.decode(any.value);
  });
  return new Map(secrets.map((secret) => [secret.name, secret]));
}

export function namesIn(response: DiscoveryResponse | DeltaDiscoveryResponse): string[] {
  return [...secretsIn(response).keys()];
}

/** The leaf of a TLS certificate that OpenSSL accepts together with its key. */
export function leafOf(secret: Secret | undefined): X509Certificate {
  const cert = secret?.tlsCertificate?.certificateChain?.inlineBytes;
  const key = secret?.tlsCertificate?.privateKey?.inlineBytes;
  if (cert === undefined || key === undefined) throw new Error("not a TLS certificate");
  createSecureContext({ cert, key });
  return new X509Certificate(cert);
}

/** The roots of each trust domain of a validation context for Envoy's SPIFFE validator. */
export function trustDomainsOf(secret: Secret | undefined): Map<string, X509Certificate[]> {
  const config = secret?.validationContext?.customValidatorConfig;
  if (config?.name !== "envoy.tls.cert_validator.spiffe") throw new Error("not a SPIFFE validator");
  const { trustDomains } = SPIFFECertValidatorConfig.decode(config.typedConfig?.value ?? Buffer.alloc(0));
  return new Map(trustDomains.map(({ name, trustBundle }) => [name, certificates(trustBundle?.inlineBytes)]));
}

/** The roots of a plain validation context. */
export function rootsOf(secret: Secret | undefined): X509Certificate[] {
  if (secret?.validationContext?.customValidatorConfig !== undefined) throw new Error("not a list of roots");
  return certificates(secret?.validationContext?.trustedCa?.inlineBytes);
}

function certificates(pem: Buffer | undefined): X509Certificate[] {
  const blocks = String(pem ?? "").match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g) ?? [];
  return blocks.map((block) => new X509Certificate(block));
}
