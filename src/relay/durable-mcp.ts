import type { KeptAnswer } from "../durable/call-table.js";
import type { JsonRpcId } from "./mcp-message.js";
import { dataOf } from "./server-sent-events.js";

/** The response to the request `id` in `text`, without that id, byte for byte in its numbers; undefined if it holds none. */
export function responseWithoutId(text: string, id: JsonRpcId): string | undefined {
  const message = parsed(text);
  if (!isRecord(message) || message.id !== id || !("result" in message || "error" in message)) return undefined;
  const { id: _, ...kept } = exactly(text) as Record<string, unknown>;
  return JSON.stringify(kept);
}

/** The same of an event of a stream. */
export function responseInEvent(event: string, id: JsonRpcId): string | undefined {
  const data = dataOf(event);
  return data.trim() === "" ? undefined : responseWithoutId(data, id);
}

/** The body of an answer as the request `id` gets it: the response under its id, as the JSON or the stream of one event that it was. */
export function withId({ headers, body }: KeptAnswer, id: JsonRpcId): Buffer {
  const text = Buffer.from(body).toString("utf8");
  const message = parsed(text);
  // An answer of the server that was no response, such as an error of HTTP, is given as it was.
  if (!isRecord(message) || "id" in message) return Buffer.from(body);
  const response = JSON.stringify({ ...(exactly(text) as Record<string, unknown>), id });
  return Buffer.from(isEventStream(headers) ? `event: message\ndata: ${response}\n\n` : response);
}

export function isEventStream(headers: readonly string[]): boolean {
  const at = headers.findIndex((text, index) => index % 2 === 0 && text.toLowerCase() === "content-type");
  return at !== -1 && headers[at + 1]?.toLowerCase().startsWith("text/event-stream") === true;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Parses so that `JSON.stringify` writes every number as it was: 12345678901234567890, 1.0. */
function exactly(text: string): unknown {
  return parseWithSource(text, (_key, value, { source }) =>
    typeof value === "number" && source !== undefined ? rawJSON(source) : value,
  );
}

type Reviver = (key: string, value: unknown, context: { readonly source?: string }) => unknown;

/** Of ECMAScript 2026; the compiler's library does not have it yet. */
const { parse: parseWithSource, rawJSON } = JSON as unknown as {
  parse(text: string, reviver: Reviver): unknown;
  rawJSON(text: string): unknown;
};

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
