import { CodedError } from "../../coded-error.js";
import { type JwkSet, parseJwtBundle } from "../../spiffe/jwt-bundle.js";
import { readJwtSvid } from "../../spiffe/jwt-svid.js";
import { SpiffeId } from "../../spiffe/spiffe-id.js";
import { parseWitBundle } from "../../spiffe/wit-bundle.js";
import type {
  JWTBundlesResponse,
  JWTSVIDResponse,
  ValidateJWTSVIDResponse,
  WITBundlesResponse,
} from "../../workload-api/generated/workload.js";
import { WorkloadApiError } from "./workload-api-error.js";
import { trustDomainOf } from "./x509-context.js";

/** What a JWT-SVID is wanted for. */
export interface JwtSvidRequest {
  /** At least one. JWT-SVID §3.2: "strongly recommended that the number of values be limited to one". */
  readonly audience: readonly string[];
  /** Whose; default: every identity of this workload. */
  readonly id?: SpiffeId | string | undefined;
}

/** A JWT-SVID as it came from the Workload API, ready to send. */
export interface JwtSvid {
  readonly id: SpiffeId;
  /** Compact JWS: a bearer secret. */
  readonly token: string;
  readonly audience: readonly string[];
  readonly expiresAt: Date;
  readonly hint: string;
}

/** What the server found in a token that it accepted. */
export interface ServerValidatedJwtSvid {
  readonly id: SpiffeId;
  readonly claims: Readonly<Record<string, unknown>>;
}

/** JWT bundles by name of their trust domain. */
export type JwtBundleMap = ReadonlyMap<string, JwkSet>;

/** Reads a message of FetchJWTBundles. Throws WorkloadApiError `workload-api-message-incomplete`, `workload-api-message-invalid`. */
export function readJwtBundles(message: JWTBundlesResponse): JwtBundleMap {
  return invalidUnless(() => {
    const entries = Object.entries(message.bundles);
    if (entries.length === 0) throw incomplete("bundles");
    return new Map(entries.map(([key, json]) => [trustDomainOf(key).name, parseJwtBundle(json.toString("utf8"))]));
  });
}

/** Reads a message of FetchWITBundles (Incubating). Throws WorkloadApiError as `readJwtBundles` does. */
export function readWitBundles(message: WITBundlesResponse): JwtBundleMap {
  return invalidUnless(() => {
    const entries = Object.entries(message.bundles);
    if (entries.length === 0) throw incomplete("bundles");
    return new Map(entries.map(([key, json]) => [trustDomainOf(key).name, parseWitBundle(json)]));
  });
}

/** Reads the answer of FetchJWTSVID: each token says the ID it came with and the audiences that were asked for. Throws WorkloadApiError. */
export function readJwtSvids(message: JWTSVIDResponse, { audience }: JwtSvidRequest): readonly JwtSvid[] {
  return invalidUnless(() => {
    if (message.svids.length === 0) throw incomplete("svids");
    const read = message.svids.map(({ spiffeId, svid, hint }) => {
      if (spiffeId === "") throw incomplete("spiffe_id");
      if (svid === "") throw incomplete("svid");
      const token = readJwtSvid(svid);
      if (token.id.toString() !== spiffeId) throw invalid(`the token for ${spiffeId} is of ${token.id}`);
      const missing = audience.find((one) => !token.audience.includes(one));
      if (missing !== undefined) throw invalid(`the token is not for ${JSON.stringify(missing)}`);
      return { id: token.id, token: svid, audience: token.audience, expiresAt: token.expiresAt, hint };
    });
    // Workload API §6.2.1: of several with one hint "the first message in the list SHOULD be selected".
    return read.filter(({ hint }, index) => hint === "" || read.findIndex((one) => one.hint === hint) === index);
  });
}

/** Reads the answer of ValidateJWTSVID. Throws WorkloadApiError. */
export function readValidation(message: ValidateJWTSVIDResponse): ServerValidatedJwtSvid {
  return invalidUnless(() => {
    if (message.spiffeId === "") throw incomplete("spiffe_id");
    if (message.claims === undefined) throw incomplete("claims");
    return { id: SpiffeId.parse(message.spiffeId), claims: message.claims };
  });
}

function incomplete(field: string): WorkloadApiError {
  return new WorkloadApiError("workload-api-message-incomplete", `the mandatory field ${field} is empty`);
}

function invalid(why: string, cause?: unknown): WorkloadApiError {
  return new WorkloadApiError("workload-api-message-invalid", `the Workload API's message was discarded: ${why}`, {
    cause,
  });
}

function invalidUnless<T>(read: () => T): T {
  try {
    return read();
  } catch (thrown) {
    if (thrown instanceof WorkloadApiError || !(thrown instanceof CodedError)) throw thrown;
    throw invalid(thrown.message, thrown);
  }
}
