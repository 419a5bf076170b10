import type { AccessRequest, HttpFacts, McpFacts, TcpFacts } from "./access-request.js";

/** The one action that a tcp service has. */
export const CONNECT = "connect";

/** The AuthZEN question for one HTTP request: action `http:GET`, resource the service, its path among the properties. */
export function httpAccessRequest(facts: HttpFacts): AccessRequest {
  return {
    subject: subjectOf(facts),
    action: { name: `http:${facts.method}` },
    resource: { type: "http", id: facts.service, properties: { path: facts.path } },
    context: { query: facts.query ?? {}, protocol: facts.protocol ?? "http" },
  };
}

/** The AuthZEN question for one MCP message: action the JSON-RPC method, resource the server or, for `tools/call`, its tool. */
export function mcpAccessRequest(facts: McpFacts): AccessRequest {
  return {
    subject: subjectOf(facts),
    action: { name: facts.method },
    resource: {
      type: facts.tool === undefined ? "mcp" : "mcp-tool",
      id: facts.service,
      properties: facts.tool === undefined ? {} : { tool: facts.tool },
    },
    context: { args: facts.args ?? {} },
  };
}

/** The AuthZEN question for one TCP connection: action `connect`, resource the service. */
export function tcpAccessRequest(facts: TcpFacts): AccessRequest {
  return {
    subject: subjectOf(facts),
    action: { name: CONNECT },
    resource: { type: "tcp", id: facts.service, properties: {} },
    context: {},
  };
}

function subjectOf({ caller, callerIs }: HttpFacts | McpFacts | TcpFacts): AccessRequest["subject"] {
  if (caller === undefined) return { type: "none", id: "" };
  return { type: "spiffe", id: caller, ...(callerIs !== undefined && { properties: callerIs }) };
}
