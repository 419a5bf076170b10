import type { Mutant } from "./mutants.ts";

const RELAY = "test/relay/long-bodies.test.ts";
const JSON_TESTS = "test/http/strict-json.test.ts";

/** What keeps long bodies from keeping the event loop. */
export const longBodyMutants: readonly Mutant[] = [
  {
    id: "long-read-in-turns",
    check: "a long text is read with a pause for each piece of it",
    file: "src/http/strict-json.ts",
    find: "while (!reader.read(VALUES_A_TURN));",
    replace: "while (!reader.read(Number.POSITIVE_INFINITY));",
    tests: [JSON_TESTS],
  },
  {
    id: "long-values",
    check: "a long text holds no more than so many values",
    file: "src/http/json-in-pieces.ts",
    find: "if (this.#values > MAX_VALUES) throw",
    replace: "if (false) throw",
    tests: [JSON_TESTS],
  },
  {
    id: "long-lists-and-objects",
    check: "a long text holds no more than so many lists and objects",
    file: "src/http/json-in-pieces.ts",
    find: "if (this.#listsAndObjects <= MAX_LISTS_AND_OBJECTS) return;",
    replace: "if (this.#listsAndObjects > 0) return;",
    tests: [JSON_TESTS],
  },
  {
    id: "long-depth",
    check: "nesting is bounded in pieces too",
    file: "src/http/json-in-pieces.ts",
    find: "if (this.#open.length > MAX_DEPTH) throw",
    replace: "if (this.#open.length > 10 ** 9) throw",
    tests: [JSON_TESTS],
  },
  {
    id: "long-key",
    check: "a key that is very long is refused",
    file: "src/http/json-tokens.ts",
    find: "const MAX_KEY_LENGTH = 16_384;",
    replace: "const MAX_KEY_LENGTH = 2 ** 30;",
    tests: [JSON_TESTS],
  },
  {
    id: "long-number",
    check: "a number that is very long is refused",
    file: "src/http/json-tokens.ts",
    find: "if (found[0].length > MAX_NUMBER_LENGTH) {",
    replace: "if (false) {",
    tests: [JSON_TESTS],
  },
  {
    id: "long-caller-gone",
    check: "nobody's call is worked on when its caller has left",
    file: "src/relay/long-message.ts",
    find: "if (request.socket.destroyed || response.destroyed) {",
    replace: "if (false) {",
    tests: [RELAY],
  },
  {
    id: "long-one-a-turn",
    check: "the pieces of several works come one in a turn of the event loop",
    file: "src/platform/turns.ts",
    find: "  resolve?.();",
    replace: "  resolve?.();\n  for (const other of waiting.splice(0)) other();",
    tests: [RELAY],
  },
  {
    id: "long-digest-in-turns",
    check: "a long request is digested with a pause for each piece of it",
    file: "src/policy/request-digest.ts",
    find: "  for (;;) {\n    await pause();",
    replace: "  await pause();\n  for (;;) {",
    tests: [RELAY],
  },
  {
    id: "long-pair",
    check: "what is written in turns is what would be written at once: no pair is cut",
    file: "src/policy/json-pieces.ts",
    find: "isHighSurrogate(next.charCodeAt(end - 1)) ? end + 1 : end",
    replace: "isHighSurrogate(0) ? end + 1 : end",
    tests: [RELAY],
  },
  {
    id: "long-evaluation",
    check: "AuthZEN: a long body is worked on in turns",
    file: "src/authzen/server.ts",
    find: "if (!isLong(bytes)) return undefined;",
    replace: "if (bytes.length >= 0) return undefined;",
    tests: [RELAY],
  },
  {
    id: "long-summary",
    check: "of what is long only the beginning is written out to be shown",
    file: "src/relay/inline-json.ts",
    find: "if (text.length > most) return text;",
    replace: "",
    tests: [RELAY],
  },
];
