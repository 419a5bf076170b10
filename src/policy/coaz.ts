import type { AccessRequest, Properties } from "./access-request.js";

/**
 * The default mappings of COAZ-MCP (draft 1 of 2026-07): an MCP message as a question to any AuthZEN decision point. Written out by hand: each is one
 * expression that selects a parameter or a claim, so the outcome is what the binding's CEL would give, absent members included.
 */

/** The claims that the binding's mappings use: of an access token, or of the caller's SVID (`sub` is its SPIFFE ID, `aud` the server). */
export interface CallerClaims {
  readonly sub?: unknown;
  readonly aud?: unknown;
  readonly client_id?: unknown;
}

export interface McpRequest {
  /** Absent in a notification. */
  readonly id?: string | number;
  readonly method: string;
  readonly params?: Properties;
}

/** What an enforcement point does with a message. */
export type Mapped =
  | { readonly outcome: "ask"; readonly request: AccessRequest }
  /** "The PEP MUST NOT call the PDP and MUST allow it to proceed." */
  | { readonly outcome: "pass-through" }
  /** "Unknown methods MUST be denied": JSON-RPC −32001. */
  | { readonly outcome: "deny"; readonly reason: string }
  /** A parameter or claim that the mapping needs is not there: JSON-RPC −32602, and nothing proceeds. */
  | { readonly outcome: "mapping-error"; readonly reason: string };

type Resource = (params: Properties, server: string) => { readonly type: string; readonly id: unknown };

const server: Resource = (_, id) => ({ type: "mcp_server", id });
const named =
  (type: string, parameter: string): Resource =>
  (params) => ({ type, id: params[parameter] });

interface Mapping {
  readonly resource: Resource;
  /** Members beside the agent, from parameters that must be there. */
  readonly context?: (params: Properties) => Properties;
}

const DEFAULTS: ReadonlyMap<string, Mapping> = new Map<string, Mapping>([
  ["initialize", { resource: server, context: ({ protocolVersion }) => ({ protocol_version: protocolVersion }) }],
  ["tools/list", { resource: server }],
  ["tools/call", { resource: named("tool", "name") }],
  ["resources/list", { resource: server }],
  ["resources/read", { resource: named("resource", "uri") }],
  ["resources/subscribe", { resource: named("resource", "uri") }],
  ["resources/unsubscribe", { resource: named("resource", "uri") }],
  ["prompts/list", { resource: server }],
  ["prompts/get", { resource: named("prompt", "name") }],
  ["completion/complete", { resource: completed }],
  ["logging/setLevel", { resource: server, context: ({ level }) => ({ level }) }],
  ["tasks/list", { resource: server }],
  ["tasks/get", { resource: named("task", "taskId") }],
  ["tasks/result", { resource: named("task", "taskId") }],
  ["tasks/cancel", { resource: named("task", "taskId") }],
  // Ours, not the binding's: it knows no later revision of MCP than 2025-11-25. Both are about the server as a whole.
  ["server/discover", { resource: server }],
  ["subscriptions/listen", { resource: server }],
]);

/**
 * What to do about `message` of a caller with `claims`, at the server whose own resource identifier is `ownId`. Never throws; whatever is not certain does
 * not proceed. A `tools/call` without an `id` is no notification: only what is named `notifications/…` passes, and only without an `id`.
 */
export function coazMapping(message: McpRequest, claims: CallerClaims, ownId?: string): Mapped {
  const { id, method, params = {} } = message;
  if (method === "ping") return { outcome: "pass-through" };
  if (method.startsWith("notifications/")) {
    return id === undefined
      ? { outcome: "pass-through" }
      : { outcome: "deny", reason: `${method} with an id is no notification` };
  }
  const mapping = DEFAULTS.get(method);
  if (mapping === undefined) return { outcome: "deny", reason: `${JSON.stringify(method)} has no mapping` };
  if (id === undefined) return { outcome: "deny", reason: `${method} without an id is no request` };
  const { sub } = claims;
  if (!isName(sub)) return error("the claim sub is missing");
  const needsServer = mapping.resource === server;
  const audience = needsServer ? serverAmong(claims.aud, ownId) : "";
  if (audience === undefined) return error("the claim aud does not name this one server");
  const resource = mapping.resource(params, audience);
  if (!isName(resource.id)) return error(`${method} does not name the ${resource.type} it is about`);
  const more = mapping.context?.(params) ?? {};
  const absent = Object.keys(more).find((key) => more[key] === undefined);
  if (absent !== undefined) return error(`${method} has no ${absent}`);
  const context = { ...(claims.client_id !== undefined && { agent: claims.client_id }), ...more };
  return {
    outcome: "ask",
    request: {
      subject: { type: "identity", id: sub },
      action: { name: method },
      resource: { type: resource.type, id: resource.id },
      context,
    },
  };
}

/**
 * A question of our relay about an MCP message as COAZ-MCP asks it, for another decision point. The caller is the agent as well as the subject; the server is
 * named besides, since the default mapping of a tool does not say whose it is, and arguments go along.
 */
export function coazQuestion(request: AccessRequest): Mapped {
  const { subject, action, resource, context } = request;
  if (resource.type !== "mcp" && resource.type !== "mcp-tool") {
    return { outcome: "deny", reason: `${JSON.stringify(resource.type)} is nothing of MCP` };
  }
  const args = objectOrNothing(context?.args);
  const params = resource.type === "mcp-tool" ? { name: resource.properties?.tool, arguments: args } : args;
  // Notifications are asked about like all else here: what our own rules decide, another decision point may decide too.
  const claims = subject.type === "spiffe" ? { sub: subject.id, aud: resource.id, client_id: subject.id } : {};
  const mapped = coazMapping({ id: 0, method: action.name, params }, claims);
  if (mapped.outcome !== "ask") return mapped;
  const asked = mapped.request;
  return {
    outcome: "ask",
    request: {
      ...asked,
      ...(subject.properties && { subject: { ...asked.subject, properties: subject.properties } }),
      context: { ...asked.context, ...context, server: resource.id },
    },
  };
}

/** `ref/prompt` names a prompt; everything else, as the binding's expression has it, a resource. */
function completed({ ref }: Properties): { readonly type: string; readonly id: unknown } {
  const { type, name, uri } = objectOrNothing(ref);
  return type === "ref/prompt" ? { type: "prompt", id: name } : { type: "resource", id: uri };
}

/** "`resource.id` MUST be a single string": of several audiences the one that is this server. */
function serverAmong(aud: unknown, ownId: string | undefined): string | undefined {
  if (isName(aud)) return aud;
  if (!Array.isArray(aud)) return undefined;
  const own = aud.filter((each) => each === ownId);
  return own.length === 1 && isName(own[0]) ? own[0] : undefined;
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}

function objectOrNothing(value: unknown): Properties {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Properties) : {};
}

function error(reason: string): Mapped {
  return { outcome: "mapping-error", reason };
}
