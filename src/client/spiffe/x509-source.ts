import { TrustDomain } from "../../spiffe/spiffe-id.js";
import { createHeldState } from "./held-state.js";
import { createWorkloadApiClient, type WorkloadApiOptions, waitingClock } from "./workload-api-client.js";
import { WorkloadApiError } from "./workload-api-error.js";
import type { X509Context, X509Svid } from "./x509-context.js";

/** What TLS needs: a certificate to show and bundles to verify by. TLS code never knows where they come from. */
export interface TlsIdentity {
  /** The SVID to present now. Throws WorkloadApiError `svid-withdrawn`, `svid-expired`, `svid-not-picked`. */
  svid(): X509Svid;
  /** DER roots of `trustDomain`, or undefined for one that is not trusted. */
  bundleFor(trustDomain: TrustDomain | string): readonly Buffer[] | undefined;
  /** Called after every change of SVIDs or bundles; the returned function unsubscribes. */
  onUpdate(listener: () => void): () => void;
}

/** This workload's X.509-SVIDs and bundles, always the newest, for as long as it runs. */
export interface X509Source extends TlsIdentity {
  /** Every SVID of this workload, the default first; empty once all are withdrawn. */
  readonly svids: readonly X509Svid[];
  /** What went wrong last and has not passed yet. */
  readonly problem: WorkloadApiError | undefined;
  /** Called with everything that goes wrong: discarded messages, lost streams; the returned function unsubscribes. */
  onProblem(listener: (problem: WorkloadApiError) => void): () => void;
  /** Ends the stream. What is held stays readable until it expires. Idempotent. */
  close(): void;
}

/** Chooses among several SVIDs, by ID or hint; `undefined` for none of them. */
export type SvidPicker = (svids: readonly X509Svid[]) => X509Svid | undefined;

export interface SourceOptions extends WorkloadApiOptions {
  /** Ends the wait for the first update. */
  readonly signal?: AbortSignal | undefined;
  /** How long to wait for the first update. Default 30,000. */
  readonly timeoutMs?: number | undefined;
}

export interface X509SourceOptions extends SourceOptions {
  /** Default: the first, which is the default identity. */
  readonly picker?: SvidPicker | undefined;
}

export const FIRST_UPDATE_MS = 30_000;

/**
 * A source that holds its first update and follows every later one, through restarts of the server.
 * Rejects with WorkloadApiError: the problem that stood when `timeoutMs` was over, or at once the one that no waiting cures.
 */
export async function createX509Source(options: X509SourceOptions = {}): Promise<X509Source> {
  const { picker = ([first]) => first, clock = waitingClock, signal, timeoutMs = FIRST_UPDATE_MS } = options;
  const client = createWorkloadApiClient(options);
  const held = createHeldState<X509Context>();
  client.watchX509Context(held.listener);
  try {
    await held.first({ signal, timeoutMs, clock });
  } catch (thrown) {
    client.close();
    throw thrown;
  }
  return {
    svid() {
      if (held.current === undefined) throw withdrawn(held.problem);
      const picked = picker(held.current.svids);
      if (picked === undefined)
        throw new WorkloadApiError("svid-not-picked", "none of this workload's SVIDs is wanted");
      if (clock.now() > picked.notAfter.getTime()) throw expired(picked, held.problem);
      return picked;
    },
    bundleFor: (trustDomain) => held.current?.bundles.get(nameOf(trustDomain)),
    onUpdate: held.onUpdate,
    onProblem: held.onProblem,
    get svids() {
      return held.current?.svids ?? [];
    },
    get problem() {
      return held.problem;
    },
    close: () => client.close(),
  };
}

export function nameOf(trustDomain: TrustDomain | string): string {
  return typeof trustDomain === "string" ? TrustDomain.parse(trustDomain).name : trustDomain.name;
}

function withdrawn(problem: WorkloadApiError | undefined): WorkloadApiError {
  return new WorkloadApiError("svid-withdrawn", "the Workload API has withdrawn this workload's SVIDs", {
    cause: problem,
  });
}

function expired({ id, notAfter }: X509Svid, problem: WorkloadApiError | undefined): WorkloadApiError {
  const why = problem === undefined ? "" : `; ${problem.message}`;
  return new WorkloadApiError("svid-expired", `the SVID of ${id} expired at ${notAfter.toISOString()}${why}`, {
    cause: problem,
  });
}
