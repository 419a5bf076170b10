import { SLOT } from "./json-differentials.js";
import { type ChangedRequest, type Expected, refused, type Vector, type VectorClass } from "./vector.js";

type Json = Record<string, unknown>;
const MODERN = "io.modelcontextprotocol/protocolVersion";

const rpc = (status: number, code: string, jsonRpc: number): Expected => ({ is: "refused", status, code, jsonRpc });
const invalid = rpc(400, "jsonrpc-invalid", -32600);
const mismatch = rpc(400, "mcp-header-mismatch", -32020);
const noMethod = rpc(200, "default", -32601);
const noTool = rpc(200, "default", -32602);

const vector = (what: string, request: ChangedRequest, expected: Expected): Vector => ({ what, request, expected });
const changed = (what: string, change: (call: Json) => unknown, expected: Expected = invalid): Vector =>
  vector(what, { message: (sound) => JSON.stringify(change(JSON.parse(sound) as Json)) }, expected);
const params = (call: Json, members: Json): Json => ({ ...call, params: { ...(call.params as Json), ...members } });
const named = (what: string, name: unknown, expected: Expected): Vector =>
  changed(what, (call) => params(call, { name }), expected);
const method = (what: string, value: unknown, expected: Expected = noMethod): Vector =>
  changed(what, (call) => ({ ...call, method: value }), expected);
const lie = (what: string, ...headers: string[]): Vector => vector(what, { headers }, mismatch);
const base64 = (text: string) => `=?base64?${Buffer.from(text).toString("base64")}?=`;
const plain = (what: string, request: ChangedRequest, expected: Expected): Vector => vector(what, request, expected);

export const mcpMessages: VectorClass = {
  name: "JSON-RPC and MCP",
  concerns: {
    "http service": "no message of MCP is read there",
    "MCP service": true,
    "egress target": "no target speaks MCP",
    WebSocket: "no message of MCP is read there",
    "CONNECT proxy": "no message of MCP is read there",
    gRPC: "no message of MCP is read there",
    TCP: "nothing of its bytes is read",
    "TCP over TLS": "nothing of its bytes is read",
    AuthZEN: "it takes no JSON-RPC",
    documents: "no body is read",
    "control API": "it takes no JSON-RPC",
  },
  vectors: [
    changed("a batch", (call) => [call], rpc(400, "jsonrpc-batch", -32600)),
    changed("an empty batch", () => [], rpc(400, "jsonrpc-batch", -32600)),
    {
      ...changed("a batch in a revision that knew batches", (call) => [call], rpc(400, "jsonrpc-batch", -32600)),
      request: { message: (sound) => `[${sound}]`, headers: ["MCP-Protocol-Version: 2025-03-26"] },
    },
    changed("tools/call without id", (call) => ({ ...call, id: undefined })),
    changed("an id of null", (call) => ({ ...call, id: null })),
    changed("an id of true", (call) => ({ ...call, id: true })),
    changed("an id that is an object", (call) => ({ ...call, id: {} })),
    changed("a fractional id", (call) => ({ ...call, id: 1.5 })),
    changed("no version", (call) => ({ ...call, jsonrpc: undefined })),
    changed("JSON-RPC 1.0", (call) => ({ ...call, jsonrpc: "1.0" })),
    changed("a version that is a number", (call) => ({ ...call, jsonrpc: 2 })),
    changed("an unknown member of the envelope", (call) => ({ ...call, methods: "x" })),
    changed("the method in another case only", ({ method, ...call }) => ({ ...call, Method: method })),
    changed("a request with a result", (call) => ({ ...call, result: {} })),
    changed("a request with an error", (call) => ({ ...call, error: { code: 1, message: "" } })),
    changed("params as a list", (call) => ({ ...call, params: ["get_invoice"] })),
    changed("params as text", (call) => ({ ...call, params: "get_invoice" })),
    changed("params of null", (call) => ({ ...call, params: null })),
    changed("params of another method as a list", (call) => ({ ...call, method: "tools/list", params: [] })),
    changed("a tool without name", (call) => ({ ...call, params: {} })),
    named("an empty name of a tool", "", invalid),
    named("a tool's name that is a list", ["get_invoice"], invalid),
    named("a tool's name that is a number", 7, invalid),
    named("a NUL behind a tool's name", "get_invoice\0", invalid),
    named("a line feed in a tool's name", "get_invoice\nX-A: b", invalid),
    named("an escape of the terminal in a tool's name", "get_invoice\x1b[2K", invalid),
    named("a space behind a tool's name", "get_invoice ", invalid),
    named("a no-break space before a tool's name", "\u00a0get_invoice", invalid),
    changed("a tool's name in another case of its key", (call) => ({ ...call, params: { Name: "get_invoice" } })),
    changed("arguments in another case of their key", (call) => ({
      ...call,
      params: { name: "get_invoice", Arguments: {} },
    })),
    changed("_meta in another case of its key", (call) => params(call, { _Meta: {} })),
    changed("arguments as text", (call) => params(call, { arguments: "{}" })),
    changed("arguments as a list", (call) => params(call, { arguments: [] })),
    changed("arguments of null", (call) => params(call, { arguments: null })),
    changed("a bare string", () => "tools/call"),
    changed("null", () => null),
    changed("neither request nor response", () => ({ jsonrpc: "2.0", id: 1 })),
    changed("a response with two outcomes", () => ({ jsonrpc: "2.0", id: 1, result: {}, error: {} })),
    changed("a response with params", () => ({ jsonrpc: "2.0", id: 1, result: {}, params: {} })),
    changed("a response without id", () => ({ jsonrpc: "2.0", result: {} })),
    changed("a response whose id is an object", () => ({ jsonrpc: "2.0", id: {}, result: {} })),
    changed("a result for nobody", () => ({ jsonrpc: "2.0", id: null, result: {} })),
    method("an empty method", "", invalid),
    method("a method that is a list", ["tools/call"], invalid),
    method("an unknown method", "tools/delete"),
    method("a method with a space behind it", "tools/call "),
    method("a method with a NUL behind it", "tools/call\0"),
    method("a method with a line feed behind it", "tools/call\n"),
    method("a method in another case", "Tools/Call"),
    method("a method with a backslash", "tools\\call"),
    method("a method with a slash too many", "tools//call"),
    method("a method with a dot segment", "x/../tools/call"),
    method("a method in full-width letters", "\uff54ools/call"),
    method("a method of the language server", "$/cancelRequest"),
    method("a method of JSON-RPC itself", "rpc.discover"),
    method("a server's method", "sampling/createMessage"),
    changed(
      "a notification that no server knows",
      () => ({ jsonrpc: "2.0", method: "tools/list" }),
      refused("default", 403),
    ),
    changed(
      "a notification that leads out of its family",
      () => ({ jsonrpc: "2.0", method: "notifications/../tools/call" }),
      refused("default", 403),
    ),
    named("a tool that no rule allows", "drop_tables", noTool),
    named("a tool's name in another case", "Get_Invoice", noTool),
    named("a tool's name that looks alike (Cyrillic)", "get_inv\u043eice", noTool),
    named("a tool's name in full-width letters", "get\uff3finvoice", noTool),
    named("a tool's name with a zero-width space", "get_\u200binvoice", noTool),
    named("a tool's name with a bidi override", "get_\u202einvoice", noTool),
    named("a tool's name with a prefix", "payments.get_invoice", noTool),
    named("a tool's name with something behind it", "get_invoice_all", noTool),
    named("a pattern as a tool's name", "get_*", noTool),
    changed(
      "a resource that no rule allows",
      (call) => ({ ...call, method: "resources/read", params: { uri: "a:b" } }),
      rpc(200, "default", 403),
    ),
    lie("Mcp-Method that lies", "Mcp-Method: ping"),
    lie("Mcp-Method in another case", "Mcp-Method: Tools/Call"),
    lie("an empty Mcp-Method", "Mcp-Method:"),
    lie("Mcp-Name that lies", "Mcp-Name: drop_tables"),
    lie("Mcp-Name in another case", "Mcp-Name: GET_INVOICE"),
    lie("an encoded Mcp-Name that lies", `Mcp-Name: ${base64("drop_tables")}`),
    lie("an encoded Mcp-Name without its padding", `Mcp-Name: ${base64("get_invoice").replace("=?=", "?=")}`),
    lie(
      "an encoded Mcp-Name with bits behind its last byte",
      `Mcp-Name: ${base64("get_invoice").replace("U=?=", "V=?=")}`,
    ),
    lie("an encoded Mcp-Name with a byte order mark", `Mcp-Name: ${base64("\ufeffget_invoice")}`),
    lie("an encoded Mcp-Name that is no UTF-8", "Mcp-Name: =?base64?/w==?="),
    lie("an encoding in another case", `Mcp-Name: ${base64("get_invoice").replace("base64", "BASE64")}`),
    lie("another encoding", "Mcp-Name: =?utf-8?B?Z2V0X2ludm9pY2U=?="),
    lie("Mcp-Param that repeats no argument", "Mcp-Param-Region: us-west1"),
    lie("an encoded Mcp-Param that repeats no argument", `Mcp-Param-Region: ${base64("us-west1")}`),
    lie("an empty Mcp-Param", "Mcp-Param-Region:"),
    {
      ...lie("Mcp-Param with a message that has no arguments"),
      request: {
        message: (sound) => JSON.stringify({ ...(JSON.parse(sound) as Json), method: "tools/list", params: {} }),
        headers: ["Mcp-Param-Slot: 1"],
      },
    },
    {
      ...lie("MCP-Protocol-Version older than the body's (downgrade)"),
      request: {
        message: (sound) => JSON.stringify(params(JSON.parse(sound) as Json, { _meta: { [MODERN]: "2026-07-28" } })),
        headers: ["MCP-Protocol-Version: 2025-03-26"],
      },
    },
    {
      ...lie("Mcp-Method with an answer to the server"),
      request: { message: () => '{"jsonrpc":"2.0","id":1,"result":{}}', headers: ["Mcp-Method: tools/call"] },
    },
    plain(
      "the method given twice",
      { message: (sound) => sound.replace("{", '{"method":"ping",') },
      rpc(400, "json-duplicate-key", -32700),
    ),
    plain("an encoded body", { headers: ["Content-Encoding: gzip"] }, refused("content-encoding", 415)),
    plain("the identity encoding", { headers: ["Content-Encoding: identity"] }, refused("content-encoding", 415)),
    plain(
      "more than 4 MiB",
      { message: (sound) => sound.replace(SLOT, `${SLOT},"x":"${"x".repeat(5_000_000)}"`) },
      refused("body-too-large", 413),
    ),
    plain("PUT", { method: "PUT" }, refused("method-refused", 405)),
    plain("HEAD", { method: "HEAD", headers: ["Connection: close"] }, refused("method-refused", 405)),
    plain(
      "GET for something else than events",
      { raw: "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\n\r\n" },
      refused("method-refused", 405),
    ),
    plain(
      "GET with a message",
      {
        raw: "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\nContent-Length: 2\r\n\r\n{}",
      },
      refused("method-refused", 400),
    ),
    plain(
      "DELETE with a message",
      { raw: "DELETE {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\n{}" },
      refused("method-refused", 400),
    ),
  ],
};
