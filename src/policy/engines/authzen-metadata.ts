import { CodedError } from "../../coded-error.js";
import { shownReason } from "../shown-reason.js";
import type { RemoteServer } from "./remote-call.js";

export interface AuthzenEndpoint {
  /** Path and query of `access_evaluation_endpoint`. */
  readonly path: string;
}

/**
 * Where the decision point evaluates requests, by its own metadata (Authorization API 1.0 §9). "The policy_decision_point value returned MUST be
 * identical to the Policy Decision Point identifier … if not, the data MUST NOT be used". Rejects with CodedError `engine-answer`.
 */
export async function findEvaluationEndpoint(server: RemoteServer, identifier: string): Promise<AuthzenEndpoint> {
  const { origin, pathname } = new URL(identifier);
  // The well-known part comes between host and path.
  const tenant = pathname === "/" ? "" : pathname;
  const { body } = await server.get(`/.well-known/authzen-configuration${tenant}`);
  const { policy_decision_point: said, access_evaluation_endpoint: endpoint } = (body ?? {}) as Readonly<
    Record<string, unknown>
  >;
  if (said !== identifier) {
    throw new CodedError(
      "engine-answer",
      `says in its metadata that it is ${shownReason(JSON.stringify(said) ?? "nobody")}, not ${identifier}`,
    );
  }
  if (typeof endpoint !== "string" || !URL.canParse(endpoint)) {
    throw new CodedError("engine-answer", "names no access_evaluation_endpoint in its metadata");
  }
  const url = new URL(endpoint);
  // Nothing is asked but what the configuration names.
  if (url.origin !== origin) throw new CodedError("engine-answer", `sends to ${url.origin}, which is another server`);
  return { path: `${url.pathname}${url.search}` };
}
