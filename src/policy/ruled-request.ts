import { CodedError } from "../coded-error.js";
import type { AccessRequest, Properties } from "./access-request.js";
import { CONNECT } from "./access-request-of.js";
import type { ConditionInput } from "./condition.js";
import { type IdentityParts, identityParts, isNormalisedPath, segmentsOfPath, uriParts } from "./pattern.js";
import type { KnownLabels } from "./policy-names.js";
import { propertiesIn, type RequestFacts } from "./request-facts.js";
import { methodName, type RuledRequest } from "./rule.js";

/**
 * The request as rules see it. Throws CodedError `request-invalid` for what no rule can speak of: an action that its resource does not have,
 * a `tools/call` without a tool, a path that two servers could read as two.
 */
export function ruledRequest(request: AccessRequest): RuledRequest {
  const { subject, action, resource } = request;
  const subjectType: unknown = subject?.type;
  const subjectId: unknown = subject?.id;
  if (!isName(subjectType) || subjectType === "none" || !isName(subjectId)) {
    throw new CodedError("request-invalid", "the caller has no identity");
  }
  const name: unknown = action?.name;
  if (!isName(name)) throw new CodedError("request-invalid", "the request names no action");
  const caller = subjectType === "spiffe" ? identityParts(subjectId) : undefined;
  const type: unknown = resource?.type;
  if (type === "http") return httpRequest(request, subjectType, subjectId, caller, name);
  if (type === "mcp" || type === "mcp-tool") return mcpRequest(request, subjectType, subjectId, caller, name);
  if (type === "tcp") return tcpRequest(request, subjectType, subjectId, caller, name);
  const id: unknown = resource?.id;
  if (!isName(type) || !isName(id)) throw new CodedError("request-invalid", "the request names no resource");
  return {
    ...{ subjectType, subjectId, caller, action: name },
    ...{ resourceType: type, resourceId: id, service: undefined, protocol: "entity" },
    ...NO_DETAIL,
  };
}

const NO_DETAIL = { tool: undefined, path: undefined, pathSegments: [], uri: undefined, prompt: undefined } as const;

function isName(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}

function httpRequest(
  { resource }: AccessRequest,
  subjectType: string,
  subjectId: string,
  caller: IdentityParts | undefined,
  name: string,
): RuledRequest {
  const service = identityParts(resource.id);
  const path: unknown = resource.properties?.path;
  if (!name.startsWith("http:") || name.length === "http:".length) {
    throw new CodedError("request-invalid", `${JSON.stringify(name)} is no action of an http service`);
  }
  if (typeof path !== "string" || !isNormalisedPath(path)) {
    throw new CodedError("request-invalid", "the path is missing or could be read as another path");
  }
  return {
    subjectType,
    subjectId,
    caller,
    resourceType: "http",
    resourceId: resource.id,
    service,
    protocol: "http",
    action: name,
    tool: undefined,
    path,
    pathSegments: segmentsOfPath(path),
    uri: undefined,
    prompt: undefined,
  };
}

function mcpRequest(
  request: AccessRequest,
  subjectType: string,
  subjectId: string,
  caller: IdentityParts | undefined,
  name: string,
): RuledRequest {
  const { resource } = request;
  if (name.startsWith("http:")) throw new CodedError("request-invalid", "an HTTP action on an MCP server");
  const service = identityParts(resource.id);
  const isCall = name === "tools/call";
  const tool: unknown = resource.properties?.tool;
  if (isCall && !isName(tool)) throw new CodedError("request-invalid", "tools/call names no tool");
  const isAboutResource = RESOURCE_METHODS.has(name);
  const isAboutPrompt = name === "prompts/get";
  const args = isAboutResource || isAboutPrompt ? propertiesIn(request.context?.args) : NOTHING;
  // A list of one text is that text to some servers.
  if (isAboutResource && !isName(args.uri)) throw new CodedError("request-invalid", `${name} names no resource`);
  if (isAboutPrompt && !isName(args.name)) throw new CodedError("request-invalid", `${name} names no prompt`);
  return {
    subjectType,
    subjectId,
    caller,
    resourceType: isCall ? "mcp-tool" : "mcp",
    resourceId: resource.id,
    service,
    protocol: "mcp",
    action: name,
    tool: isCall ? (tool as string) : undefined,
    path: undefined,
    pathSegments: NO_SEGMENTS,
    uri: isAboutResource ? uriParts(args.uri as string) : undefined,
    prompt: isAboutPrompt ? (args.name as string) : undefined,
  };
}

function tcpRequest(
  { resource }: AccessRequest,
  subjectType: string,
  subjectId: string,
  caller: IdentityParts | undefined,
  name: string,
): RuledRequest {
  if (name !== CONNECT)
    throw new CodedError("request-invalid", `${JSON.stringify(name)} is no action of a tcp service`);
  return {
    ...{ subjectType, subjectId, caller, action: name, protocol: "tcp" },
    ...{ resourceType: "tcp", resourceId: resource.id, service: identityParts(resource.id) },
    ...NO_DETAIL,
  };
}

/** Methods of MCP that are about the one resource in their `uri`. */
const RESOURCE_METHODS: ReadonlySet<string> = new Set([
  "resources/read",
  "resources/subscribe",
  "resources/unsubscribe",
]);
const NO_SEGMENTS: readonly string[] = [];
const NOTHING: Properties = {};

/** What a condition sees of the request. */
export function conditionInput(
  request: AccessRequest,
  ruled: RuledRequest,
  facts: RequestFacts,
  labels: KnownLabels,
): ConditionInput {
  const { caller, service } = ruled;
  const { user } = facts;
  return {
    args: propertiesIn(request.context?.args),
    caller: {
      id: ruled.subjectId,
      name: caller?.name ?? ruled.subjectId,
      trustDomain: caller?.trustDomain ?? "",
      evidence: facts.evidence ?? "",
      launchedBy: request.subject.properties?.launched_by ?? [],
      labels: labels.ofIdentity(caller),
    },
    subject: { type: ruled.subjectType, id: ruled.subjectId, properties: facts.propertiesOf("subject") },
    user: user === undefined ? NOTHING : { id: user.id, properties: user.properties },
    actors: facts.actors.map(({ id }) => id),
    action: { name: ruled.action, properties: facts.propertiesOf("action") },
    resource: {
      type: ruled.resourceType,
      id: ruled.resourceId,
      name: service?.name ?? ruled.resourceId,
      tool: ruled.tool ?? "",
      uri: ruled.uri?.text ?? "",
      prompt: ruled.prompt ?? "",
      labels: labels.ofService(service),
      properties: facts.propertiesOf("resource"),
    },
    request: {
      method: methodName(ruled.action),
      path: ruled.path ?? "",
      query: propertiesIn(request.context?.query),
    },
    context: otherContext(facts.context),
    now: new Date(facts.now),
  };
}

/** `args`, `query`, `user` and `actors` are variables of their own. */
function otherContext(context: Properties): Properties {
  const others = Object.keys(context).filter((key) => !OWN_VARIABLES.has(key));
  return others.length === 0 ? NOTHING : Object.fromEntries(others.map((key) => [key, context[key]]));
}

/** Members of the context that are not `context` in a condition, but variables of their own. */
export const OWN_VARIABLES: ReadonlySet<string> = new Set(["args", "query", "user", "actors"]);

/**
 * Methods of an MCP session that carry nothing which is not decided by itself elsewhere: whoever may do anything at all at a server may open a
 * session there and list its tools (the enforcement point shows only those that `couldAllowTool`).
 */
export function isSessionMethod(method: string): boolean {
  return SESSION_METHODS.has(method) || (method.startsWith("notifications/") && method.length < 100);
}

const SESSION_METHODS = new Set(["initialize", "server/discover", "ping", "tools/list"]);
