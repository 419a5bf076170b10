import type { Mutant } from "./mutants.ts";

const RECORD_FIRST = "test/relay/record-first.test.ts";
const CONNECTIONS = "test/relay/connections.test.ts";

/** Of the way of a call through the relay. */
export const relayMutants: readonly Mutant[] = [
  {
    id: "relay-decision-recorded-first",
    check: "D20: nothing is forwarded before the decision is in the record",
    file: "src/relay/decide.ts",
    find: "return recordDecision(parts, exchange, decision, request).then(",
    replace: "recordDecision(parts, exchange, decision, request).catch(() => {}); return Promise.resolve().then(",
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
    id: "relay-connection-limit",
    check: "a listener serves no more connections than its bound",
    file: "src/http/http-listener.ts",
    find: "if (served >= most) {",
    replace: "if (false) {",
    tests: [CONNECTIONS],
  },
  {
    id: "relay-drain-ends",
    check: "a drain ends when the last call does, not with the patience of a connection kept alive",
    file: "src/http/http-listener.ts",
    find: "for (const [socket, response] of answering) endAfter(response, socket);",
    replace: "",
    tests: [CONNECTIONS],
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
];
