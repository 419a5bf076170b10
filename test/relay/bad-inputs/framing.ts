import { type ChangedRequest, type Expected, refused, type Vector, type VectorClass } from "./vector.js";

const bad = (what: string, request: ChangedRequest, expected: Expected = refused("http-malformed")): Vector => ({
  what,
  request,
  expected,
});
const post = (headers: readonly string[], body: string): ChangedRequest => ({ method: "POST", headers, body });
const chunked = (body: string): ChangedRequest => post(["Transfer-Encoding: chunked"], body);
const breaksOff: Expected = { is: "breaks off" };
/** What would be a request of its own, were the bytes before it read in another way. */
const SECOND = "GET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n";
const ignored = {
  notFor: {
    documents: "no body is read: the document goes out, and the connection is closed behind it",
    "control API": "its one reader is Node's parser; nothing goes on from here to another",
  },
} as const;
const oneReader = {
  notFor: {
    documents: "documents are for everybody: there is nothing that a second header could claim",
    "control API": "it believes the kernel and no header",
  },
} as const;
const switched = {
  notFor: {
    WebSocket: "what comes behind a handshake belongs to the WebSocket",
    "CONNECT proxy": "what comes behind a CONNECT belongs to the tunnel",
  },
} as const;
const byGet = { at: { WebSocket: refused("websocket-handshake") } } as const;
const duplicate = (header: string, value: string): Vector => ({
  ...bad(`two of ${header}`, { headers: [`${header}: ${value}`, `${header}: other`] }, refused("header-duplicate")),
  ...oneReader,
});
const twin = (line: string): Vector => ({
  ...bad(`a twin, ${line}`, { headers: [line] }, refused("header-underscore-twin")),
  cause: "a header that is another one to servers that put headers into variables",
  ...oneReader,
});

export const framing: VectorClass = {
  name: "HTTP/1.1 framing",
  concerns: {
    "http service": true,
    "MCP service": true,
    "egress target": true,
    WebSocket: true,
    "CONNECT proxy": true,
    gRPC: "its frames are those of HTTP/2, a class of its own",
    TCP: "nothing of its bytes is read, and they go on as they are",
    "TCP over TLS": "nothing of its bytes is read, and they go on as they are",
    AuthZEN: true,
    documents: true,
    "control API": true,
  },
  vectors: (
    [
      ...[
        ...[
          duplicate("Authorization", "Bearer a"),
          duplicate("Content-Type", "application/json"),
          duplicate("DPoP", "a"),
        ],
        ...[duplicate("Mcp-Session-Id", "a"), duplicate("Cookie", "a=1"), duplicate("X-Api-Key", "a")],
        ...[duplicate("MCP-Protocol-Version", "2025-06-18"), duplicate("Mcp-Param-Region", "a")],
        ...[duplicate("Traceparent", "a"), duplicate("Range", "bytes=0-1"), duplicate("If-Match", "a")],
      ],
      ...[
        twin("Content_Type: text/x"),
        twin("Mcp_Session_Id: a"),
        twin("MCP_METHOD: a"),
        twin("mcp_param-region: a"),
        twin("Content.Type: text/x"),
      ],
      ...[twin("Transfer_Encoding: chunked"), twin("Content_Length: 3"), twin("X_Api_Key: a")],
      bad("an unknown transfer encoding", post(["Transfer-Encoding: xchunked"], "x"), refused("transfer-encoding")),
      bad(
        "two transfer encodings",
        post(["Transfer-Encoding: gzip, chunked"], "0\r\n\r\n"),
        refused("transfer-encoding"),
      ),
      bad("chunked twice", post(["Transfer-Encoding: chunked, chunked"], "0\r\n\r\n"), refused("transfer-encoding")),
      bad(
        "Transfer-Encoding given twice",
        post(["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], "0\r\n\r\n"),
        refused("transfer-encoding"),
      ),
      bad("the identity transfer encoding", post(["Transfer-Encoding: identity"], "x"), refused("transfer-encoding")),
      bad(
        "a quoted transfer encoding",
        post(['Transfer-Encoding: "chunked"'], "0\r\n\r\n"),
        refused("transfer-encoding"),
      ),
      bad("a vertical tab before chunked", post(["Transfer-Encoding: \x0bchunked"], "0\r\n\r\n")),
      bad(
        "Content-Length with Transfer-Encoding",
        post(["Content-Length: 3", "Transfer-Encoding: chunked"], "0\r\n\r\n"),
        refused("transfer-encoding"),
      ),
      bad(
        "Transfer-Encoding with Content-Length",
        post(["Transfer-Encoding: chunked", "Content-Length: 3"], "0\r\n\r\n"),
      ),
      bad(
        "Transfer-Encoding in HTTP/1.0",
        { raw: "POST {path} HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" },
        refused("transfer-encoding"),
      ),
      bad("two lengths", post(["Content-Length: 1", "Content-Length: 2"], "xx")),
      bad("two lengths that are one", post(["Content-Length: 1", "Content-Length: 1"], "x")),
      bad("two lengths in one line", post(["Content-Length: 1, 1"], "x")),
      bad("a signed length", post(["Content-Length: +1"], "x")),
      bad("a negative length", post(["Content-Length: -1"], "x")),
      bad("a hexadecimal length", post(["Content-Length: 0x1"], "x")),
      bad("a length with a fraction", post(["Content-Length: 1.0"], "x")),
      bad("a length beyond 2^64", post(["Content-Length: 99999999999999999999"], "x")),
      bad("an empty length", post(["Content-Length:"], "")),
      bad("a length with a space inside", post(["Content-Length: 1 1"], "x")),
      bad("a space before the colon", { headers: ["X-Thing : y"] }),
      bad("a space before the colon of Transfer-Encoding", post(["Transfer-Encoding : chunked"], "0\r\n\r\n")),
      bad("a header without a name", { headers: [": y"] }),
      bad("a header without a colon", { headers: ["X-Thing"] }),
      bad("a separator in a header's name", { headers: ["X(Thing): y"] }),
      bad("a folded header", { headers: ["X-Thing: y", " folded"] }),
      bad("a folded first header", { raw: "GET {path} HTTP/1.1\r\n X: y\r\nHost: {host}\r\n\r\n" }),
      bad("a folded Transfer-Encoding", post(["Transfer-Encoding:", " chunked"], "0\r\n\r\n")),
      bad("a NUL in a header", { headers: ["X-Thing: a\0b"] }),
      bad("a bare carriage return in a header", { headers: ["X-Thing: a\rX-Other: b"] }),
      bad("a bare line feed in a header", { headers: ["X-Thing: a\nX-Other: b"] }),
      bad("a control in a header", { headers: ["X-Thing: a\x01b"] }),
      bad("bare line feeds", { raw: "GET {path} HTTP/1.1\nHost: {host}\n\n" }),
      bad("bare carriage returns", { raw: "GET {path} HTTP/1.1\rHost: {host}\r\r" }),
      bad("HTTP/0.9", { raw: "GET {path}\r\n\r\n" }, refused("http-malformed", 505)),
      bad(
        "HTTP/0.9 by its number",
        { raw: "GET {path} HTTP/0.9\r\nHost: {host}\r\n\r\n" },
        refused("http-malformed", 505),
      ),
      bad(
        "HTTP/2 by its number",
        { raw: "GET {path} HTTP/2.0\r\nHost: {host}\r\n\r\n" },
        refused("http-malformed", 505),
      ),
      bad("HTTP/1.2", { raw: "GET {path} HTTP/1.2\r\nHost: {host}\r\n\r\n" }),
      bad("a version in lower case", { raw: "GET {path} http/1.1\r\nHost: {host}\r\n\r\n" }),
      bad("a version with a zero before it", { raw: "GET {path} HTTP/01.1\r\nHost: {host}\r\n\r\n" }),
      bad("two versions", { raw: "GET {path} HTTP/1.1 HTTP/1.1\r\nHost: {host}\r\n\r\n" }),
      {
        what: "two spaces in the request line",
        request: { raw: "GET  {path} HTTP/1.1\r\nHost: {host}\r\n\r\n" },
        // RFC 9112 §3: a recipient may split at white space. What goes on is written anew.
        expected: { is: "arrives" },
        notFor: {
          WebSocket: "its handshake is more than this request",
          "CONNECT proxy": "it takes no GET",
          "MCP service": "its calls are no GET",
          AuthZEN: "its questions are no GET",
          documents: "read as if it were one space, and nothing goes on from here",
          "control API": "read as if it were one space, and nothing goes on from here",
        },
      },
      bad("a tab in the request line", { raw: "GET\t{path} HTTP/1.1\r\nHost: {host}\r\n\r\n" }),
      bad("a space before the method", { raw: " GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n" }),
      bad("HTTP/2 by prior knowledge", { raw: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" }),
      bad("a TLS handshake inside", { raw: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" }),
      bad("PROXY protocol", { raw: "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n" }),
      { ...bad("a huge chunk", chunked(`fffffffffffffffff\r\nx\r\n0\r\n\r\n`), breaksOff), ...ignored },
      { ...bad("a negative chunk", chunked("-1\r\nx\r\n0\r\n\r\n"), breaksOff), ...ignored },
      { ...bad("a chunk's size with 0x", chunked("0x1\r\nx\r\n0\r\n\r\n"), breaksOff), ...ignored },
      { ...bad("a space before a chunk's size", chunked(" 1\r\nx\r\n0\r\n\r\n"), breaksOff), ...ignored },
      { ...bad("a space behind a chunk's size", chunked("1 \r\nx\r\n0\r\n\r\n"), breaksOff), ...ignored },
      { ...bad("a chunk without a size", chunked("\r\nx\r\n0\r\n\r\n"), breaksOff), ...ignored },
      { ...bad("a chunk longer than it says", chunked("1\r\nxyz\r\n0\r\n\r\n"), breaksOff), ...ignored },
      { ...bad("a chunk's end of a bare line feed", chunked("1\r\nx\n0\r\n\r\n"), breaksOff), ...ignored },
      { ...bad("a chunk's size ended by a bare line feed", chunked("1\nx\r\n0\r\n\r\n"), breaksOff), ...ignored },
      { ...bad("a bare line feed in a chunk's extension", chunked("1;a\nb\r\nx\r\n0\r\n\r\n"), breaksOff), ...ignored },
      {
        ...bad("chunk extensions without end", chunked(`1;${"a".repeat(20_000)}\r\nx\r\n0\r\n\r\n`), breaksOff),
        ...ignored,
      },
      { ...bad("a folded trailer", chunked("1\r\nx\r\n0\r\nX-A: b\r\n c\r\n\r\n"), breaksOff), ...ignored },
      bad(
        "more headers than any client sends",
        { headers: Array.from({ length: 120 }, (_, n) => `X-H${n}: 1`) },
        refused("header-count", 431),
      ),
      bad("headers of 40 KiB", { headers: [`X-Big: ${"x".repeat(40_000)}`] }, refused("header-count", 431)),
      { ...bad("garbage behind a sound request", { raw: "{sound}\0\0garbage\r\n\r\n" }, { is: "alone" }), ...switched },
      {
        ...bad(
          "a request of another version behind a sound one",
          { raw: `{sound}${SECOND.replace("HTTP/1.1", "HTTP/9.1")}` },
          { is: "alone" },
        ),
        ...switched,
      },
      bad(
        "CONNECT",
        { raw: "CONNECT evil.example:443 HTTP/1.1\r\nHost: {host}\r\n\r\n" },
        refused("upgrade-refused", 501),
      ),
      { ...bad("TRACE", { method: "TRACE" }, refused("method-refused", 501)), ...byGet },
      bad("a method that nobody knows", { method: "BREW" }),
      bad("a method in lower case", { raw: "get {path} HTTP/1.1\r\nHost: {host}\r\n\r\n" }),
      { ...bad("a method of WebDAV", { method: "PROPFIND" }, refused("method-refused", 501)), ...byGet },
      {
        ...bad("an Upgrade", { headers: ["Connection: Upgrade", "Upgrade: tcp"] }, refused("upgrade-refused", 501)),
        ...oneReader,
      },
      bad("an expectation that nobody knows", { headers: ["Expect: 200-ok"] }, refused("expectation", 417)),
    ] as readonly Vector[]
  ).map((vector) => (vector.what.startsWith("more headers") ? { ...vector, ...oneReader } : vector)),
};
