import type { BodyBytes } from "../http/body-bytes.js";
import { Refusal } from "../http/refusal.js";
import type { RawHeaders } from "../http/request-headers.js";
import { headerOf } from "../http/request-headers.js";
import { isLong, type Json, type JsonObject, parseStrictJson, parseStrictJsonInTurns } from "../http/strict-json.js";
import type { Pause } from "../platform/turns.js";
import { isMcpNotification, isMcpRequest } from "../policy/mcp-methods.js";

export type JsonRpcId = string | number;

/**
 * A JSON-RPC message of MCP as the relay decides on it. Both eras look alike here: the stateful revisions up to 2025-11-25 and the
 * stateless 2026-07-28; the body decides, headers may only agree (D18).
 */
export type McpMessage = (
  | {
      readonly kind: "request";
      readonly id: JsonRpcId;
      readonly method: string;
      readonly params: JsonObject;
      readonly json: JsonObject;
    }
  | { readonly kind: "notification"; readonly method: string; readonly params: JsonObject; readonly json: JsonObject }
  /** The client's answer to a request that the server sent inside a stream (sampling, elicitation, roots). */
  | { readonly kind: "response"; readonly json: JsonObject }
) & {
  /** Of a long one: how it goes on, written out before it was decided. */
  readonly written?: Buffer;
};

/**
 * What lets a message through. `rule`: the decision point is asked about the method, for `tools/call` about the tool and its arguments
 * (it opens `initialize`, `tools/list` and the like to whoever a rule lets do anything there). `reach`: it carries no method, it is enough
 * that the caller may reach the service. `never`: no revision of MCP has this method.
 */
export type McpGate = "rule" | "reach" | "never";

const NONE: JsonObject = Object.freeze(Object.create(null) as JsonObject);
const ENVELOPE = new Set(["jsonrpc", "id", "method", "params", "result", "error"]);

const ID = 'the member "id" must be a string or an integer';
/** A text that names something is matched, shown and answered as a whole: nobody needs a longer one. */
const MAX_NAME_LENGTH = 256 * 1024;
const MAX_URI_LENGTH = 16_384;
/** White space at an end, and controls anywhere: what one server trims, another compares. */
const UNCLEAN_NAME = /^\s|\s$|\p{Cc}/u;
const PARAMETER = "mcp-param-";

export function gateOf(message: McpMessage): McpGate {
  if (message.kind === "response") return "reach";
  const known = message.kind === "notification" ? isMcpNotification(message.method) : isMcpRequest(message.method);
  return known ? "rule" : "never";
}

/** Parses the body of a POST and holds the headers against it. Throws Refusal (400) with the JSON-RPC code for its cause. */
export function parseMcpMessage(body: Buffer, headers: RawHeaders): McpMessage {
  const message = messageOf(parseStrictJson(body));
  checkHeaders(message, headers);
  return message;
}

/** The same of a body of any length, without keeping the event loop. */
export async function parseMcpMessageInTurns(body: BodyBytes, headers: RawHeaders, pause: Pause): Promise<McpMessage> {
  if (!isLong(body)) return parseMcpMessage(body.bytes(), headers);
  const message = messageOf(await parseStrictJsonInTurns(body, pause));
  await pause();
  const repeated = parametersIn(headers);
  if (repeated.length > 0) checkParameters(repeated, await scalarsInTurns(toolOf(message)?.args ?? NONE, pause));
  checkOwnHeaders(message, headers);
  return message;
}

/** The tool that a `tools/call` names, and its arguments. */
export function toolOf(message: McpMessage): { name: string; args: JsonObject } | undefined {
  if (message.kind !== "request" || message.method !== "tools/call") return undefined;
  const { name, arguments: args } = message.params;
  return { name: name as string, args: (args as JsonObject | undefined) ?? NONE };
}

function messageOf(json: Json): McpMessage {
  if (Array.isArray(json)) {
    throw new Refusal("jsonrpc-batch", 400, "batches are refused: send one message", { jsonRpcCode: -32600 });
  }
  if (!isObject(json)) throw invalid("the body is not a JSON-RPC message");
  for (const member of Object.keys(json)) {
    if (!ENVELOPE.has(member)) throw invalid(`a JSON-RPC message has no member ${JSON.stringify(member)}`);
  }
  if (json.jsonrpc !== "2.0") throw invalid('the member "jsonrpc" must be "2.0"');
  const { id, method, params } = json;
  if (method === undefined) return responseOf(json);
  if (json.result !== undefined || json.error !== undefined) throw invalid("a request has no result");
  if (typeof method !== "string" || method === "") throw invalid('the member "method" must be a string');
  if (method.length > MAX_NAME_LENGTH) throw tooLong("method", MAX_NAME_LENGTH);
  if (params !== undefined && !isObject(params)) throw invalid('the member "params" must be an object');
  checkNames(params ?? NONE, id);
  if (method === "tools/call") checkToolCall(params ?? NONE, id);
  if (id === undefined) return { kind: "notification", method, params: params ?? NONE, json };
  if (!isId(id)) throw invalid(ID);
  return { kind: "request", id, method, params: params ?? NONE, json };
}

function isId(id: Json): id is JsonRpcId {
  return typeof id === "string" || (typeof id === "number" && Number.isInteger(id));
}

function checkNames({ name, uri, taskId }: JsonObject, id: Json | undefined): void {
  for (const [member, value] of Object.entries({ id, name, taskId })) {
    if (typeof value === "string" && value.length > MAX_NAME_LENGTH) throw tooLong(member, MAX_NAME_LENGTH);
  }
  if (typeof uri === "string" && uri.length > MAX_URI_LENGTH) throw tooLong("uri", MAX_URI_LENGTH);
}

function tooLong(member: string, most: number): Refusal {
  return invalid(`the member ${JSON.stringify(member)} may have at most ${most} characters`);
}

function responseOf(json: JsonObject): McpMessage {
  const answers = (json.result !== undefined ? 1 : 0) + (json.error !== undefined ? 1 : 0);
  if (answers !== 1 || json.params !== undefined || json.id === undefined) {
    throw invalid("the body is neither a request nor a response");
  }
  // JSON-RPC 2.0 §5: null where the server's own request could not be read.
  if (!isId(json.id) && !(json.id === null && json.error !== undefined)) throw invalid(ID);
  return { kind: "response", json };
}

function checkToolCall(params: JsonObject, id: Json | undefined): void {
  // A server that runs a call sent as a notification would run it without anybody seeing an answer.
  if (id === undefined) throw invalid('"tools/call" without an "id" is refused');
  for (const key of Object.keys(params)) {
    const plain = key.toLowerCase();
    if (key !== plain && (plain === "name" || plain === "arguments" || plain === "_meta")) {
      throw invalid(`the parameter ${JSON.stringify(key)} can be taken for "${plain}"`);
    }
  }
  if (typeof params.name !== "string" || params.name === "") throw invalid('"tools/call" needs the "name" of a tool');
  if (UNCLEAN_NAME.test(params.name)) throw invalid("the name of a tool holds a control or ends in white space");
  if (params.arguments !== undefined && !isObject(params.arguments)) throw invalid('"arguments" must be an object');
}

/** MCP 2026-07-28, Streamable HTTP, Server Validation: `Mcp-Method`, `Mcp-Name`, `Mcp-Param-*` and `MCP-Protocol-Version` must equal the body. */
function checkHeaders(message: McpMessage, headers: RawHeaders): void {
  const repeated = parametersIn(headers);
  if (repeated.length > 0) checkParameters(repeated, new Set(scalarsIn(toolOf(message)?.args ?? NONE)));
  checkOwnHeaders(message, headers);
}

function checkOwnHeaders(message: McpMessage, headers: RawHeaders): void {
  const method = headerOf(headers, "mcp-method");
  const name = headerOf(headers, "mcp-name");
  if (message.kind === "response") {
    if (method !== undefined || name !== undefined) throw mismatch("Mcp-Method");
    return;
  }
  if (method !== undefined && method !== message.method) throw mismatch("Mcp-Method");
  if (name !== undefined && decodedHeader(name) !== namedBy(message.method, message.params)) throw mismatch("Mcp-Name");
  const version = headerOf(headers, "mcp-protocol-version");
  const meta = message.params._meta;
  const inBody = isObject(meta) ? meta["io.modelcontextprotocol/protocolVersion"] : undefined;
  if (inBody !== undefined && version !== undefined && inBody !== version) throw mismatch("MCP-Protocol-Version");
}

interface RepeatedParameter {
  readonly header: string;
  readonly value: string | undefined;
}

const NO_PARAMETERS: readonly RepeatedParameter[] = [];

function parametersIn(headers: RawHeaders): readonly RepeatedParameter[] {
  let found: RepeatedParameter[] | undefined;
  for (let index = 0; index < headers.length; index += 2) {
    const header = headers[index] ?? "";
    if (!header.toLowerCase().startsWith(PARAMETER)) continue;
    found ??= [];
    found.push({ header, value: decodedHeader(headers[index + 1] ?? "") });
  }
  return found ?? NO_PARAMETERS;
}

/** Which argument `Mcp-Param-X` repeats stands in the tool's schema, which only the service knows; that it repeats one can be told here. */
function checkParameters(repeated: readonly RepeatedParameter[], values: ReadonlySet<string | undefined>): void {
  for (const { header, value } of repeated) {
    if (value === undefined || !values.has(value)) throw mismatch(header);
  }
}

/** The texts of all values that hold no others; nothing for those that do. */
function* scalarsIn(json: Json): Generator<string | undefined> {
  yield typeof json === "object" ? undefined : String(json);
  if (typeof json !== "object" || json === null) return;
  if (Array.isArray(json)) for (const member of json) yield* scalarsIn(member);
  else for (const key of Object.keys(json)) yield* scalarsIn((json as JsonObject)[key] as Json);
}

const VALUES_A_TURN = 2_048;

async function scalarsInTurns(json: Json, pause: Pause): Promise<ReadonlySet<string | undefined>> {
  const found = new Set<string | undefined>();
  let left = VALUES_A_TURN;
  for (const scalar of scalarsIn(json)) {
    found.add(scalar);
    left -= 1;
    if (left > 0) continue;
    await pause();
    left = VALUES_A_TURN;
  }
  return found;
}

function namedBy(method: string, params: JsonObject): Json | undefined {
  if (method === "resources/read" || method.startsWith("resources/")) return params.uri;
  return method.startsWith("tasks/") ? params.taskId : params.name;
}

/** `=?base64?…?=` holds what a header cannot: UTF-8 outside ASCII. */
function decodedHeader(value: string): string | undefined {
  const encoded = /^=\?base64\?([A-Za-z0-9+/]*={0,2})\?=$/.exec(value);
  if (!encoded) return value;
  const bytes = Buffer.from(encoded[1] ?? "", "base64");
  // Other bits behind the last byte, or no padding: what one decoder takes, another does not.
  if (bytes.toString("base64") !== encoded[1]) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function invalid(message: string): Refusal {
  return new Refusal("jsonrpc-invalid", 400, message, { jsonRpcCode: -32600 });
}

function mismatch(header: string): Refusal {
  return new Refusal("mcp-header-mismatch", 400, `the header ${header} differs from the body`, { jsonRpcCode: -32020 });
}
