import { connect } from "node:net";
import { connect as connectTls } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { secureContextOf } from "../../src/http/mutual-tls.js";
import { exchangeRaw, type RawAnswer } from "../relay/raw-http.js";
import { decidesBy, type RunningAuthzen, runAuthzen } from "./running-authzen.js";

let running: RunningAuthzen;
/** Everything is permitted: whatever is refused here is refused for its form alone. */
const decisionPoint = decidesBy(() => true);

beforeAll(async () => {
  running = await runAuthzen({ change: () => ({ decisionPoint: () => decisionPoint }) });
});
afterAll(() => running.close());

interface Listener {
  readonly name: string;
  readonly host: () => string;
  readonly open: () => ReturnType<typeof connect>;
}

const doors: readonly Listener[] = [
  { name: "Unix socket", host: () => "localhost", open: () => connect(running.unix.socketPath) },
  {
    name: "TLS listener",
    host: () => `127.0.0.1:${running.tlsPort}`,
    open: () =>
      connectTls({
        ...{ host: "127.0.0.1", port: running.tlsPort, rejectUnauthorized: false },
        secureContext: secureContextOf(running.svidOf("agents/gateway")),
      }),
  },
];

const PATHS = ["evaluation", "evaluations", "search/subject", "search/resource", "search/action"].map(
  (path) => `/access/v1/${path}`,
);
const GOOD = '{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"r1"}}';
const changed = (from: string, to: string) => GOOD.replace(from, to);
const deep = (levels: number) => changed("}}", `},"context":{"a":${"[".repeat(levels)}${"]".repeat(levels)}}}`);

/** Bodies that no parser may be left to guess about. */
const badBodies: readonly (readonly [what: string, body: string | Buffer])[] = [
  ["nothing", ""],
  ["white space", "  "],
  ["null", "null"],
  ["an array", `[${GOOD}]`],
  ["a string", '"x"'],
  ["a number", "7"],
  ["two documents", `${GOOD}${GOOD}`],
  ["a comma too many", changed('"id":"alice"', '"id":"alice",')],
  ["a comment", changed("{", "{/* */")],
  ["a single quote", changed('"alice"', "'alice'")],
  ["NaN", changed('"alice"', "NaN")],
  ["a key twice", changed('"id":"alice"', '"id":"alice","id":"root"')],
  ["a key twice, once escaped", changed('"id":"alice"', '"id":"alice","\\u0069d":"root"')],
  ["a subject twice", changed('"action"', '"subject":{"type":"user","id":"root"},"action"')],
  ["a key in another case", changed('"action"', '"Subject":{"type":"user","id":"root"},"action"')],
  ["__proto__", changed('"id":"alice"', '"id":"alice","__proto__":{"type":"admin"}')],
  ["1e400", changed("}}", '},"context":{"a":1e400}}')],
  ["an integer beyond 2^53", changed("}}", '},"context":{"a":9007199254740993}}')],
  ["65 levels", deep(65)],
  ["100,000 levels", deep(100_000)],
  ["a byte order mark", Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from(GOOD)])],
  ["invalid UTF-8", Buffer.from(changed("alice", "al\xffce"), "latin1")],
  ["an overlong slash", Buffer.from(changed("alice", "\xc0\xaf"), "latin1")],
  ["UTF-16", Buffer.from(GOOD, "utf16le")],
  ["half a surrogate pair", changed("alice", "\\ud800")],
  ["a control character in a string", changed("alice", "al\u0000ice")],
  ["an empty type", changed('"user"', '""')],
  ["a type that is a list", changed('"user"', '["user"]')],
  ["a type that is a number", changed('"user"', "7")],
  ["a type that is null", changed('"user"', "null")],
  ["properties that are a list", changed('"id":"alice"', '"id":"alice","properties":[]')],
  ["properties that are null", changed('"id":"alice"', '"id":"alice","properties":null')],
  ["context that is a string", changed("}}", '},"context":"x"}')],
];

describe.each(doors)("the $name", ({ host, open }) => {
  const send = (bytes: string | Buffer) => exchangeRaw(open(), bytes);
  const post = (body: string | Buffer, path = PATHS[0], ...headers: string[]): Promise<RawAnswer> => {
    const bytes = Buffer.from(body);
    const type = headers.some((header) => /^content-type/i.test(header)) ? [] : ["Content-Type: application/json"];
    const head = [`POST ${path} HTTP/1.1`, `Host: ${host()}`, ...type, ...headers, `Content-Length: ${bytes.length}`];
    return send(Buffer.concat([Buffer.from(`${head.join("\r\n")}\r\n\r\n`, "latin1"), bytes]));
  };
  const isRefusal = ({ status, head, body }: RawAnswer, expected: number) => {
    expect({ status, body }).toEqual({ status: expected, body: expect.not.stringContaining('"decision"') });
    expect(head).toMatch(/content-type: (text\/plain|application\/problem\+json)/i);
  };

  it.each(badBodies)("refuses a body with %s, at every endpoint", async (_, body) => {
    for (const path of PATHS) {
      const asked = decisionPoint.asked.length;
      isRefusal(await post(body, path), 400);
      expect(decisionPoint.asked.length).toBe(asked);
    }
    expect(await post(GOOD)).toMatchObject({ status: 200, body: expect.stringContaining('"decision":true') });
  });

  it("takes 64 levels, unknown members, and names of every kind", async () => {
    expect((await post(deep(60))).status).toBe(200);
    for (const name of ["ключ", "a\\u0000b", "../..", "%00", "constructor", "a".repeat(10_000)]) {
      expect((await post(changed('"alice"', `"${name}"`))).status).toBe(200);
    }
    expect((await post(changed("{", '{"future":{"a":[1,2]},'))).status).toBe(200);
  });

  it.each([
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/json; charset=utf-16",
    "application/jsonp",
    "application/json, text/plain",
    "",
  ])("refuses the content type %j", async (type) => {
    isRefusal(await post(GOOD, PATHS[0], `Content-Type: ${type}`), 400);
    expect((await post(GOOD, PATHS[0], "Content-Type: Application/JSON; charset=UTF-8")).status).toBe(200);
  });

  it("refuses encoded bodies, a header twice and header twins", async () => {
    isRefusal(await post(GOOD, PATHS[0], "Content-Encoding: gzip"), 400);
    isRefusal(await post(GOOD, PATHS[0], "Content-Type: application/json", "Content-Type: text/plain"), 400);
    isRefusal(await post(GOOD, PATHS[0], `Host: ${host()}`), 400);
    isRefusal(await post(GOOD, PATHS[0], "Content_Type: text/plain"), 400);
    isRefusal(await post(GOOD, PATHS[0], "Upgrade: websocket", "Connection: upgrade"), 501);
  });

  it.each(["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "QUERY", "TRACE"])(
    "refuses %s at every endpoint",
    async (method) => {
      for (const path of PATHS) {
        const answer = await sendHead(`${method} ${path}`);
        expect(answer).toMatchObject({ status: 405, head: expect.stringMatching(/allow: POST/i) });
        if (method === "HEAD") expect(answer.body).toBe("");
      }
    },
  );

  const sendHead = (line: string) =>
    send(`${line} HTTP/1.1\r\nHost: ${host()}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);

  it("answers nothing at other paths, and the metadata to GET only", async () => {
    for (const path of [
      "/",
      "/access/v1/evaluation/",
      "/access/v1/evaluation?x=1",
      "//access/v1/evaluation",
      "/access/v1/%65valuation",
      "/ACCESS/v1/evaluation",
      `http://${host()}/access/v1/evaluation`,
      "/access/v1/../v1/evaluation",
    ]) {
      expect((await post(GOOD, path)).status).toBe(404);
    }
    expect((await sendHead("GET /.well-known/authzen-configuration")).status).toBe(200);
    expect((await sendHead("POST /.well-known/authzen-configuration")).status).toBe(405);
    expect((await sendHead("GET /.well-known/authzen-configuration/tenant1")).status).toBe(404);
  });

  it.each([
    ["CL and TE", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    ["TE that is no chunked", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"],
    ["TE twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    ["a length twice", "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"],
    ["a folded header", "X-A: a\r\n b: c\r\n\r\n"],
    ["a bare line feed", "X-A: a\nX-B: b\r\n\r\n"],
    ["no host", "X: y\r\n\r\n"],
  ])("refuses %s", async (what, rest) => {
    const first = what === "no host" ? "" : `Host: ${host()}\r\n`;
    const { status, body } = await send(
      `POST ${PATHS[0]} HTTP/1.1\r\n${first}Content-Type: application/json\r\n${rest}`,
    );
    expect([400, 421]).toContain(status);
    expect(body).not.toContain('"decision"');
  });

  it("refuses what is larger than 1 MiB, and takes what is not", async () => {
    const padded = (size: number) => changed("}}", `},"context":{"a":"${"x".repeat(size - GOOD.length - 20)}"}}`);
    expect((await post(padded(1024 * 1024 - 100))).status).toBe(200);
    isRefusal(await post(padded(1024 * 1024 + 100)), 413);
    // Parsed, and ignored.
    expect((await post(changed("}}", `},"context":{"a":[${"0,".repeat(150_000)}0]}}`))).status).toBe(200);
    isRefusal(await post(changed("}}", `},"context":{"a":[${"0,".repeat(300_000)}0]}}`)), 400);
  });

  it("gives every answer the X-Request-ID it was asked with, refusals among them", async () => {
    for (const [body, status] of [
      [GOOD, 200],
      ["{", 400],
    ] as const) {
      const answer = await post(body, PATHS[0], "X-Request-ID: a-b.c:1");
      expect(answer).toMatchObject({ status, head: expect.stringMatching(/x-request-id: a-b\.c:1\r?$/im) });
    }
    const { head } = await post(GOOD);
    expect(head).not.toMatch(/x-request-id/i);
  });

  it("does not read the body of what it refuses before, nor take it for a request", async () => {
    const smuggled = `POST ${PATHS[0]} HTTP/1.1\r\nHost: ${host()}\r\nContent-Type: application/json\r\nContent-Length: ${GOOD.length}\r\n\r\n${GOOD}`;
    const asked = decisionPoint.asked.length;
    const answer = await post(smuggled, PATHS[0], "Content-Type: text/plain");
    expect(answer).toMatchObject({ status: 400, head: expect.stringMatching(/connection: close/i) });
    expect(decisionPoint.asked.length).toBe(asked);
  });
});

it("ends a body that does not come in time", async () => {
  const { clock: real } = running.parts;
  const deadlines: (() => void)[] = [];
  const slow = await runAuthzen({
    change: () => ({
      clock: {
        ...real,
        now: () => real.now(),
        after(_: number, run: () => void) {
          deadlines.push(run);
          return () => undefined;
        },
      },
    }),
  });
  try {
    const answer = exchangeRaw(
      connect(slow.unix.socketPath),
      `POST ${PATHS[0]} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"subject"`,
    );
    await expect.poll(() => deadlines.length).toBe(1);
    deadlines[0]?.();
    expect((await answer).status).toBe(408);
  } finally {
    await slow.close();
  }
});
