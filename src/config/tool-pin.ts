import { createHash } from "node:crypto";
import { canonicalize } from "json-canonicalize";

/** What a tool of an MCP server is pinned to in `agentid.lock`. */
export interface PinnedTool {
  /** Hex SHA-256 of its description, as `toolDigest` has it. */
  readonly sha256: string;
  /** JSON Schema of its arguments. */
  readonly inputSchema: unknown;
}

/** Service, tool, pin. */
export type PinnedTools = Readonly<Record<string, Readonly<Record<string, PinnedTool>>>>;

/** What a model is told of a tool, as `tools/list` answers it: as far as it makes the model do one thing or another. */
export interface ToolDescription {
  readonly name: string;
  readonly description?: unknown;
  readonly inputSchema?: unknown;
  readonly annotations?: unknown;
}

/**
 * Hex SHA-256 of the canonical JSON (RFC 8785) of name, description, inputSchema and annotations: the same for the same description however its keys
 * are ordered, another one for any other.
 */
export function toolDigest({ name, description, inputSchema, annotations }: ToolDescription): string {
  const described = { name, description: description ?? null, inputSchema: inputSchema ?? null };
  return createHash("sha256")
    .update(canonicalize({ ...described, annotations: annotations ?? null }))
    .digest("hex");
}

/** The pins of the tools that a server lists, sorted by name. */
export function pinsOf(tools: readonly ToolDescription[]): Readonly<Record<string, PinnedTool>> {
  const sorted = tools.toSorted((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  return Object.fromEntries(
    sorted.map((tool) => [tool.name, { sha256: toolDigest(tool), inputSchema: tool.inputSchema ?? {} }]),
  );
}
