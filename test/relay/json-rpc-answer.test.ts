import fc from "fast-check";
import { expect, it } from "vitest";
import { AnswerCheck, checkedJson } from "../../src/relay/json-rpc-answer.js";
import type { JsonRpcId } from "../../src/relay/mcp-message.js";
import { runs } from "../properties.js";

/** What a response may look like stands, with what is refused, in test/relay/bad-inputs/responses.ts. Here: that its bytes are read as JSON is. */

function isAnswer(text: string, asked: JsonRpcId, cuts: readonly number[] = []): boolean {
  const bytes = Buffer.from(text);
  const check = new AnswerCheck(asked);
  const edges = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length];
  try {
    for (const [index, edge] of edges.slice(1).entries()) check.push(bytes.subarray(edges[index], edge));
    check.end();
    return true;
  } catch {
    return false;
  }
}

const id = fc.oneof(fc.integer(), fc.string({ unit: "grapheme" }), fc.string({ minLength: 1_000, maxLength: 2_000 }));
const cuts = fc.array(fc.nat(), { maxLength: 6 });
const escaped = (json: string) =>
  json.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);

it("whatever it holds and wherever it is cut, a response answers its own id and no other", {
  timeout: runs(30_000),
}, () => {
  fc.assert(
    fc.property(
      fc.record({ asked: id, other: id, result: fc.jsonValue(), space: fc.constantFrom("", "\t", "  "), cuts }),
      fc.boolean(),
      fc.boolean(),
      ({ asked, other, result, space, cuts }, isLast, isEscaped) => {
        const body = isLast ? { result, id: asked } : { jsonrpc: "2.0", id: asked, result };
        const json = JSON.stringify(body, null, space);
        const text = isEscaped ? escaped(json) : json;
        expect(isAnswer(text, asked, cuts)).toBe(true);
        expect(isAnswer(text, other, cuts)).toBe(other === asked);
      },
    ),
  );
});

it("bytes that are no response are none, wherever they are cut", { timeout: runs(30_000) }, () => {
  const piece = fc.constantFrom(...'{}[]:,"\\ \n1ex', '"id"', '"result"', '"id":1', '"result":{}', "null", "{", "}");
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), cuts, (pieces, cuts) => {
      const text = pieces.join("");
      let read: unknown;
      try {
        read = JSON.parse(text);
      } catch {
        // No client takes it for anything, whatever the relay thinks of it.
        return;
      }
      const isOne = typeof read === "object" && read !== null && "id" in read && read.id === 1 && "result" in read;
      // It may refuse more: what says a member twice.
      if (isAnswer(text, 1, cuts)) expect(isOne).toBe(true);
      else
        expect(isOne && new Set(text.match(/"id"|"result"/g)).size === text.match(/"id"|"result"/g)?.length).toBe(
          false,
        );
    }),
  );
});

it("the last bytes of an answer wait until its id is known", () => {
  const sent = (text: string): string[] => {
    const out: string[] = [];
    const check = checkedJson(200, 1);
    try {
      for (const piece of text.match(/.{1,8}/g) ?? []) out.push(String(check.push(Buffer.from(piece)) ?? ""));
      out.push(String(check.end() ?? ""));
    } catch {
      out.push("(refused)");
    }
    return out;
  };
  const good = '{"result":{},"id":1}';
  expect(sent(good)).toEqual(["", '{"result', '":{},"id', '":1}']);
  expect(sent(good.replace("1", "2"))).toEqual(["", '{"result', '":{},"id', "(refused)"]);
});
