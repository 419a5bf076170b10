import { refused, type Vector, type VectorClass } from "./vector.js";

const host = (what: string, value: string): Vector => ({
  what,
  request: { host: value },
  expected: refused("host-unknown", 421),
});
const withoutPort = {
  notFor: { documents: "public documents also go by their names without a port: a proxy may stand before them" },
};

/** The name in `Host` against what it would resolve to: the text must be one of the listener's own names. */
export const hostConfusion: VectorClass = {
  name: "host confusion",
  concerns: {
    "http service": true,
    "MCP service": true,
    "egress target": true,
    WebSocket: true,
    "CONNECT proxy": true,
    gRPC: true,
    TCP: "nothing of its bytes is read: it has no Host",
    "TCP over TLS": "nothing of its bytes is read: it has no Host",
    AuthZEN: true,
    documents: true,
    "control API": true,
  },
  vectors: [
    host("a name that may resolve to this machine", "evil.example"),
    host("a name that may resolve to this machine, with our port", "evil.example:{port}"),
    host("a name that ends in ours", "evil.localhost:{port}"),
    host("a name that begins with ours", "127.0.0.1.evil.example:{port}"),
    { ...host("an address without its port", "127.0.0.1"), ...withoutPort },
    host("another port", "127.0.0.1:1"),
    host("a port with a zero before it", "127.0.0.1:0{port}"),
    host("a signed port", "127.0.0.1:+{port}"),
    host("two ports", "127.0.0.1:1:{port}"),
    host("a trailing dot", "localhost.:{port}"),
    host("a user before it", "user@127.0.0.1:{port}"),
    host("our name as the user of another", "127.0.0.1:{port}@evil.example"),
    host("decimal IPv4", "2130706433:{port}"),
    host("octal IPv4", "0177.0.0.1:{port}"),
    host("hexadecimal IPv4", "0x7f000001:{port}"),
    host("short IPv4", "127.1:{port}"),
    host("the unspecified address", "0.0.0.0:{port}"),
    host("a bare zero", "0:{port}"),
    host("another address of loopback", "127.0.0.2:{port}"),
    host("IPv4-mapped IPv6", "[::ffff:127.0.0.1]:{port}"),
    host("IPv4-compatible IPv6", "[::127.0.0.1]:{port}"),
    host("NAT64 IPv6", "[64:ff9b::7f00:1]:{port}"),
    host("the unspecified IPv6 address", "[::]:{port}"),
    host("a long form of ::1", "[0:0:0:0:0:0:0:1]:{port}"),
    host("a zone", "[::1%25lo]:{port}"),
    host("full-width digits", "\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.0.0.1:{port}"),
    host("two names", "127.0.0.1:{port}, evil.example"),
    host("a path behind it", "127.0.0.1:{port}/x"),
    host("a scheme before it", "http://127.0.0.1:{port}"),
    host("nothing", ""),
    {
      what: "none at all",
      notFor: { gRPC: "a head without :authority is in the class of HTTP/2" },
      request: { raw: "GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n" },
      expected: refused("host-unknown", 421),
    },
    {
      what: "a second one",
      request: { headers: ["Host: evil.example"] },
      expected: refused("header-duplicate"),
      at: { gRPC: refused("host-unknown", 421) },
      notFor: { documents: "what anybody may read does not depend on which of two is taken" },
    },
    {
      what: "the same one again",
      request: { headers: ["Host: {host}"] },
      expected: refused("header-duplicate"),
      notFor: {
        gRPC: "Host may repeat what :authority says (RFC 9113 §8.3.1)",
        documents: "what anybody may read does not depend on which of two is taken",
      },
    },
  ],
};
