import { refused, type Vector, type VectorClass } from "./vector.js";

const foreign = (what: string, ...headers: string[]): Vector => ({
  what,
  request: { headers },
  expected: refused("origin-foreign", 403),
});
const anybody = {
  documents: "public documents change nothing, and a page that may not read them learns nothing by asking",
  "control API": "no page reaches a Unix socket; what is forwarded to it says its origin or its host",
};
const typed = (what: string, type: string): Vector => ({
  what,
  request: { headers: [`Content-Type: ${type}`] },
  expected: refused("content-type", 415),
  at: { gRPC: refused("content-type", 415) },
  notFor: {
    "http service": "what a body of HTTP is, its service says; nothing is decided on it",
    "egress target": "what a body of HTTP is, its target says; nothing is decided on it",
    WebSocket: "a handshake has no body",
    documents: "no body is read",
    "control API": "no page reaches a Unix socket; what is forwarded to it says its origin or its host",
  },
});

/** A page in a browser on this machine. */
export const browser: VectorClass = {
  name: "browser and localhost",
  concerns: {
    "http service": true,
    "MCP service": true,
    "egress target": true,
    WebSocket: true,
    "CONNECT proxy":
      "no page can send CONNECT: it is a forbidden method (Fetch §2.2.1); what is none is refused in the class of CONNECT",
    gRPC: true,
    TCP: "a page can send requests of HTTP to it, which its service gets as the bytes that they are: known, and said in docs/relay.md",
    "TCP over TLS": "a page speaks no mutual TLS with it",
    AuthZEN: true,
    documents: true,
    "control API": true,
  },
  vectors: [
    foreign("a foreign Origin", "Origin: http://evil.example"),
    foreign("Origin: null (a sandboxed page)", "Origin: null"),
    foreign("our host as Origin on another port", "Origin: http://127.0.0.1:1"),
    foreign("our host as Origin by another scheme", "Origin: ftp://{host}"),
    foreign("our host with something behind it as Origin", "Origin: http://{host}.evil.example"),
    foreign("an extension's Origin", "Origin: chrome-extension://abcdefghijklmnop"),
    foreign("an empty Origin", "Origin:"),
    { ...foreign("a cross-site request without Origin", "Sec-Fetch-Site: cross-site"), notFor: anybody },
    { ...foreign("a request from another port's page without Origin", "Sec-Fetch-Site: same-site"), notFor: anybody },
    { ...foreign("a Sec-Fetch-Site that nobody knows", "Sec-Fetch-Site: friendly"), notFor: anybody },
    {
      what: "a preflight",
      request: {
        method: "OPTIONS",
        headers: ["Origin: http://evil.example", "Access-Control-Request-Method: POST"],
      },
      expected: refused("origin-foreign", 403),
    },
    {
      what: "a preflight for the local network",
      request: {
        method: "OPTIONS",
        headers: ["Origin: http://evil.example", "Access-Control-Request-Private-Network: true"],
      },
      expected: refused("origin-foreign", 403),
    },
    {
      what: "two Origins",
      request: { headers: ["Origin: http://{host}", "Origin: http://evil.example"] },
      expected: refused("header-duplicate"),
    },
    {
      what: "a WebSocket where there is none",
      cause: "a WebSocket",
      request: { headers: ["Connection: Upgrade", "Upgrade: websocket", "Origin: http://evil.example"] },
      expected: refused("upgrade-refused", 501),
      notFor: {
        "http service": "it takes WebSockets, of its own origin",
        WebSocket: "it is one",
        gRPC: "HTTP/2 has no Upgrade",
      },
    },
    {
      what: "a WebSocket of a foreign page",
      cause: "a WebSocket",
      request: {
        headers: [
          ...["Connection: Upgrade", "Upgrade: websocket", "Origin: http://evil.example"],
          ...["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
        ],
      },
      expected: refused("origin-foreign", 403),
      notFor: {
        "MCP service": "it takes no WebSocket",
        "egress target": "it takes no WebSocket",
        gRPC: "it takes no WebSocket",
        AuthZEN: "it takes no WebSocket",
        documents: "they take no WebSocket",
        "control API": "it takes no WebSocket",
      },
    },
    typed("a body of text/plain, which needs no preflight", "text/plain"),
    typed("a form, which needs no preflight", "application/x-www-form-urlencoded"),
    typed("a form of several parts", "multipart/form-data; boundary=x"),
    typed("JSON in another charset", "application/json; charset=utf-7"),
    typed("two media types", "application/json, text/plain"),
    typed("a media type that begins like JSON", "application/jsonp"),
  ],
};
