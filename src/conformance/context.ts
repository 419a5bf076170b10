import { status } from "@grpc/grpc-js";
import type { Clock } from "../platform/clock.js";
import { type ParsedCertificate, parseCertificate, splitX509Chain } from "../spiffe/x509-certificate.js";
import {
  SpiffeWorkloadAPIService as Api,
  type JWTBundlesResponse,
  type JWTSVIDResponse,
  type WITSVIDResponse,
  type X509BundlesResponse,
  type X509SVID,
  type X509SVIDResponse,
} from "../workload-api/generated/workload.js";
import { type BundleWatch, watchBundles } from "./bundle-watch.js";
import { chainProblem } from "./chain.js";
import { Failed, Skipped, skip } from "./check.js";
import type { Hooks } from "./hooks.js";
import { type Answer, createProbe, described, type Probe } from "./probe.js";
import { observeRemoval, type Removal } from "./removal.js";
import { observeRotation, type Rotation } from "./rotation.js";
import { AUDIENCE } from "./token-parts.js";

export interface ConformanceOptions {
  /** Where the Workload API is, as gRPC names it. */
  readonly target: string;
  readonly clock: Clock;
  /** How long a call may take. */
  readonly deadlineMs: number;
  /** How long what a hook brought about may take to be seen. */
  readonly changeDeadlineMs: number;
  readonly hooks: Hooks;
  /** SPIFFE_ENDPOINT_SOCKET, if it is set. */
  readonly printedAddress: string | undefined;
  /** The Workload API of a federated trust domain that gives this process an identity as well. */
  readonly federatedTarget?: string | undefined;
}

/** An element of the X.509-SVID response whose chain can be read. */
export interface ReadSvid {
  readonly svid: X509SVID;
  readonly chain: readonly ParsedCertificate[];
  readonly leaf: ParsedCertificate;
  /** The leaf's bytes. */
  readonly der: Buffer;
}

/** What checks look at. Each fact is asked for once; where it cannot be had the check that builds upon it is skipped. */
export interface Context {
  readonly options: ConformanceOptions;
  /** A connection for the checks that only ask. */
  readonly probe: Probe;
  /** A connection of its own, dropped when all checks are done. */
  connect(target?: string): Probe;
  /** The answer to a correct FetchX509SVID, with which everything began. */
  readonly control: Answer<X509SVIDResponse>;
  /** At least one. */
  svids(): readonly X509SVID[];
  federatedBundles(): Readonly<Record<string, Buffer>>;
  revocationLists(): readonly Buffer[];
  /** At least one. */
  readSvids(): readonly ReadSvid[];
  x509Bundles(): Promise<Readonly<Record<string, Buffer>>>;
  /** At least one, for AUDIENCE. */
  tokens(): Promise<JWTSVIDResponse["svids"]>;
  jwtBundles(): Promise<Readonly<Record<string, Buffer>>>;
  /** At least one. Skips where the WIT profile is not served. */
  witSvids(): Promise<WITSVIDResponse["svids"]>;
  /** Bundle streams that are open from the beginning. */
  bundleWatch(): Promise<BundleWatch>;
  rotation(): Promise<Rotation>;
  /** Undefined where there is no hook, or nothing came after it: ST-3 says so. */
  rotationIfSeen(): Promise<Rotation | undefined>;
  removal(): Promise<Removal>;
}

export function createContext(
  options: ConformanceOptions,
  control: Answer<X509SVIDResponse>,
): Context & { close(): void } {
  const probes: Probe[] = [];
  const connect = (target = options.target): Probe => {
    const probe = createProbe(target, options.deadlineMs, options.clock);
    probes.push(probe);
    return probe;
  };
  const probe = connect();

  function x509(): X509SVIDResponse {
    return control.ok ? control.message : skip(`FetchX509SVID answers ${described(control)}`);
  }
  const svids = (): readonly X509SVID[] => {
    const { svids: found } = x509();
    return found.length > 0 ? found : skip("FetchX509SVID gives no SVID: XR-1");
  };
  const { rotate, remove, restore } = options.hooks;

  const context: Context = {
    options,
    probe,
    connect,
    control,
    svids,
    federatedBundles: () => x509().federatedBundles,
    revocationLists: () => x509().crl,
    readSvids() {
      const read = svids().flatMap(readSvid);
      return read.length > 0 ? read : skip("no certificate chain can be read: XR-3");
    },
    x509Bundles: once(async () => {
      const { bundles } = messageOf<X509BundlesResponse>("FetchX509Bundles", await probe.ask(Api.fetchX509Bundles, {}));
      return bundles;
    }),
    tokens: once(async () => {
      const answer = await probe.ask(Api.fetchJwtsvid, { audience: [AUDIENCE], spiffeId: "" });
      const { svids: found } = messageOf<JWTSVIDResponse>("FetchJWTSVID", answer);
      return found.length > 0 ? found : skip("FetchJWTSVID gives no SVID: JR-3");
    }),
    jwtBundles: once(async () => {
      const { bundles } = messageOf<JWTBundlesResponse>("FetchJWTBundles", await probe.ask(Api.fetchJwtBundles, {}));
      return bundles;
    }),
    witSvids: once(async () => {
      const answer = await probe.ask(Api.fetchWitsvid, { spiffeId: "" });
      if (!answer.ok && answer.status === status.UNIMPLEMENTED) skip("the WIT profile is not served");
      const { svids: found } = messageOf<WITSVIDResponse>("FetchWITSVID", answer);
      return found.length > 0 ? found : skip("FetchWITSVID gives no SVID: WR-2");
    }),
    bundleWatch: once(() => watchBundles(connect())),
    rotation: once(async () =>
      rotate === undefined ? skip("needs the operator: --rotate-command") : observeRotation(context, rotate),
    ),
    rotationIfSeen: () => context.rotation().catch(nothingIfNoVerdict),
    removal: once(async () => {
      if (remove === undefined || restore === undefined) {
        return skip("needs the operator: --remove-command and --restore-command");
      }
      return observeRemoval(context, { remove, restore });
    }),
  };
  return {
    ...context,
    close() {
      for (const one of probes) one.drop();
    },
  };
}

/** The message of an answer that another check demands to be one. */
function messageOf<Response>(rpc: string, answer: Answer<Response>): Response {
  return answer.ok ? answer.message : skip(`${rpc} answers ${described(answer)}`);
}

/** None where the chain cannot be read: XR-3 says so. */
function readSvid(svid: X509SVID): readonly ReadSvid[] {
  if (chainProblem(svid) !== undefined) return [];
  const certificates = splitX509Chain(svid.x509Svid);
  const chain = certificates.map((der) => parseCertificate(der));
  const [leaf] = chain;
  const [der] = certificates;
  return leaf === undefined || der === undefined ? [] : [{ svid, chain, leaf, der }];
}

function nothingIfNoVerdict(thrown: unknown): undefined {
  if (thrown instanceof Skipped || thrown instanceof Failed) return undefined;
  throw thrown;
}

function once<T>(ask: () => Promise<T>): () => Promise<T> {
  let asked: Promise<T> | undefined;
  return () => {
    asked ??= ask();
    return asked;
  };
}
