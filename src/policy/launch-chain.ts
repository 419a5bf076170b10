import { CodedError } from "../coded-error.js";
import type { AccessRequest } from "./access-request.js";

/** The longest chain of agents above a caller that is asked about. */
export const LONGEST_LAUNCH_CHAIN = 8;

/**
 * The same question about each agent that launched the caller, nearest first: a sub-agent is permitted what all of them are permitted.
 * Throws CodedError `request-invalid` for a chain that is no list of names, or longer than anything agentid launches.
 */
export function questionsAbove(request: AccessRequest): readonly AccessRequest[] {
  const above: unknown = request.subject?.properties?.launched_by;
  if (above === undefined) return [];
  if (!Array.isArray(above) || above.length > LONGEST_LAUNCH_CHAIN || above.some((id) => typeof id !== "string")) {
    throw new CodedError("request-invalid", "the chain of agents that launched the caller cannot be read");
  }
  const ids = above as readonly string[];
  return ids.map((id, index) => ({
    ...request,
    subject: { type: "spiffe", id, properties: { evidence: "launch", launched_by: ids.slice(index + 1) } },
  }));
}
