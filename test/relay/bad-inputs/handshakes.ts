import { type ChangedRequest, type Expected, refused, type Vector, type VectorClass } from "./vector.js";

const bad = (what: string, request: ChangedRequest, expected: Expected = refused("websocket-handshake")): Vector => ({
  ...{ what, request, expected },
});
const without = (what: string, name: string, expected?: Expected) => bad(what, { without: [name] }, expected);
const said = (what: string, ...headers: string[]) => bad(what, { headers });
const key = (bytes: number) => `Sec-WebSocket-Key: ${Buffer.alloc(bytes).toString("base64")}`;
const noUpgrade = refused("upgrade-refused", 501);
const foreign = refused("origin-foreign", 403);

/** A foreign page's handshake with a request behind it. */
const HIDDEN =
  "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: https://evil.example\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n";

/** Requests for a WebSocket that have more than one reading, or come from a page. */
export const handshakes: VectorClass = {
  name: "WebSocket handshake",
  concerns: {
    "http service": "the same listener, by another request: the kind WebSocket",
    "MCP service": "it takes no WebSocket: an Upgrade is refused in the class of framing",
    "egress target": "it takes no WebSocket: an Upgrade is refused in the class of framing",
    WebSocket: true,
    "CONNECT proxy": "it takes no WebSocket: an Upgrade is refused in the class of framing",
    gRPC: "HTTP/2 has no Upgrade",
    TCP: "nothing of its bytes is read",
    "TCP over TLS": "nothing of its bytes is read",
    AuthZEN: "it takes no WebSocket",
    documents: "they take no WebSocket",
    "control API": "it takes no WebSocket",
  },
  vectors: [
    bad("POST", { method: "POST" }),
    bad("HTTP/1.0", {
      raw: "GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    }),
    bad("an absolute target of ws", { target: "ws://{host}{path}" }, refused("target-form")),
    without("no key", "Sec-WebSocket-Key"),
    said("a key of 15 bytes", key(15)),
    said("a key of 17 bytes", key(17)),
    said("a key in another form of base64", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAB=="),
    said("a key that is no base64", "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="),
    said("two keys", key(16), key(16)),
    without("no version", "Sec-WebSocket-Version"),
    said("two versions", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13"),
    bad("version 8", { headers: ["Sec-WebSocket-Version: 8"] }, refused("websocket-handshake", 426)),
    bad("version 13 of many", { headers: ["Sec-WebSocket-Version: 13, 8"] }, refused("websocket-handshake", 426)),
    said("a body of known length", "Content-Length: 4"),
    said("a length of 00", "Content-Length: 00"),
    said("a body in chunks", "Transfer-Encoding: chunked"),
    said("a Connection that names the key", "Connection: Upgrade, Sec-WebSocket-Key"),
    said("a Connection that names what the relay adds", "Connection: Upgrade, X-Forwarded-Client-Cert"),
    without("no Connection", "Connection", noUpgrade),
    bad("Connection: keep-alive", { headers: ["Connection: keep-alive"] }, noUpgrade),
    bad("an Upgrade to bytes", { headers: ["Upgrade: tcp"] }, noUpgrade),
    bad("an Upgrade to one of two", { headers: ["Upgrade: websocket, h2c"] }, noUpgrade),
    bad("an Upgrade to HTTP/2 or it", { headers: ["Upgrade: h2c, websocket"] }, noUpgrade),
    bad("an Upgrade to a version of it", { headers: ["Upgrade: websocket/13"] }, noUpgrade),
    bad("two Upgrades", { headers: ["Upgrade: websocket", "Upgrade: websocket"] }, refused("header-duplicate")),
    bad("an Origin of the scheme of WebSockets", { headers: ["Origin: ws://{host}"] }, foreign),
    bad("bytes behind a handshake that is refused", { raw: HIDDEN }, foreign),
  ],
};
