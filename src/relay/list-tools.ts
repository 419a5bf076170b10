import { Agent, fetch } from "undici";
import { CodedError, messageOf } from "../coded-error.js";
import type { ToolDescription } from "../config/tool-pin.js";
import type { RunningService } from "./running-service.js";
import { hostAndPort } from "./upstream.js";

const ANSWER_MS = 10_000;
const MAX_TOOLS = 10_000;

/**
 * Asks an MCP server itself, not through the relay, what its tools are, and reads the whole list. `path` is where it speaks MCP. Throws CodedError
 * `tools-unavailable` when it does not answer as an MCP server does.
 */
export async function listTools(service: RunningService, path: string): Promise<readonly ToolDescription[]> {
  if (service.upstream.kind === "mtls") {
    throw new CodedError(
      "tools-unavailable",
      `${service.name} speaks mutual TLS itself: its tools cannot be pinned yet`,
    );
  }
  const { upstream } = service;
  if (upstream.kind === "egress") throw new Error("an egress target has no tools that are pinned");
  const host = upstream.kind === "unix" ? "localhost" : hostAndPort(upstream.host, upstream.port);
  const dispatcher = new Agent({
    ...(upstream.kind === "unix" && { connect: { socketPath: upstream.path } }),
    headersTimeout: ANSWER_MS,
  });
  try {
    const { client, transport } = await mcpClient(new URL(path, `http://${host}`), (url, init) =>
      fetch(url, { ...(init as object), dispatcher }),
    );
    await client.connect(transport, { timeout: ANSWER_MS });
    const tools: ToolDescription[] = [];
    let cursor: string | undefined;
    do {
      const page = await client.listTools(cursor === undefined ? {} : { cursor }, { timeout: ANSWER_MS });
      tools.push(...page.tools);
      cursor = page.nextCursor;
    } while (cursor !== undefined && tools.length < MAX_TOOLS);
    await client.close();
    return tools;
  } catch (cause) {
    throw new CodedError("tools-unavailable", `${service.name} does not list its tools: ${messageOf(cause)}`, {
      cause,
    });
  } finally {
    await dispatcher.destroy();
  }
}

type Fetch = (url: string | URL, init?: unknown) => Promise<unknown>;

/** Loaded when it is needed: the protocol's library is large, and a start must not wait for it. */
async function mcpClient(url: URL, fetchUpstream: Fetch) {
  const [{ Client }, { StreamableHTTPClientTransport }] = await Promise.all([
    import("@modelcontextprotocol/sdk/client/index.js"),
    import("@modelcontextprotocol/sdk/client/streamableHttp.js"),
  ]);
  const transport = new StreamableHTTPClientTransport(url, { fetch: fetchUpstream as typeof globalThis.fetch });
  return { client: new Client({ name: "agentid", version: "1" }), transport };
}
