import { type ChangedRequest, refused, type Vector, type VectorClass } from "./vector.js";

const gone = (what: string, headers: readonly string[], ...lacks: string[]): Vector => ({
  what,
  request: { headers },
  expected: { is: "arrives", lacks },
});
const oneForm = { notFor: { WebSocket: "its Connection has one form, and others are in the class of handshakes" } };
const noBody = "a handshake has no body";

/** What `Connection` names is gone; what the relay says, and what frames the message, is not: that holds for each arrival. */
const named = (what: string, options: string, ...lacks: string[]): Vector => ({
  ...gone(`Connection names ${what}`, [`Connection: ${options}`], "connection-option", ...lacks),
  ...oneForm,
});
const trailer = (what: string, line: string, name: string): Vector => ({
  what,
  request: trailing(line, name),
  expected: { is: "arrives", lacks: [name, "trailer"] },
  notFor: { WebSocket: noBody, "MCP service": "no trailer is read: the message is written anew from what was decided" },
});

function trailing(line: string, name: string): ChangedRequest {
  return {
    method: "POST",
    headers: ["Transfer-Encoding: chunked", `Trailer: ${name}`],
    body: `1\r\nx\r\n0\r\n${line}\r\n\r\n`,
  };
}

export const hopByHop: VectorClass = {
  name: "hop-by-hop",
  concerns: {
    "http service": true,
    "MCP service": true,
    "egress target": true,
    WebSocket: true,
    "CONNECT proxy": "nothing of its head goes on",
    gRPC: "HTTP/2 has no such fields: those that come are in the class of HTTP/2",
    TCP: "it has no headers",
    "TCP over TLS": "it has no headers",
    AuthZEN: "nothing goes on from it to a service",
    documents: "nothing goes on from it to a service",
    "control API": "nothing goes on from it to a service",
  },
  vectors: [
    named("the identity that the relay tells", "x-forwarded-client-cert"),
    named("the certificate that the relay tells", "Client-Cert, close"),
    named("the relay's ticket", "agentid-ticket"),
    named("Host", "host"),
    named("the length", "content-length"),
    named("the media type", "Content-Type, keep-alive"),
    named("Transfer-Encoding", "transfer-encoding"),
    named("a header of its own", "X-Own, close"),
    named("itself", "connection"),
    named("nothing", ","),
    { ...gone("Connection twice", ["Connection: close", "Connection: x-own", "X-Own: 1"], "x-own"), ...oneForm },
    { ...gone("Connection in capitals", ["CONNECTION: X-OWN", "x-own: 1"], "x-own"), ...oneForm },
    gone("Keep-Alive", ["Keep-Alive: timeout=5"], "keep-alive"),
    gone("TE", ["TE: trailers"], "te"),
    gone("TE with a coding", ["TE: gzip;q=1, trailers"], "te"),
    gone("Trailer", ["Trailer: Authorization"], "trailer"),
    gone("Proxy-Connection", ["Proxy-Connection: keep-alive"], "proxy-connection"),
    gone("Proxy-Authorization", ["Proxy-Authorization: Basic YTpi"], "proxy-authorization"),
    gone("Proxy-Authenticate", ["Proxy-Authenticate: Basic"], "proxy-authenticate"),
    gone("Proxy, which CGI takes for HTTP_PROXY", ["Proxy: http://evil.example"], "proxy"),
    gone("HTTP2-Settings", ["HTTP2-Settings: AAMAAABk"], "http2-settings"),
    gone("Expect", ["Expect: 100-continue"], "expect"),
    gone("a twin of Keep-Alive", ["Keep_Alive: timeout=5"], "keep-alive"),
    gone("a twin of Proxy-Connection", ["Proxy_Connection: keep-alive"], "proxy-connection"),
    {
      what: "a twin of Proxy-Authorization",
      request: { headers: ["Proxy_Authorization: Basic YTpi"] },
      expected: refused("header-underscore-twin"),
    },
    trailer("a credential in a trailer", "Authorization: Bearer x", "authorization"),
    trailer("an identity in a trailer", "X-Forwarded-Client-Cert: URI=spiffe://shop.local/admin", "x-own"),
    {
      what: "a length in a trailer",
      request: trailing("Content-Length: 100", "Content-Length"),
      expected: { is: "breaks off" },
    },
    {
      what: "a transfer encoding in a trailer",
      request: trailing("Transfer-Encoding: gzip", "Transfer-Encoding"),
      expected: { is: "breaks off" },
    },
    {
      what: "a chunk's extension",
      request: {
        method: "POST",
        headers: ["Transfer-Encoding: chunked"],
        body: '1;a=b;c="d"\r\nx\r\n0;e\r\n\r\n',
      },
      expected: { is: "arrives" },
      notFor: { WebSocket: noBody, "MCP service": "the message is written anew from what was decided" },
    },
  ],
};
