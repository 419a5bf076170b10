import type { RequestListener } from "node:http";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { z } from "zod";

/**
 * An MCP server on the official SDK, stateless: a fresh server a request. `answers` chooses between JSON and server-sent events, the two
 * forms in which a tool list can come.
 */
export function paymentsServer(answers: "json" | "sse", executed: string[]): RequestListener {
  return (request, response) => {
    const server = new McpServer({ name: "payments", version: "1.0.0" });
    const text = (value: string) => ({ content: [{ type: "text" as const, text: value }] });
    server.registerTool("get_invoice", { inputSchema: { id: z.number() } }, ({ id }) => {
      executed.push(`get_invoice ${id}`);
      return text(`invoice ${id}`);
    });
    server.registerTool("issue_refund", { inputSchema: { invoice: z.number(), amount: z.number() } }, (args) => {
      executed.push(`issue_refund ${args.amount}`);
      return text(`refunded ${args.amount}`);
    });
    server.registerTool("drop_tables", { inputSchema: {} }, () => {
      executed.push("drop_tables");
      return text("dropped");
    });
    // Without a session id generator the transport is stateless.
    const transport = new StreamableHTTPServerTransport({ enableJsonResponse: answers === "json" });
    response.on("close", () => void transport.close());
    void server
      .connect(transport as Parameters<McpServer["connect"]>[0])
      .then(() => transport.handleRequest(request, response));
  };
}
