import { expect, it } from "vitest";
import { jsonToolListRewriter, sseToolListRewriter } from "../../src/relay/mcp-tool-list.js";

const mayCall = (tool: string) => tool.startsWith("get_");
const list = (more: object = {}) => ({
  jsonrpc: "2.0",
  id: 1,
  result: { tools: [{ name: "get_invoice" }, { name: "drop_tables" }, { name: 7 }], ...more },
});
const filtered = (more: object = {}) => ({
  jsonrpc: "2.0",
  id: 1,
  result: { tools: [{ name: "get_invoice" }], ...more },
});

/** What comes out for `text` cut into pieces of `size`. */
function through(rewriter: ReturnType<typeof sseToolListRewriter>, text: string, size: number): string {
  const bytes = Buffer.from(text);
  let out = "";
  for (let at = 0; at < bytes.length; at += size) out += rewriter.push(bytes.subarray(at, at + size))?.toString() ?? "";
  return out + (rewriter.end()?.toString() ?? "");
}

it("filters a list in JSON, marks it private where it may be cached, and leaves other answers as they are", () => {
  const rewritten = (message: unknown) =>
    JSON.parse(through(jsonToolListRewriter(mayCall), JSON.stringify(message), 7));
  expect(rewritten(list({ nextCursor: "2" }))).toEqual(filtered({ nextCursor: "2" }));
  expect(rewritten(list({ cacheScope: "public", ttlMs: 5 }))).toEqual(filtered({ cacheScope: "private", ttlMs: 5 }));
  expect(rewritten([list()])).toEqual([filtered()]);
  const error = '{"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "no"}}';
  expect(through(jsonToolListRewriter(mayCall), error, 7)).toBe(error);
});

it.each(["\n", "\r\n", "\r"])(
  "filters lists among server-sent events whose lines end in %j, however they are cut",
  (end) => {
    const ping = [": ping", "", ""].join(end);
    const other = [
      "event: message",
      'data: {"jsonrpc":"2.0","id":5,"method":"sampling/createMessage","params":{"x":"é"}}',
      "",
      "",
    ].join(end);
    const listed = ["id: 9", `data: ${JSON.stringify(list())}`, "", ""].join(end);
    for (const size of [1, 2, 3, 1000]) {
      const out = through(sseToolListRewriter(mayCall), ping + other + listed + other, size);
      expect(out).toBe(`${ping}${other}id: 9\ndata: ${JSON.stringify(filtered())}\n\n${other}`);
    }
  },
);

it("finds a list that is spread over several data lines", () => {
  const spread = JSON.stringify(list(), null, 1)
    .split("\n")
    .map((line) => `data: ${line}`)
    .join("\n");
  expect(through(sseToolListRewriter(mayCall), `${spread}\n\n`, 5)).toBe(`data: ${JSON.stringify(filtered())}\n\n`);
});

it("passes an event on as soon as it ends, and drops one that never does", () => {
  const rewriter = sseToolListRewriter(mayCall);
  expect(rewriter.push(Buffer.from("data: {}\n"))).toBeUndefined();
  expect(rewriter.push(Buffer.from("\n"))?.toString()).toBe("data: {}\n\n");
  rewriter.push(Buffer.from(`data: ${JSON.stringify(list())}`));
  expect(rewriter.end()).toBeUndefined();
});
