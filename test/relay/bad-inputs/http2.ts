import type { Head } from "../raw-http2.js";
import { type Expected, refused, type Vector, type VectorClass } from "./vector.js";

type Changes = Readonly<Record<string, string | undefined>>;

/** What the parser of HTTP/2 lets through: the relay refuses it, on record. */
const bad = (what: string, code: string, changes: Changes, ...more: Head): Vector => ({
  ...{ what, request: { fields: { changes, more } }, expected: refused(code) },
});
/** What nghttp2 refuses before anybody sees it. */
const reset = (what: string, changes: Changes, ...more: Head): Vector => ({
  ...{ what, request: { fields: { changes, more } }, expected: { is: "reset" } satisfies Expected },
});
const field = (name: string, value: string) => reset(`the field ${name}`, {}, [name, value]);
const none: Changes = {};
const noFields: Changes = { te: undefined, "content-type": undefined };

/** Heads of HTTP/2 (RFC 9113 §8) and of gRPC that have more than one reading, or none. Floods of frames: test/relay/bad-http2.test.ts. */
export const http2Heads: VectorClass = {
  name: "HTTP/2 and gRPC",
  concerns: {
    "http service": "it takes no HTTP/2: its preface is refused in the class of framing",
    "MCP service": "it takes no HTTP/2: its preface is refused in the class of framing",
    "egress target": "it takes no HTTP/2: its preface is refused in the class of framing",
    WebSocket: "it takes no HTTP/2: its preface is refused in the class of framing",
    "CONNECT proxy": "it takes no HTTP/2: its preface is refused in the class of framing",
    gRPC: true,
    TCP: "nothing of its bytes is read",
    "TCP over TLS": "nothing of its bytes is read",
    AuthZEN: "it takes no HTTP/2: its preface is refused in the class of framing",
    documents: "it takes no HTTP/2: its preface is refused in the class of framing",
    "control API": "it takes no HTTP/2: its preface is refused in the class of framing",
  },
  vectors: [
    bad("a query", "target-form", { ":path": "/shop.Ledger/Get?x=1" }),
    bad("a third segment", "target-form", { ":path": "/shop.Ledger/Get/x" }),
    bad("one segment", "target-form", { ":path": "/Get" }),
    bad("GET", "method-refused", { ":method": "GET" }),
    bad("the scheme file", "http-malformed", { ":scheme": "file" }),
    bad("a Host that differs from its authority", "host-unknown", none, ["host", "evil.example"]),
    bad("an authority that differs from its good Host", "host-unknown", { ":authority": "evil.example" }, [
      "host",
      "{host}",
    ]),
    bad("a Host in place of an authority", "http-malformed", { ":authority": undefined }, ["host", "{host}"]),
    bad("a tunnel", "upgrade-refused", { ":method": "CONNECT", ":scheme": undefined, ":path": undefined }),
    bad("two credentials", "header-duplicate", none, ["authorization", "a"], ["authorization", "b"]),
    bad("a twin of another field", "header-underscore-twin", none, ["content_type", "text/x"]),
    bad("no content type", "content-type", { "content-type": undefined }),
    bad("JSON", "content-type", { "content-type": "application/json" }),
    bad("gRPC-Web", "content-type", { "content-type": "application/grpc-web" }),
    bad("a content type that begins like gRPC's", "content-type", { "content-type": "application/grpcx" }),
    bad(
      "a compressed head of HTTP",
      "header-duplicate",
      none,
      ["content-encoding", "gzip"],
      ["content-encoding", "br"],
    ),
    reset("a name in upper case", none, ["X-Thing", "y"]),
    field("connection", "close"),
    field("keep-alive", "1"),
    field("proxy-connection", "keep-alive"),
    field("transfer-encoding", "chunked"),
    field("upgrade", "h2c"),
    reset("te other than trailers", { te: "gzip" }),
    reset("a pseudo-header field at the end", { ":path": undefined }, [":path", "/shop.Ledger/Get"]),
    reset("two paths", noFields, [":path", "/shop.Ledger/Secret"]),
    reset("two authorities", noFields, [":authority", "{host}"]),
    reset("two methods", noFields, [":method", "GET"]),
    reset("a pseudo-header field that is none", noFields, [":thing", "x"]),
    reset("one of answers", noFields, [":status", "200"]),
    reset("no path", { ":path": undefined }),
    reset("an empty path", { ":path": "" }),
    reset("no method", { ":method": undefined }),
    reset("no scheme", { ":scheme": undefined }),
    reset("an extended CONNECT", { ":method": "CONNECT", ...noFields }, [":protocol", "websocket"]),
    reset("the path of a whole server", { ":path": "*" }),
    reset("an absolute path", { ":path": "http://{host}/shop.Ledger/Get" }),
    reset("a user in the authority", { ":authority": "user@{host}" }),
  ],
};
