import type { AuthzenParts, EnforcementPoint, KnownService } from "./parts.js";
import type { Quadruple } from "./request-shape.js";

/** The resource types of COAZ-MCP's default mappings that stand for something at an MCP server. */
const AT_A_SERVER: ReadonlySet<string> = new Set(["tool", "mcp_server", "resource", "prompt", "task"]);

/**
 * A question in the shape of COAZ-MCP's default mappings (draft 1), in the words of our rules: a subject of type `identity` whose id is a SPIFFE ID is a
 * workload; a tool, resource, prompt, task or server is at one of our MCP services. Questions of any other shape are returned as they are. A string
 * says why the question cannot be understood.
 */
export function understood(question: Quadruple, point: EnforcementPoint, parts: AuthzenParts): Quadruple | string {
  const { subject, resource, action } = question;
  if (subject.type !== "identity") return question;
  if (!subject.id.startsWith("spiffe://")) return question;
  const named = { ...question, subject: { ...subject, type: "spiffe" } };
  if (!AT_A_SERVER.has(resource.type)) return named;
  const service = serverOf(question, point, parts);
  if (typeof service === "string") return service;
  if (resource.type !== "tool") {
    // Which resource, prompt or task it is, conditions see as the arguments that the method has.
    const args = argumentOf(resource.type, resource.id);
    const context = { ...question.context, args: { ...objectOrNothing(question.context?.args), ...args } };
    return { ...named, resource: { ...resource, type: "mcp", id: service.id }, context };
  }
  if (action.name !== "tools/call") return `${JSON.stringify(action.name)} is no action on a tool`;
  const properties = { ...resource.properties, tool: resource.id };
  return { ...named, resource: { type: "mcp-tool", id: service.id, properties } };
}

/**
 * The MCP service that is meant. The default mapping of `tools/call` names the tool alone: then it is what `context.server` or the resource's property
 * `server` names, else the service that asks, else the only one there is.
 */
function serverOf(
  { resource, context }: Quadruple,
  point: EnforcementPoint,
  { services }: AuthzenParts,
): KnownService | string {
  const servers = services().filter(({ protocol }) => protocol === "mcp");
  const said: unknown =
    resource.type === "mcp_server" ? resource.id : (resource.properties?.server ?? context?.server ?? undefined);
  if (said !== undefined) {
    const found = servers.find(({ id, name }) => said === id || said === name);
    return found ?? `agentid.yaml has no MCP server ${JSON.stringify(said)}`;
  }
  const own = servers.find(({ id }) => id === point.id);
  if (own !== undefined) return own;
  const [only, another] = servers;
  if (only !== undefined && another === undefined) return only;
  return `which MCP server the ${resource.type} belongs to is not said: give context.server`;
}

function argumentOf(type: string, id: string): Record<string, string> {
  if (type === "resource") return { uri: id };
  if (type === "prompt") return { name: id };
  return type === "task" ? { taskId: id } : {};
}

function objectOrNothing(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}
