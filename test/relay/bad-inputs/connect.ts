import { type ChangedRequest, type Expected, refused, type Vector, type VectorClass } from "./vector.js";

const bad = (what: string, request: ChangedRequest, expected: Expected): Vector => ({ what, request, expected });
/** `Host` says the same: what is refused is refused for what it is. */
const form = (what: string, authority: string, expected: Expected = refused("authority-form")): Vector =>
  bad(what, { target: authority, host: authority }, expected);
/** Node's parser is stricter than the form. */
const malformed = (what: string, authority: string) => form(what, authority, refused("http-malformed"));
const unknown = (what: string, authority: string) => form(what, authority, refused("target-unknown", 403));
const host = (what: string, value: string) => bad(what, { host: value }, refused("host-mismatch"));
const other = (what: string, request: ChangedRequest, status: number) =>
  bad(what, request, refused("connect-only", status));
const AHEAD = "CONNECT evil.test:{port} HTTP/1.1\r\nHost: evil.test:{port}\r\n\r\nbytes ahead of the answer";

/** What asks the proxy for more than a target, or for a target in a form that another parser reads differently. */
export const connectRequests: VectorClass = {
  name: "CONNECT",
  concerns: {
    "http service": "it refuses CONNECT, in the class of framing",
    "MCP service": "it refuses CONNECT, in the class of framing",
    "egress target": "it refuses CONNECT, in the class of framing",
    WebSocket: "it refuses CONNECT, in the class of framing",
    "CONNECT proxy": true,
    gRPC: "it refuses CONNECT, in the class of HTTP/2",
    TCP: "nothing of its bytes is read",
    "TCP over TLS": "nothing of its bytes is read",
    AuthZEN: "it refuses CONNECT, in the class of framing",
    documents: "it refuses CONNECT, in the class of framing",
    "control API": "it refuses CONNECT, in the class of framing",
  },
  vectors: [
    form("a name in capitals", "TUNNEL.test:{port}"),
    form("a dot at the end", "tunnel.test.:{port}"),
    form("a user", "user@tunnel.test:{port}"),
    form("a user with a password", "user:pw@tunnel.test:{port}"),
    form("our name as the user of another", "tunnel.test:{port}@evil.test:{port}"),
    form("no port", "tunnel.test"),
    form("an empty port", "tunnel.test:"),
    form("port 0", "tunnel.test:0"),
    form("a port with a zero before it", "tunnel.test:0{port}"),
    form("a port beyond 65535", "tunnel.test:65536"),
    form("a port of six digits", "tunnel.test:100443"),
    form("two ports", "tunnel.test:1:{port}"),
    form("an empty label", "tunnel..test:{port}"),
    form("an empty first label", ".tunnel.test:{port}"),
    form("an encoded dot", "tunnel%2etest:{port}"),
    form("a zone", "[fe80::1%25eth0]:{port}"),
    form("a name in brackets", "[tunnel.test]:{port}"),
    form("a star", "*:{port}"),
    form("no name", ":{port}"),
    form("a URL", "https://tunnel.test:{port}"),
    form("a path behind it", "tunnel.test:{port}/"),
    form("a query behind it", "tunnel.test:{port}?x"),
    form("a path", "/tunnel.test:{port}"),
    malformed("full-width letters", "\xef\xbd\x94unnel.test:{port}"),
    unknown("another port of the target", "tunnel.test:22"),
    unknown("the standard port", "tunnel.test:443"),
    unknown("another name", "evil.test:{port}"),
    unknown("the address that the target has", "127.0.0.1:{port}"),
    unknown("that address in IPv6", "[::1]:{port}"),
    unknown("decimal IPv4", "2130706433:{port}"),
    unknown("hexadecimal IPv4", "0x7f000001:{port}"),
    unknown("short IPv4", "127.1:{port}"),
    unknown("octal IPv4", "0177.0.0.1:{port}"),
    unknown("IPv4-mapped IPv6", "[::ffff:127.0.0.1]:{port}"),
    unknown("a name that begins like the target's", "tunnel.test.evil.test:{port}"),
    unknown("a name that ends like the target's", "xtunnel.test:{port}"),
    unknown("localhost", "localhost:{port}"),
    unknown("a hyphen for the dot", "tunnel-test:{port}"),
    host("a Host without the port", "tunnel.test"),
    host("a Host that is another", "evil.test"),
    host("a Host with something behind it", "{host}x"),
    host("an empty Host", ""),
    bad("no Host", { raw: "CONNECT {path} HTTP/1.1\r\n\r\n" }, refused("host-mismatch")),
    bad("two of Host", { headers: ["Host: {host}"] }, refused("header-duplicate")),
    bad("a body of known length", { headers: ["Content-Length: 4"], body: "body" }, refused("connect-body")),
    bad(
      "a body in chunks",
      { headers: ["Transfer-Encoding: chunked"], body: "4\r\nbody\r\n0\r\n\r\n" },
      refused("connect-body"),
    ),
    bad("bytes behind one that is refused", { raw: AHEAD }, refused("target-unknown", 403)),
    other("a plain request for a URL", { raw: "GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n" }, 403),
    other("a plain request for a path", { raw: "GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n" }, 421),
    other("OPTIONS of everything", { raw: "OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n" }, 421),
    // Its first request is answered or cut, and what stands behind it never read.
    bad(
      "a CONNECT behind another request",
      { raw: "GET / HTTP/1.1\r\nHost: x\r\n\r\nCONNECT {path} HTTP/1.1\r\nHost: {host}\r\n\r\n" },
      { is: "breaks off" },
    ),
  ],
};
