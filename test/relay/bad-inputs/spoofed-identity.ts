import type { Vector, VectorClass } from "./vector.js";

/** What a caller says of itself. */
export const CLAIM = "spiffe://shop.local/admin";

/** Names under which services are told who calls, from where, and what was asked for: only a relay may say it. */
const NAMES = [
  ...["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix"],
  ...["X-Forwarded-User", "X-Forwarded-Client-Cert", "X-Forwarded", "Forwarded", "Via"],
  ...["Client-Cert", "Client-Cert-Chain", "X-Client-Cert", "X-SSL-Client-Cert", "SSL-Client-Cert", "SSL-Client-Verify"],
  ...["SSL-Client-S-DN", "X-SSL-Client-S-DN", "X-TLS-Client-Cert", "X-Client-Spiffe-Id", "X-Spiffe-Id", "Txn-Token"],
  ...["Remote-User", "X-Remote-User", "X-WebAuth-User", "X-Auth-Request-User", "X-Authenticated-User", "Remote-Addr"],
  ...["X-Real-IP", "True-Client-IP", "X-Client-IP", "X-Cluster-Client-IP", "Client-IP", "CF-Connecting-IP"],
  ...["Fastly-Client-IP", "X-Envoy-External-Address", "X-Envoy-Original-Path", "X-Envoy-Internal"],
  ...["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-Method"],
  ...["X-Original-URL", "X-Original-URI", "X-Original-Host", "X-Rewrite-URL", "X-Host", "X-HTTP-Host-Override"],
  ...["Agentid-Ticket", "Agentid-Decision", "Agentid-Anything"],
];

/** As it is, in other cases, and as servers see it that put headers into variables. */
const SPELLINGS: readonly ((name: string) => string)[] = [
  (name) => name,
  (name) => name.toLowerCase(),
  (name) => name.toUpperCase(),
  (name) => name.replaceAll("-", "_"),
  (name) => name.replace(/-(?=[^-]*$)/, "_"),
  (name) => name.replaceAll("-", ".").toUpperCase(),
];

export const spoofedIdentity: VectorClass = {
  name: "spoofed identity",
  concerns: {
    "http service": true,
    "MCP service": true,
    "egress target": true,
    WebSocket: true,
    "CONNECT proxy": "nothing of its head goes on",
    gRPC: true,
    TCP: "it has no headers",
    "TCP over TLS": "it has no headers",
    AuthZEN: "it believes certificates and the kernel, and hands no header on",
    documents: "they are for everybody",
    "control API": "it believes the kernel, and hands no header on",
  },
  vectors: NAMES.map(
    (name): Vector => ({
      what: name,
      request: {
        headers: [...new Set(SPELLINGS.map((spell) => spell(name)))].map((line) => `${line}: ${CLAIM}`),
      },
      expected: { is: "arrives", lacks: [name.toLowerCase()] },
    }),
  ),
};
