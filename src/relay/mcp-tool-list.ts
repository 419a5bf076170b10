import { Refusal } from "../http/refusal.js";

/** Whether the caller could be allowed to call the tool with this name with some arguments. */
export type ToolFilter = (tool: string) => boolean;

const MAX_LIST_BYTES = 16 * 1024 * 1024;

/**
 * Rewrites a response body on its way to the caller. `push` returns what may go out now, `end` the rest.
 * Throws Refusal `upstream-response` if the body is not what its content type says.
 */
export interface BodyRewriter {
  push(chunk: Buffer): Buffer | undefined;
  end(): Buffer | undefined;
}

/** Filters the tool list in a JSON response: held back until it is complete. MCP lets lists vary by the authorization presented. */
export function jsonToolListRewriter(mayCall: ToolFilter): BodyRewriter {
  const chunks: Buffer[] = [];
  let size = 0;
  return {
    push(chunk) {
      size += chunk.length;
      if (size > MAX_LIST_BYTES) throw tooLarge();
      chunks.push(chunk);
      return undefined;
    },
    end: () => (size === 0 ? undefined : Buffer.from(filteredText(Buffer.concat(chunks).toString("utf8"), mayCall))),
  };
}

/**
 * Filters tool lists in a stream of server-sent events; every other event passes on, also requests that the server sends to the
 * client (sampling, elicitation) and notifications: they are part of the call that was allowed. An event goes out as soon as it ends.
 */
export function sseToolListRewriter(mayCall: ToolFilter): BodyRewriter {
  const decoder = new TextDecoder("utf-8");
  // An event ends at an empty line; lines end in LF, CR or CRLF.
  const boundary = /\r\n\r\n|\n\n|\r\r(?!\n)|\n\r\n|\r\n\n/g;
  let pending = "";
  let searched = 0;
  const drain = (last: boolean): Buffer | undefined => {
    let out = "";
    for (;;) {
      boundary.lastIndex = searched;
      if (!boundary.test(pending)) break;
      out += filteredEvent(pending.slice(0, boundary.lastIndex), mayCall);
      pending = pending.slice(boundary.lastIndex);
      searched = 0;
    }
    // A boundary may have begun in the last three characters.
    searched = Math.max(0, pending.length - 3);
    if (pending.length > MAX_LIST_BYTES) throw tooLarge();
    if (last) pending = "";
    return out === "" ? undefined : Buffer.from(out);
  };
  return {
    push(chunk) {
      pending += decoder.decode(chunk, { stream: true });
      return drain(false);
    },
    // An event without its empty line is dropped by every client (HTML, server-sent events §9.2.6), so it is not passed on either.
    end: () => drain(true),
  };
}

function filteredEvent(event: string, mayCall: ToolFilter): string {
  const lines = event.split(/\r\n|\n|\r/);
  const data = lines.filter((line) => line === "data" || line.startsWith("data:"));
  const text = data.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
  if (text.trim() === "") return event;
  const filtered = filteredText(text, mayCall);
  if (filtered === text) return event;
  const others = lines.filter((line) => line !== "" && line !== "data" && !line.startsWith("data:"));
  return `${[...others, `data: ${filtered}`].join("\n")}\n\n`;
}

function filteredText(text: string, mayCall: ToolFilter): string {
  let message: unknown;
  try {
    message = JSON.parse(text);
  } catch (cause) {
    throw new Refusal("upstream-response", 502, "the service answered with something that is not JSON", { cause });
  }
  const changed = Array.isArray(message)
    ? message.map((one) => filterMessage(one, mayCall)).some(Boolean)
    : filterMessage(message, mayCall);
  return changed ? JSON.stringify(message) : text;
}

/** Removes from `message`, in place, the tools that the caller can never call; true if it held a list at all. */
function filterMessage(message: unknown, mayCall: ToolFilter): boolean {
  if (!isRecord(message) || !isRecord(message.result) || !Array.isArray(message.result.tools)) return false;
  const result = message.result;
  result.tools = message.result.tools.filter(
    (tool: unknown) => isRecord(tool) && typeof tool.name === "string" && mayCall(tool.name),
  );
  // MCP 2026-07-28, caching: what differs by caller must not be kept for others.
  if ("cacheScope" in result || "ttlMs" in result) result.cacheScope = "private";
  return true;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function tooLarge(): Refusal {
  return new Refusal("upstream-response", 502, `the tool list is larger than ${MAX_LIST_BYTES / 1024 / 1024} MiB`);
}
