import { Refusal } from "../http/refusal.js";
import { cutEvents, dataOf, withData } from "./server-sent-events.js";

/** Whether the caller could be allowed to call the tool with this name with some arguments. */
export type ToolFilter = (tool: string) => boolean;

const MAX_LIST_BYTES = 16 * 1024 * 1024;

/**
 * Rewrites a response body on its way to the caller. `push` returns what may go out now, `end` the rest.
 * Throws Refusal `upstream-response` if the body is not what its content type says.
 */
export interface BodyRewriter {
  /** It only looks: what the head says of the bytes holds. */
  readonly keepsBytes?: true;
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
  const events = cutEvents();
  return {
    push(chunk) {
      const out = events.push(chunk).map((event) => filteredEvent(event, mayCall));
      if (events.pending > MAX_LIST_BYTES) throw tooLarge();
      return out.length === 0 ? undefined : Buffer.from(out.join(""));
    },
    // An event without its empty line is dropped by every client (HTML, server-sent events §9.2.6), so it is not passed on either.
    end: () => undefined,
  };
}

function filteredEvent(event: string, mayCall: ToolFilter): string {
  const text = dataOf(event);
  if (text.trim() === "") return event;
  const filtered = filteredText(text, mayCall);
  return filtered === text ? event : withData(event, filtered);
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
