import type { JwkSet } from "../../spiffe/jwt-bundle.js";
import { parseAndValidateJwtSvid, type ValidatedJwtSvid } from "../../spiffe/jwt-svid.js";
import { SpiffeId, type TrustDomain } from "../../spiffe/spiffe-id.js";
import { createHeldState } from "./held-state.js";
import type { JwtBundleMap, JwtSvid } from "./jwt-messages.js";
import { type CallOptions, createWorkloadApiClient, waitingClock } from "./workload-api-client.js";
import { WorkloadApiError } from "./workload-api-error.js";
import { FIRST_UPDATE_MS, nameOf, type SourceOptions } from "./x509-source.js";

/** This workload's JWT-SVIDs on demand, and the bundles to validate those of others. */
export interface JwtSource {
  /**
   * A new JWT-SVID for `audience`: of `id`, else of the default identity. Each call asks the Workload API.
   * Rejects with WorkloadApiError (`workload-api-permission-denied` if this workload is not `id`) or SpiffeIdError.
   */
  fetchJwtSvid(audience: string | readonly string[], id?: SpiffeId | string, options?: CallOptions): Promise<JwtSvid>;
  /**
   * Validates a token that somebody presented, against the bundle of its own trust domain, without asking anybody.
   * Throws JwtSvidError, one code for each rule of JWT-SVID §2–5.
   */
  validateJwtSvid(token: string, audience: string): ValidatedJwtSvid;
  /** The keys of `trustDomain`, or undefined for one that is not trusted. */
  bundleFor(trustDomain: TrustDomain | string): JwkSet | undefined;
  /** What went wrong last and has not passed yet. */
  readonly problem: WorkloadApiError | undefined;
  /** Called after every change of bundles; the returned function unsubscribes. */
  onUpdate(listener: () => void): () => void;
  onProblem(listener: (problem: WorkloadApiError) => void): () => void;
  /** Ends stream and calls. Idempotent. */
  close(): void;
}

/** A source that holds the bundles of its first update and follows every later one. Rejects as `createX509Source`. */
export async function createJwtSource(options: SourceOptions = {}): Promise<JwtSource> {
  const { clock = waitingClock, signal, timeoutMs = FIRST_UPDATE_MS } = options;
  const client = createWorkloadApiClient(options);
  const held = createHeldState<JwtBundleMap>();
  client.watchJwtBundles(held.listener);
  try {
    await held.first({ signal, timeoutMs, clock });
  } catch (thrown) {
    client.close();
    throw thrown;
  }
  const bundleFor = (trustDomain: TrustDomain | string) => held.current?.get(nameOf(trustDomain));
  return {
    async fetchJwtSvid(audience, id, callOptions) {
      const wanted = id === undefined ? undefined : SpiffeId.parse(id.toString());
      const request = { audience: typeof audience === "string" ? [audience] : audience, id: wanted };
      const [svid] = await client.fetchJwtSvids(request, callOptions);
      if (svid === undefined) throw new WorkloadApiError("workload-api-message-incomplete", "there is no JWT-SVID");
      return svid;
    },
    validateJwtSvid: (token, audience) => parseAndValidateJwtSvid(token, audience, bundleFor, new Date(clock.now())),
    bundleFor,
    get problem() {
      return held.problem;
    },
    onUpdate: held.onUpdate,
    onProblem: held.onProblem,
    close: () => client.close(),
  };
}
