import { randomUUID } from "node:crypto";
import { ALPN, preface } from "../../../src/relay/tcp-protocol.js";
import { type ChangedRequest, type Expected, refused, type Vector, type VectorClass } from "./vector.js";

const plainly = { notFor: { TCP: "the kernel names its callers: nothing is shaken hands on" } };
const overTls = (what: string, request: ChangedRequest, expected: Expected): Vector => ({
  ...{ what, request, expected, ...plainly },
});
/** Refused in the handshake: the record has that it failed, and nobody as its caller. */
const handshake = (what: string, tls: ChangedRequest["tls"]) =>
  overTls(what, { tls: tls ?? {} }, refused("handshake-failed"));
const ticketed = (what: string, first: string | Buffer, code = "preface-malformed") =>
  overTls(what, { tls: { alpn: [ALPN.ticketed] }, first: first.toString("latin1") }, refused(code));
/** What another listener would take for its own: here they are bytes. */
const passes = (what: string, first: string): Vector => ({ what, request: { first }, expected: { is: "arrives" } });
const CLIENT_HELLO = "\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03";

/** What comes first on a connection of bytes, and in the handshake before it. A handshake that never ends: test/relay/tcp-bytes.test.ts. */
export const connections: VectorClass = {
  name: "connections",
  concerns: {
    "http service": "its handshakes and peers: test/relay/mutual-tls.test.ts",
    "MCP service": "its handshakes and peers: test/relay/mutual-tls.test.ts",
    "egress target": "its callers speak no TLS with it",
    WebSocket: "its handshakes are those of an http service",
    "CONNECT proxy": "the TLS inside a tunnel is its target's",
    gRPC: "its handshakes: test/relay/bad-http2.test.ts",
    AuthZEN: "its handshakes: test/authzen/doors.test.ts",
    documents: "they ask for no certificate",
    "control API": "it listens on a socket alone",
    TCP: true,
    "TCP over TLS": true,
  },
  vectors: [
    passes("a request of HTTP", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
    passes("a CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\n\r\n"),
    passes("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    passes("PROXY protocol, which names another caller", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nping"),
    passes("PROXY protocol in bytes", "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"),
    passes("a TLS handshake", CLIENT_HELLO),
    passes("the preface of our own outbound leg", preface(randomUUID()).toString("latin1")),
    passes("NULs", "\0".repeat(100)),
    passes("one byte", "x"),
    overTls("no certificate", { tls: { certificate: "none" } }, refused("certificate-refused")),
    overTls(
      "a certificate of another authority for the same name",
      { tls: { certificate: "of another authority" } },
      refused("certificate-refused"),
    ),
    overTls("no protocol", { tls: { alpn: [] } }, refused("protocol-unknown")),
    handshake("HTTP by its protocol", { alpn: ["http/1.1"] }),
    handshake("HTTP/2 by its protocol", { alpn: ["h2"] }),
    handshake("our protocol in another case", { alpn: [ALPN.plain.toUpperCase()] }),
    handshake("our protocol with something behind it", { alpn: [`${ALPN.plain}2`] }),
    handshake("TLS 1.2", { maxVersion: "TLSv1.2" }),
    handshake("HTTP in place of a handshake", { instead: "GET / HTTP/1.1\r\nHost: orders\r\n\r\n" }),
    handshake("NULs in place of a handshake", { instead: "\0".repeat(1_000) }),
    handshake("a record that is too long", { instead: `\x16\x03\x01\xff\xff${"x".repeat(70_000)}` }),
    handshake("PROXY protocol before a handshake", { instead: `PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n${CLIENT_HELLO}` }),
    handshake("the preface in place of a handshake", { instead: preface(randomUUID()).toString("latin1") }),
    ticketed("a preface of an unknown version", Buffer.concat([Buffer.of(2), preface(randomUUID()).subarray(1)])),
    ticketed("a preface without a ticket", Buffer.concat([Buffer.of(1), Buffer.alloc(36, "x")])),
    ticketed("a ticket in capitals", Buffer.concat([Buffer.of(1), Buffer.from(randomUUID().toUpperCase())])),
    ticketed("a preface that is cut short", preface(randomUUID()).subarray(0, 36)),
    ticketed("HTTP in place of a preface", "GET / HTTP/1.1\r\nHost: orders\r\n\r\nmore than the length of it"),
    ticketed("a ticket that was never issued", preface(randomUUID()), "ticket-refused"),
    ticketed(
      "bytes behind such a ticket",
      `${preface(randomUUID()).toString("latin1")}DROP TABLE orders`,
      "ticket-refused",
    ),
  ],
};
