import {
  SpiffeWorkloadAPIService as Api,
  type JWTBundlesResponse,
  type X509BundlesResponse,
} from "../workload-api/generated/workload.js";
import type { Followed, Probe } from "./probe.js";

/** The bundle streams, open from the beginning of a run to its end: what stays open and what is sent again is seen without waiting for it. */
export interface BundleWatch {
  readonly x509: Followed<X509BundlesResponse>;
  readonly jwt: Followed<JWTBundlesResponse>;
}

/** Both, with their first messages read. Throws Failed where none comes. */
export async function watchBundles(probe: Probe): Promise<BundleWatch> {
  const x509 = probe.follow(Api.fetchX509Bundles, {});
  const jwt = probe.follow(Api.fetchJwtBundles, {});
  await x509.next();
  await jwt.next();
  return { x509, jwt };
}
