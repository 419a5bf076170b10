import { refused, type Vector, type VectorClass } from "./vector.js";

/** Each sound message holds this member once, two levels or more below the top. */
export const SLOT = '"slot":1';
const slot = (members: string) => (sound: string) => sound.replace(SLOT, members);
const latin1 = (text: string) => Buffer.from(text, "latin1");
/** The first member once more, before all others. */
const twice = (sound: string) => {
  const [, member = ""] = /^\{("[a-z]+":"(?:[^"\\]|\\.)*"),/.exec(sound) ?? [];
  return sound.replace("{", `{${member},`);
};
const keys = (count: number) => Array.from({ length: count }, (_, index) => `"k${index}":0`).join(",");

const bad = (what: string, message: (sound: string) => string | Buffer, code: string): Vector => ({
  what,
  request: { message },
  expected: { ...refused(code), jsonRpc: -32700 } as Vector["expected"],
});
const control = (why: string) => ({ notFor: { "control API": why } });

export const jsonDifferentials: VectorClass = {
  name: "JSON differentials",
  concerns: {
    "http service":
      "the body of a plain HTTP call is its service's own: nothing is decided on it, and it goes on byte for byte",
    "MCP service": true,
    "egress target": "its bodies are its target's own: nothing is decided on them",
    WebSocket: "a handshake has no body",
    "CONNECT proxy": "CONNECT has no body",
    gRPC: "messages of gRPC are not looked at",
    TCP: "nothing of its bytes is read",
    "TCP over TLS": "nothing of its bytes is read",
    AuthZEN: true,
    documents: "no body is read",
    "control API": true,
  },
  vectors: [
    bad("a key given twice", slot('"slot":1,"slot":2'), "json-duplicate-key"),
    bad("a key of the message given twice", twice, "json-duplicate-key"),
    bad("a key given twice, once escaped", slot('"slot":1,"sl\\u006ft":2'), "json-duplicate-key"),
    bad("a key given twice, once in capitals of hex", slot('"slo\\u004A":1,"slo\\u004a":2'), "json-duplicate-key"),
    bad("keys that differ by case (Go)", slot('"slot":1,"Slot":2'), "json-ambiguous-key"),
    bad("keys that fold alike (the long s)", slot('"slot":1,"\u017flot":2'), "json-ambiguous-key"),
    bad("keys that fold alike (the Kelvin sign)", slot('"key":1,"\u212aey":2'), "json-ambiguous-key"),
    bad("__proto__", slot('"slot":1,"__proto__":{"admin":true}'), "json-ambiguous-key"),
    bad("__proto__, escaped", slot('"slot":1,"\\u005f_proto__":{"admin":true}'), "json-ambiguous-key"),
    bad("an integer beyond 2^53", slot('"slot":9007199254740993'), "json-number"),
    bad("a negative integer beyond 2^53", slot('"slot":-9007199254740993'), "json-number"),
    bad("an integer beyond 2^53 with an exponent", slot('"slot":1e300'), "json-number"),
    bad("a number beyond a double", slot('"slot":1e400'), "json-number"),
    bad("a negative number beyond a double", slot('"slot":-1e400'), "json-number"),
    bad("a number with a zero before it", slot('"slot":01'), "json-malformed"),
    bad("a number with a plus", slot('"slot":+1'), "json-malformed"),
    bad("a number without its digit", slot('"slot":.5'), "json-malformed"),
    bad("a hexadecimal number", slot('"slot":0x10'), "json-malformed"),
    bad("NaN", slot('"slot":NaN'), "json-malformed"),
    bad("Infinity", slot('"slot":Infinity'), "json-malformed"),
    bad("a lone high surrogate", slot('"slot":"\\ud800"'), "json-surrogate"),
    bad("a lone low surrogate", slot('"slot":"\\udc00"'), "json-surrogate"),
    bad("surrogates the wrong way round", slot('"slot":"\\udc00\\ud800"'), "json-surrogate"),
    bad("a lone surrogate in a key", slot('"slot":1,"\\ud800":1'), "json-surrogate"),
    bad("nesting deeper than 64", slot(`"slot":${"[".repeat(70)}${"]".repeat(70)}`), "json-depth"),
    bad("100,000 levels", slot(`"slot":${"[".repeat(100_000)}${"]".repeat(100_000)}`), "json-depth"),
    bad("an object of 10,001 keys", slot(`"slot":1,${keys(10_001)}`), "json-keys"),
    bad("two documents", (sound) => sound + sound, "json-malformed"),
    bad("two documents in two lines", (sound) => `${sound}\n${sound}`, "json-malformed"),
    bad("text behind the document", (sound) => `${sound}x`, "json-malformed"),
    bad("a NUL behind the document", (sound) => `${sound}\0`, "json-malformed"),
    bad("a comment behind", (sound) => `${sound}//`, "json-malformed"),
    bad("a comment inside", slot('"slot":/* 2 */1'), "json-malformed"),
    bad("a comma too many", slot('"slot":1,'), "json-malformed"),
    bad("a comma too few", slot('"slot":1 "other":2'), "json-malformed"),
    bad("a key without quotes", slot("slot:1"), "json-malformed"),
    bad("single quotes", slot("'slot':1"), "json-malformed"),
    bad("a literal in another case", slot('"slot":True'), "json-malformed"),
    bad("an unescaped line feed", slot('"slot":"a\nb"'), "json-malformed"),
    bad("an unescaped NUL", slot('"slot":"a\0b"'), "json-malformed"),
    bad("an unknown escape", slot('"slot":"\\x41"'), "json-malformed"),
    bad("a form feed between", slot('"slot":\f1'), "json-malformed"),
    bad("a no-break space between", slot('"slot":\u00a01'), "json-malformed"),
    bad("a line separator between", slot('"slot":\u20281'), "json-malformed"),
    bad("an open string", () => '{"jsonrpc":"2', "json-malformed"),
    bad("an open object", (sound) => sound.slice(0, -1), "json-malformed"),
    {
      ...bad("nothing", () => "", "json-malformed"),
      ...control("no body is the same as an empty object: most routes take none"),
    },
    bad("white space", () => "  ", "json-malformed"),
    bad("a byte order mark", (sound) => `\ufeff${sound}`, "json-bom"),
    bad("UTF-16", (sound) => Buffer.from(sound, "utf16le"), "json-malformed"),
    bad("UTF-16 with its mark", (sound) => Buffer.from(`\ufeff${sound}`, "utf16le"), "json-utf8"),
    bad("a byte that is no UTF-8", (sound) => latin1(slot('"slot":"\xff"')(sound)), "json-utf8"),
    bad("overlong UTF-8", (sound) => latin1(slot('"slot":"\xc0\xaf"')(sound)), "json-utf8"),
    bad("a surrogate in UTF-8 (CESU)", (sound) => latin1(slot('"slot":"\xed\xa0\x80"')(sound)), "json-utf8"),
    bad("UTF-8 beyond Unicode", (sound) => latin1(slot('"slot":"\xf4\x90\x80\x80"')(sound)), "json-utf8"),
  ],
};
