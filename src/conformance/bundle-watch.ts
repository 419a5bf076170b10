import {
  SpiffeWorkloadAPIService as Api,
  type JWTBundlesResponse,
  type X509BundlesResponse,
} from "../workload-api/generated/workload.js";
import { Failed } from "./check.js";
import type { Followed, Probe } from "./probe.js";

/**
 * The bundle streams, open from the beginning of a run to its end: what stays open and what is sent again is seen without waiting for it.
 * A stream that brought no first message is not among them.
 */
export interface BundleWatch {
  readonly x509: Followed<X509BundlesResponse> | undefined;
  readonly jwt: Followed<JWTBundlesResponse> | undefined;
}

/** Both, with their first messages read. */
export async function watchBundles(probe: Probe): Promise<BundleWatch> {
  return {
    x509: await begun(probe.follow(Api.fetchX509Bundles, {})),
    jwt: await begun(probe.follow(Api.fetchJwtBundles, {})),
  };
}

async function begun<Response>(stream: Followed<Response>): Promise<Followed<Response> | undefined> {
  try {
    return "message" in (await stream.next()) ? stream : undefined;
  } catch (thrown) {
    if (thrown instanceof Failed) return undefined;
    throw thrown;
  }
}
