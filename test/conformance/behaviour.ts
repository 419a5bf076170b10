import { status } from "@grpc/grpc-js";
import type { Jwk } from "../../src/spiffe/jwt-bundle.js";
import type { ValidatedJwtSvid } from "../../src/spiffe/jwt-svid.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import {
  type JWTSVIDResponse,
  SpiffeWorkloadAPIService,
  type ValidateJWTSVIDResponse,
  type WITBundlesResponse,
  type WITSVIDResponse,
  type X509BundlesResponse,
  type X509SVIDResponse,
} from "../../src/workload-api/generated/workload.js";
import type { CertificateOptions, TestCertificate } from "../spiffe/test-certificates.js";

export const TRUST_DOMAIN = "spiffe://conf.test";
export const FEDERATED = "spiffe://partner.test";
export const FIRST = `${TRUST_DOMAIN}/agents/first`;
export const SECOND = `${TRUST_DOMAIN}/agents/second`;

/** The decisions of the server. What a test replaces is all in which its server differs. */
export interface Behaviour {
  /** Values of the security header that it takes. */
  acceptsHeader(values: readonly unknown[]): boolean;
  /** Which paths need the header. */
  needsHeader(path: string): boolean;
  /** Certificates of a leaf; `id` stands in it. */
  leaf(id: string): Partial<CertificateOptions>;
  authority(): Partial<CertificateOptions>;
  x509(message: X509SVIDResponse, keys: Keys): X509SVIDResponse;
  /** Every message of a stream but the first. */
  followUp(message: X509SVIDResponse): X509SVIDResponse;
  x509Bundles(message: X509BundlesResponse): X509BundlesResponse;
  tokenHeader(header: Record<string, unknown>): Record<string, unknown>;
  tokenClaims(claims: Record<string, unknown>): Record<string, unknown>;
  jwt(message: JWTSVIDResponse): JWTSVIDResponse;
  jwtBundles(message: Record<string, { keys: Jwk[] }>): Record<string, unknown>;
  wit(message: WITSVIDResponse): WITSVIDResponse;
  witBundles(message: WITBundlesResponse): WITBundlesResponse;
  /** `issued`: this very token is one of ours. */
  validate(token: string, audience: string, strictly: () => ValidatedJwtSvid, issued: boolean): ValidatedJwtSvid;
  validated(message: ValidateJWTSVIDResponse): ValidateJWTSVIDResponse;
  parseId(text: string): SpiffeId;
  /** Status of each refusal. */
  readonly refusals: Readonly<Record<Refusal, status>>;
  /** Statuses with which streams begin instead of a message. */
  readonly fails: Partial<
    Record<"FetchWITSVID" | "FetchWITBundles" | "FetchJWTSVID" | "FetchJWTBundles" | "ValidateJWTSVID", status>
  >;
  readonly closesBundleStreams: boolean;
  readonly repeatsBundles: boolean;
  /** Whether messages follow changes. */
  readonly follows: boolean;
  readonly endsStreamsWithoutIdentity: boolean;
  readonly firstMessageAfterMs: number;
  /** How many streams it can have had, cancelled ones counted, until it refuses. */
  readonly streamsInItsLife: number;
  /** Methods that its reflection shows; undefined: it offers none. */
  readonly reflected: readonly string[] | undefined;
  readonly unknownMethod: status | undefined;
  /** Whether a request may hold fields that it does not know. */
  readonly takesUnknownFields: boolean;
}

type Refusal =
  | "header"
  | "audience"
  | "arguments"
  | "token"
  | "id"
  | "entitlement"
  | "identity"
  | "validateWithoutIdentity";

/** What a test replaces. */
export type Faults = Partial<Omit<Behaviour, "refusals">> & { readonly refusals?: Partial<Behaviour["refusals"]> };

interface Keys {
  readonly authority: TestCertificate;
  readonly other: TestCertificate;
  readonly stranger: TestCertificate;
}

/** Keeps every statement. */
export const lawful: Behaviour = {
  acceptsHeader: (values) => values.length === 1 && values[0] === "true",
  needsHeader: (path) => path.startsWith("/SpiffeWorkloadAPI/"),
  leaf: () => ({}),
  authority: () => ({}),
  x509: (message) => message,
  followUp: (message) => message,
  x509Bundles: (message) => message,
  tokenHeader: (header) => header,
  tokenClaims: (claims) => claims,
  jwt: (message) => message,
  jwtBundles: (message) => message,
  wit: (message) => message,
  witBundles: (message) => message,
  validate: (_token, _audience, strictly) => strictly(),
  validated: (message) => message,
  parseId: (text) => SpiffeId.parse(text),
  refusals: {
    header: status.INVALID_ARGUMENT,
    audience: status.INVALID_ARGUMENT,
    arguments: status.INVALID_ARGUMENT,
    token: status.INVALID_ARGUMENT,
    id: status.INVALID_ARGUMENT,
    entitlement: status.PERMISSION_DENIED,
    identity: status.PERMISSION_DENIED,
    validateWithoutIdentity: status.OK,
  },
  fails: {},
  closesBundleStreams: false,
  repeatsBundles: false,
  follows: true,
  endsStreamsWithoutIdentity: true,
  firstMessageAfterMs: 0,
  streamsInItsLife: Number.POSITIVE_INFINITY,
  reflected: Object.values(SpiffeWorkloadAPIService).map(({ path }) => path.split("/")[2] ?? ""),
  unknownMethod: undefined,
  takesUnknownFields: true,
};
