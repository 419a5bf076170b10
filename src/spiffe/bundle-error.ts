import { CodedError } from "../coded-error.js";

export type BundleErrorCode =
  | "bundle-malformed"
  | "bundle-certificate"
  | "bundle-sequence"
  | "bundle-refresh-hint"
  | "bundle-trust-domain";

/** Text is not a trust bundle. SPIFFE Trust Domain and Bundle §4. */
export class BundleError extends CodedError<BundleErrorCode> {
  override readonly name = "BundleError";
}
