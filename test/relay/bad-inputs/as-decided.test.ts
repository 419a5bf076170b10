import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StrictRequest } from "../../fuzz/strict-http.js";
import { runs } from "../../properties.js";
import { exchangeRaw } from "../raw-http.js";
import { type Listener, runListeners } from "./listeners.js";
import type { ListenerKind } from "./vector.js";

/** Property: what was allowed arrives exactly as it was decided, read by a reader that shares no code with the relay's. */

const TIMEOUT_MS = runs(60_000);

let running: Awaited<ReturnType<typeof runListeners>>;
beforeAll(async () => {
  running = await runListeners();
});
afterAll(() => running.close());

const text = (characters: string, limits: { minLength?: number; maxLength: number }) =>
  fc.array(fc.constantFrom(...characters), limits).map((all) => all.join(""));
const LETTERS = "abcXYZ019";
const segment = fc
  .array(
    fc.oneof(
      text(`${LETTERS}-_~!$&'()*+,=:@`, { minLength: 1, maxLength: 6 }),
      fc.constantFrom("%C3%A9", "%E2%82%AC", "a.b", "%3F", "%25"),
    ),
    {
      ...{ minLength: 1, maxLength: 3 },
    },
  )
  .map((parts) => parts.join(""))
  .filter((one) => !/\.$|%25[0-9A-Fa-f]{2}/.test(one));
const parameters = fc
  .uniqueArray(
    fc.tuple(
      text("abcdefgh", { minLength: 1, maxLength: 4 }),
      text(`${LETTERS}-._~!/?:@+%`.replace("%", ""), { maxLength: 6 }),
    ),
    {
      ...{ maxLength: 4, selector: ([key]) => key },
    },
  )
  .map((all) => all.map(([key, value]) => `${key}=${value}`).join("&"));
const target = fc
  .tuple(fc.array(segment, { maxLength: 4 }), fc.boolean(), parameters)
  .map(
    ([segments, slash, query]) =>
      `/${segments.join("/")}${slash && segments.length > 0 ? "/" : ""}${query === "" ? "" : `?${query}`}`,
  );

const value = text(`${LETTERS}!"#$%&'()*+,-./:;<=>?@[]^_{|}~ \t\xe9\xff`, { maxLength: 30 }).map((one) =>
  one.replace(/^[ \t]+|[ \t]+$/g, ""),
);
const once = fc.uniqueArray(
  fc.tuple(
    fc.constantFrom("Authorization", "Cookie", "User-Agent", "If-None-Match", "X-Api-Key", "Range", "Content-Type"),
    value,
  ),
  { selector: ([name]) => name },
);
const often = fc.array(
  fc.tuple(
    fc.constantFrom("Accept", "accept-language", "X-Request-Id", "X-A", "x-b", "X_C", "Link", "Cache-Control"),
    value,
  ),
  {
    maxLength: 6,
  },
);
const headers = fc
  .tuple(once, often)
  .chain(([one, many]) => fc.shuffledSubarray([...one, ...many], { minLength: one.length + many.length }));

type Body = { readonly bytes: Buffer; readonly chunks: readonly number[] | undefined };
const body: fc.Arbitrary<Body | undefined> = fc.option(
  fc.record({
    bytes: fc.uint8Array({ maxLength: 3_000 }).map((bytes) => Buffer.from(bytes)),
    chunks: fc.option(fc.array(fc.integer({ min: 1, max: 700 }), { maxLength: 6 }), { nil: undefined }),
  }),
  { nil: undefined },
);

function framed({ bytes, chunks }: Body): { readonly lines: readonly string[]; readonly content: Buffer } {
  if (chunks === undefined) return { lines: [`Content-Length: ${bytes.length}`], content: bytes };
  const parts: Buffer[] = [];
  let at = 0;
  for (const size of [...chunks, bytes.length]) {
    const chunk = bytes.subarray(at, at + size);
    at += chunk.length;
    if (chunk.length > 0) parts.push(Buffer.from(`${chunk.length.toString(16)};x="y"\r\n`), chunk, Buffer.from("\r\n"));
  }
  return {
    lines: ["Transfer-Encoding: chunked"],
    content: Buffer.concat([...parts, Buffer.from("0\r\nX-Trailer: 1\r\n\r\n")]),
  };
}

/** The result of the call under its own id. */
function answerTo({ body }: StrictRequest): string {
  const { id } = JSON.parse(Buffer.from(body, "latin1").toString()) as { id: number };
  const result = JSON.stringify({ jsonrpc: "2.0", id, result: { content: [] } });
  return `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${result.length}\r\n\r\n${result}`;
}

const OURS = new Set([
  "host",
  "connection",
  "x-forwarded-client-cert",
  "client-cert",
  "content-length",
  "transfer-encoding",
]);

describe.each([0, 1])("way %i", (index) => {
  const way = (kind: ListenerKind) => running.listeners.filter((one) => one.kind === kind)[index] as Listener;

  it("a sound request arrives with its method, target, headers in their order and body", {
    timeout: TIMEOUT_MS,
  }, async () => {
    const listener = way("http service");
    const { service, host } = listener;
    const method = fc.constantFrom("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY");
    await fc.assert(
      fc.asyncProperty(method, target, headers, body, async (method, target, headers, body) => {
        const { lines, content } = body === undefined ? { lines: [], content: Buffer.alloc(0) } : framed(body);
        const closing = method === "HEAD" ? ["Connection: close"] : [];
        const named = headers.map(([name, value]) => `${name}: ${value}`);
        const head = [`${method} ${target} HTTP/1.1`, `Host: ${host}`, ...named, ...closing, ...lines];
        const before = listener.arrivals();
        const bytes = Buffer.concat([Buffer.from(`${head.join("\r\n")}\r\n\r\n`, "latin1"), content]);
        const answer = await exchangeRaw(listener.open(), bytes);

        expect({ status: answer.status, body: answer.body }).toEqual({
          status: 200,
          body: method === "HEAD" ? "" : "arrived",
        });
        expect(service?.faults).toEqual([]);
        expect(listener.arrivals()).toBe(before + 1);
        const arrived = service?.arrived.at(-1);
        expect(arrived).toMatchObject({ method, target, body: (body?.bytes ?? Buffer.alloc(0)).toString("latin1") });
        const theirs = arrived?.headers.filter(([name]) => !OURS.has(name.toLowerCase()));
        expect(theirs?.map(([name, value]) => `${name}: ${value}`)).toEqual(named);
        const decided = running.record.entries.findLast(({ kind }) => kind === "decision")?.fields;
        const [path = ""] = target.split("?");
        expect(decided).toMatchObject({ verdict: "ALLOW", action: method, target: decodeURIComponent(path) });
      }),
      { numRuns: runs(200) },
    );
  });

  it("a call of MCP arrives as the value that was decided on, whatever its bytes were", {
    timeout: TIMEOUT_MS,
  }, async () => {
    const listener = way("MCP service");
    const { service, host, sound } = listener;
    if (service !== undefined) service.answer.to = answerTo;
    let arrivals = 0;
    const unicode = (json: string) =>
      json.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(fc.string({ unit: "grapheme" }), fc.jsonValue()),
        fc.integer(),
        fc.boolean(),
        async (args, id, escaped) => {
          const call = { jsonrpc: "2.0", id, method: "tools/call", params: { name: "get_invoice", arguments: args } };
          const spaced = JSON.stringify(call, null, "\t");
          const content = Buffer.from(escaped ? unicode(spaced) : spaced);
          const head = [
            `POST ${sound.path} HTTP/1.1`,
            `Host: ${host}`,
            ...sound.headers,
            `Content-Length: ${content.length}`,
          ];
          const before = listener.arrivals();
          const answer = await exchangeRaw(
            listener.open(),
            Buffer.concat([Buffer.from(`${head.join("\r\n")}\r\n\r\n`), content]),
          );
          if (answer.status !== 200) {
            // Generated keys may differ by case only, and numbers may be too large.
            expect(answer).toMatchObject({ status: 400, body: expect.stringContaining('"code":"json-') });
            expect(listener.arrivals()).toBe(before);
            return;
          }
          arrivals += 1;
          expect(service?.faults).toEqual([]);
          expect(listener.arrivals()).toBe(before + 1);
          const body = Buffer.from(service?.arrived.at(-1)?.body ?? "", "latin1").toString();
          expect(body).toBe(JSON.stringify(call));
        },
      ),
      { numRuns: runs(200) },
    );
    expect(arrivals).toBeGreaterThan(runs(200) / 10);
  });
});
