import { CodedError } from "../coded-error.js";
import type { AccessRequest, Properties } from "./access-request.js";
import type { ConditionInput } from "./condition.js";
import { identityParts, isNormalisedPath, segmentsOfPath } from "./pattern.js";
import { methodName, type RuledRequest } from "./rule.js";

/**
 * The request as rules see it. Throws CodedError `request-invalid` for what no rule can speak of: an action that its resource does not have,
 * a `tools/call` without a tool, a path that two servers could read as two.
 */
export function ruledRequest(request: AccessRequest): RuledRequest {
  const { subject, action, resource } = request;
  if (subject?.type !== "spiffe") throw new CodedError("request-invalid", "the caller has no identity");
  const name: unknown = action?.name;
  if (typeof name !== "string" || name === "") throw new CodedError("request-invalid", "the request names no action");
  const caller = identityParts(subject.id);
  const service = identityParts(resource.id);
  if (resource.type === "http") {
    const path: unknown = resource.properties?.path;
    if (!name.startsWith("http:") || name.length === "http:".length) {
      throw new CodedError("request-invalid", `${JSON.stringify(name)} is no action of an http service`);
    }
    if (typeof path !== "string" || !isNormalisedPath(path)) {
      throw new CodedError("request-invalid", "the path is missing or could be read as another path");
    }
    const pathSegments = segmentsOfPath(path);
    return { caller, service, protocol: "http", action: name, tool: undefined, path, pathSegments };
  }
  if (resource.type !== "mcp" && resource.type !== "mcp-tool") {
    throw new CodedError("request-invalid", "the resource is of no known type");
  }
  if (name.startsWith("http:")) throw new CodedError("request-invalid", "an HTTP action on an MCP server");
  const tool: unknown = resource.properties?.tool;
  if (name !== "tools/call") {
    return { caller, service, protocol: "mcp", action: name, tool: undefined, path: undefined, pathSegments: [] };
  }
  if (typeof tool !== "string" || tool === "") throw new CodedError("request-invalid", "tools/call names no tool");
  return { caller, service, protocol: "mcp", action: name, tool, path: undefined, pathSegments: [] };
}

const NOTHING: Properties = {};

/** What a condition sees of the request. */
export function conditionInput(request: AccessRequest, ruled: RuledRequest, now: Date): ConditionInput {
  return {
    args: propertiesOf(request.context?.args),
    caller: {
      id: ruled.caller.id,
      name: ruled.caller.name,
      trustDomain: ruled.caller.trustDomain,
      evidence: request.subject.properties?.evidence ?? "",
      launchedBy: request.subject.properties?.launched_by ?? [],
    },
    resource: { id: ruled.service.id, name: ruled.service.name, tool: ruled.tool ?? "" },
    request: {
      method: methodName(ruled.action),
      path: ruled.path ?? "",
      query: propertiesOf(request.context?.query),
    },
    now,
  };
}

function propertiesOf(value: unknown): Properties {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Properties) : NOTHING;
}

/**
 * Methods of an MCP session that carry nothing which is not decided by itself elsewhere: whoever may do anything at all at a server may open a
 * session there and list its tools (the enforcement point shows only those that `couldAllowTool`).
 */
export function isSessionMethod(method: string): boolean {
  return SESSION_METHODS.has(method) || (method.startsWith("notifications/") && method.length < 100);
}

const SESSION_METHODS = new Set(["initialize", "server/discover", "ping", "tools/list"]);
