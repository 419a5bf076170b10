import type { Mutant } from "./mutants.ts";

const RECORD_FIRST = "test/relay/record-first.test.ts";
const HANDSHAKES = "test/relay/failed-handshakes.test.ts";
const KNOWN = "test/relay/known-calls.test.ts";
const MUTUAL_TLS = "test/relay/mutual-tls.test.ts";

/** Of the way of a call through the relay. */
export const relayMutants: readonly Mutant[] = [
  {
    id: "relay-decision-recorded-first",
    check: "D20: nothing is forwarded before the decision is in the record",
    file: "src/relay/decide.ts",
    find: "return recordDecision(parts, exchange, decision, request, known).then(",
    replace:
      "recordDecision(parts, exchange, decision, request, known).catch(() => {}); return Promise.resolve().then(",
    tests: [RECORD_FIRST],
  },
  {
    id: "relay-outcome-recorded-first",
    check: "D20: nothing is answered before the outcome is in the record",
    file: "src/relay/forward.ts",
    find: "recordOutcome(this.#parts, this.#exchange, { status }).then(",
    replace: "recordOutcome(this.#parts, this.#exchange, { status }).catch(() => {}); Promise.resolve().then(",
    tests: [RECORD_FIRST],
  },
  {
    id: "relay-gone-while-recorded",
    check: "who has gone while its decision was being recorded does nothing any more",
    file: "src/relay/forward.ts",
    find: "if (exchange.response.destroyed || exchange.request.socket.destroyed) {",
    replace: "if (false) {",
    tests: [RECORD_FIRST],
  },
  {
    id: "known-call-caller",
    check: "what is known of a caller's call is known of no other caller",
    file: "src/relay/known-calls.ts",
    find: "opens, id, launchedBy.join(), evidence",
    replace: "opens, launchedBy.join(), evidence",
    tests: [KNOWN],
  },
  {
    id: "known-call-launchers",
    check: "a call of a sub-agent is not one of its launcher's own",
    file: "src/relay/known-calls.ts",
    find: "opens, id, launchedBy.join(), evidence",
    replace: "opens, id, evidence",
    tests: [KNOWN],
  },
  {
    id: "known-call-evidence",
    check: "a call on weaker evidence is another call",
    file: "src/relay/known-calls.ts",
    find: "launchedBy.join(), evidence, detail]",
    replace: "launchedBy.join(), detail]",
    tests: [KNOWN],
  },
  {
    id: "known-call-method",
    check: "a call of another method is another call",
    file: "src/relay/known-calls.ts",
    find: "const key = [request.method, target.raw",
    replace: "const key = [target.raw",
    tests: [KNOWN],
  },
  {
    id: "known-call-websocket",
    check: "opening a WebSocket is another call than reading the same path",
    file: "src/relay/known-calls.ts",
    find: "target.raw, opens, id",
    replace: "target.raw, id",
    tests: [KNOWN],
  },
  {
    id: "known-call-policy",
    check: "what is known under one policy is not known under the next",
    file: "src/relay/known-calls.ts",
    find: "if (this.#point !== point || this.#service !== call.service) {",
    replace: "if (this.#service !== call.service) {",
    tests: [KNOWN],
  },
  {
    id: "known-call-awaited",
    check: "of a call whose decision was awaited nothing is shown as it was known under earlier rules",
    file: "src/relay/decide.ts",
    find: "enforce(exchange, made, undefined)",
    replace: "enforce(exchange, made, known)",
    tests: ["test/relay/late-decisions.test.ts"],
  },
  {
    id: "known-call-record",
    check: "the record says of each decision what it was, not what the last was",
    file: "src/relay/known-calls.ts",
    find: "if (this.#decided === undefined || !sameButId(this.#decided.like, decision)) {",
    replace: "if (this.#decided === undefined) {",
    tests: [KNOWN],
  },
  {
    id: "standing-verdict-terms",
    check: "a verdict that a time, a count or a value decided is worked out each time",
    file: "src/policy/rule-hits.ts",
    find: "if (rule.terms.length > 0 || rule.condition !== undefined || rule.limit !== undefined) this.restsOnRequest = false;",
    replace: "",
    tests: ["test/policy/standing-verdicts.test.ts"],
  },
  {
    id: "audit-order-checked",
    check: "an entry whose members are not in order is brought into it",
    file: "src/audit/chain.ts",
    find: "if (before !== undefined && name <= before) return false;",
    replace: "",
    tests: ["test/audit/canonical.test.ts"],
  },
  {
    id: "presented-chain-linked",
    check: "what a peer presents beside its chain is not taken for a part of it",
    file: "src/spiffe/presented-chain.ts",
    find: "others.find((other) => subject.checkIssued(other))",
    replace: "others[0]",
    tests: ["test/spiffe/presented-chain.test.ts"],
  },
  {
    id: "relay-bundles-apart",
    check: "D12: an authority of another trust domain does not speak for ours",
    file: "src/http/mutual-tls.ts",
    find: "(trustDomain: TrustDomain) => bundles.x509Bundle(trustDomain)?.authorities;",
    replace: `(trustDomain: TrustDomain) =>
      [trustDomain, { name: "partner.example", equals: ({ name }: TrustDomain) => name === "partner.example" }].flatMap(
        (one) => bundles.x509Bundle(one as TrustDomain)?.authorities ?? [],
      );`,
    tests: [MUTUAL_TLS],
  },
  {
    id: "relay-certificate-kept",
    check: "a certificate that cannot be used leaves the last one in its place",
    file: "src/relay/inbound.ts",
    find: "if (replaceCertificate(parts, servers, name, next)) svid = next;",
    replace: "svid = next;\n    for (const one of servers) one.setSecureContext(secureContextOptions(next));",
    tests: [MUTUAL_TLS],
  },
  {
    id: "relay-handshake-recorded",
    check: "a TLS handshake that fails is on record",
    file: "src/http/failed-handshakes.ts",
    find: 'if (code !== "ECONNRESET") failed(',
    replace: "if (false) failed(",
    tests: [HANDSHAKES],
  },
  {
    id: "relay-handshake-ended",
    check: "a connection whose TLS handshake takes too long is closed",
    file: "src/http/failed-handshakes.ts",
    find: "    socket.destroy();\n",
    replace: "",
    tests: [HANDSHAKES],
  },
  {
    id: "relay-handshakes-looked-after",
    check: "handshakes that fail at an inbound leg are ended and on record",
    file: "src/relay/inbound.ts",
    find: '    endFailedHandshakes(server, (socket, reason) => refused(socket, "handshake-failed", reason));\n',
    replace: "",
    tests: [HANDSHAKES],
  },
  {
    id: "relay-no-tickets",
    check: "D12: an inbound leg offers no session to resume",
    file: "src/http/mutual-tls.ts",
    find: "    secureOptions: constants.SSL_OP_NO_TICKET,\n",
    replace: "",
    tests: [MUTUAL_TLS],
  },
  ...(
    [
      ["relay-slow-head", "src/http/server-connection.ts", "const HEAD_MS = 10_000;", "const HEAD_MS = 10_000_000;"],
      [
        "relay-slow-preface",
        "src/relay/grpc-servers.ts",
        "const impatience = setTimeout(() => socket.destroy(), PREFACE_TIMEOUT_MS);",
        "const impatience = setTimeout(() => undefined, PREFACE_TIMEOUT_MS);",
      ],
      [
        "relay-slow-settings",
        "src/relay/http2-listener.ts",
        "const impatience = setTimeout(() => session.destroy(), SETTINGS_TIMEOUT_MS);",
        "const impatience = setTimeout(() => undefined, SETTINGS_TIMEOUT_MS);",
      ],
    ] as const
  ).map(([id, file, find, replace]) => ({
    ...{ id, file, find, replace },
    check: "a caller that does not come to ask anything is ended",
    tests: ["test/relay/slow-callers.test.ts"],
  })),
];
