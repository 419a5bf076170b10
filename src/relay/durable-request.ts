import { createHash } from "node:crypto";
import { canonicalize } from "json-canonicalize";
import type { IdempotentRoute } from "../config/config.js";
import type { KeyedRequest } from "../durable/call-table.js";
import type { Onward } from "../http/outgoing-call.js";
import type { RawHeaders } from "../http/request-headers.js";
import type { Json, JsonObject } from "../http/strict-json.js";
import type { Pause } from "../platform/turns.js";
import { jsonPieces } from "../policy/json-pieces.js";
import { matchesName, matchesSegments, parseNamePattern, parsePathPattern, segmentsOfPath } from "../policy/pattern.js";
import { type Exchange, filled } from "./exchange.js";
import type { AnswerHeaders } from "./forward.js";
import { pauseOf } from "./long-message.js";
import { type McpMessage, toolOf } from "./mcp-message.js";

/** A request with a key, read as a whole. */
export interface DurableRequest {
  readonly keyed: KeyedRequest;
  /** Of plain HTTP: read before it was decided, sent on as it is. */
  readonly body: Buffer | null;
  /** Whether it may be sent once more where nobody knows what became of the first time. */
  readonly mayRepeat: boolean;
  /** Set once it may be sent: what looks on at its answer. */
  observe: ((onward: Onward, answerHeaders?: AnswerHeaders) => Onward) | undefined;
}

/** RFC 9110 §9.2.1: these change nothing, and an answer given again would only be an old one. */
const SAFE = new Set(["GET", "HEAD", "OPTIONS", "QUERY"]);

/** What changes the meaning of a request beside method, path and body. Not what differs from try to try: credentials, traces, sessions, dates. */
const MEANING = new Set([
  "content-encoding",
  "content-language",
  "content-range",
  "content-type",
  "if-match",
  "if-modified-since",
  "if-none-match",
  "if-unmodified-since",
  "prefer",
  "range",
]);

/** Differs from try to try: where progress is reported to, and what it is traced as. */
const OF_ONE_TRY = new Set(["progressToken", "traceparent", "tracestate", "baggage"]);

/** Whether the key means something: the request changes something at the service. Of MCP that is a tool's call. */
export function isDurable({ service, request, message }: Exchange): boolean {
  if (service.protocol === "mcp") return message !== undefined && toolOf(message) !== undefined;
  return !SAFE.has(request.method);
}

export async function durableRequestOf(exchange: Exchange, key: string, body: Buffer | null): Promise<DurableRequest> {
  const { service, request, message } = exchange;
  const { id, launchedBy } = filled(exchange.caller, "caller");
  const { raw } = filled(exchange.target, "target");
  const { method } = request;
  return {
    keyed: {
      scope: digest([id.toString(), ...launchedBy], service.id.toString(), method, raw, key),
      caller: digest(id.toString()),
      fingerprint:
        message === undefined
          ? digest(method, raw, meaningOf(request.rawHeaders), bytesDigest(body))
          : message.written === undefined
            ? digest(method, raw, canonicalize(withoutTry(message)))
            : await digestInTurns([method, raw], withoutTry(message), pauseOf(exchange)),
    },
    body,
    mayRepeat: (service.idempotent ?? []).some((route) => isOn(route, exchange)),
    observe: undefined,
  };
}

function isOn(route: IdempotentRoute, { request, target, message }: Exchange): boolean {
  const tool = message && toolOf(message);
  if (tool !== undefined) return route.tool !== undefined && matchesName(parseNamePattern(route.tool), tool.name);
  if (route.tool !== undefined || message !== undefined) return false;
  if (route.method !== undefined && route.method !== request.method) return false;
  return (
    route.path === undefined ||
    matchesSegments(parsePathPattern(route.path), segmentsOfPath(filled(target, "target").path))
  );
}

function meaningOf(raw: RawHeaders): string[][] {
  const meant: string[][] = [];
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index]?.toLowerCase() ?? "";
    if (MEANING.has(name)) meant.push([name, raw[index + 1] ?? ""]);
  }
  return meant.sort(([a = ""], [b = ""]) => (a < b ? -1 : 1));
}

/** The message without what a second try has of its own: its id, and where its progress goes. */
function withoutTry({ json }: McpMessage): object {
  const { id: _, ...message } = json;
  const { params } = message;
  const meta = isObject(params) ? params._meta : undefined;
  if (!isObject(params) || !isObject(meta)) return message;
  const kept = Object.fromEntries(Object.entries(meta).filter(([name]) => !OF_ONE_TRY.has(name)));
  const { _meta, ...others } = params;
  return { ...message, params: Object.keys(kept).length === 0 ? others : { ...others, _meta: kept } };
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function bytesDigest(body: Buffer | null): string {
  return createHash("sha256")
    .update(body ?? "")
    .digest("hex");
}

const PIECE_CHARACTERS = 16 * 1024;
/** Key order means nothing in JSON: the canonical one is by UTF-16 (RFC 8785). */
const inOrder = (map: object): readonly string[] => Object.keys(map).sort();

/** What `digest` gives of these parts and, as the last one, the canonical JSON of `value`, without keeping the event loop. */
async function digestInTurns(parts: readonly unknown[], value: object, pause: Pause): Promise<string> {
  const hash = createHash("sha256").update(`${JSON.stringify(parts).slice(0, -1)},"`);
  for (const piece of jsonPieces(value, PIECE_CHARACTERS, inOrder)) {
    hash.update(JSON.stringify(piece).slice(1, -1));
    await pause();
  }
  return hash.update('"]').digest("hex");
}

/** JSON keeps the parts apart. */
function digest(...parts: readonly unknown[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}
