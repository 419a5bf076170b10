import type { OutgoingHttpHeaders } from "node:http2";
import { SpiffeWorkloadAPIService as Api } from "../workload-api/generated/workload.js";
import type { Context } from "./context.js";
import { type Answer, type Method, nameOf, type Probe } from "./probe.js";
import { AUDIENCE } from "./token-parts.js";

/** A method of the standard, called as it should be. */
export interface StandardCall {
  readonly name: string;
  /** `metadata` instead of the right header. */
  ask(probe: Probe, metadata?: OutgoingHttpHeaders): Promise<Answer<unknown>>;
}

function callOf<Request, Response>(method: Method<Request, Response>, request: Request): StandardCall {
  return {
    name: nameOf(method),
    ask: (probe, metadata) => probe.ask(method, request, metadata === undefined ? {} : { metadata }),
  };
}

/** All seven, each with a request that should succeed. */
export async function standardCalls(context: Context): Promise<readonly StandardCall[]> {
  const [token] = await context.tokens().catch(() => []);
  return [
    callOf(Api.fetchX509Svid, {}),
    callOf(Api.fetchX509Bundles, {}),
    callOf(Api.fetchJwtsvid, { audience: [AUDIENCE], spiffeId: "" }),
    callOf(Api.fetchJwtBundles, {}),
    callOf(Api.validateJwtsvid, { audience: AUDIENCE, svid: token?.svid ?? "none" }),
    callOf(Api.fetchWitsvid, { spiffeId: "" }),
    callOf(Api.fetchWitBundles, {}),
  ];
}

/** Those of `calls` that do. */
export async function succeed(calls: readonly StandardCall[], probe: Probe): Promise<readonly StandardCall[]> {
  const answers = await Promise.all(calls.map((call) => call.ask(probe)));
  return calls.filter((_, index) => answers[index]?.ok === true);
}

/** Methods of the WIT profile, which is optional. */
export function isWit(name: string): boolean {
  return name.startsWith("FetchWIT");
}
