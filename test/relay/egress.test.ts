import { once } from "node:events";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createCallStore } from "../../src/durable/call-store.js";
import { systemClock } from "../../src/platform/clock.js";
import { createDurableCalls } from "../../src/relay/durable-calls.js";
import { injectionOf } from "../../src/relay/injected-headers.js";
import { egressService } from "../../src/relay/running-service.js";
import { SecretError } from "../../src/secrets/secret-error.js";
import { storeThread } from "./durable-relay.js";
import { type Outside, runOutside, secret, target } from "./outside.js";
import { sendRaw } from "./raw-http.js";
import { identity, type RunningRelay, runRelay } from "./running-relay.js";

/** In memory. */
const answers = createCallStore({
  path: undefined,
  maxBytes: 1024 * 1024,
  keepMs: () => 60_000,
  clock: systemClock,
  thread: storeThread,
});

const SECRET = "sk-outside/0123456789+abcdef==";
const RULES = `rules:
  - { name: chat, allow: { from: agents/tests, to: egress/openai, method: POST, path: /chat/** } }
  - { name: reads, allow: { from: agents/tests, to: openai, method: GET, path: /models } }
  - { name: anything, allow: { from: agents/tests, to: egress/plain } }
  - { name: twice, allow: { from: agents/tests, to: egress/anthropic } }
`;

/** How long a busy machine may take. */
const soon = { timeout: 10_000 };

let outside: Outside;
let running: RunningRelay;
let fetched: string[];
let secretOf: (name: string) => Promise<string>;
/** All that any test has seen of record and events: the secret is nowhere in it. */
const seen: unknown[] = [];

const openai = (more: Parameters<typeof target>[2] = {}) =>
  target("openai", outside, { basePath: "/v1", header: { Authorization: `Bearer ${secret("openai")}` }, ...more });

beforeAll(async () => {
  outside = await runOutside();
});
afterAll(async () => {
  outside.close();
  await answers.close();
  expect(seen.length).toBeGreaterThan(0);
  expect(JSON.stringify(seen)).not.toContain(SECRET);
});

beforeEach(async () => {
  outside.arrived.length = 0;
  outside.answer = (_request, response) => response.end("outside");
  fetched = [];
  secretOf = async () => SECRET;
  running = await runRelay({
    services: [
      openai(),
      target("anthropic", outside, {
        header: { "x-api-key": secret("anthropic"), "anthropic-version": "2023-06-01" },
      }),
      target("plain", outside),
    ].map(egressService),
    rules: RULES,
    change: (parts) => ({
      ...parts,
      durable: createDurableCalls(answers, (message) => seen.push(message)),
      secrets: {
        valueOf: (name) => {
          fetched.push(name);
          return secretOf(name);
        },
      },
    }),
  });
});
afterEach(async () => {
  seen.push(running.record.entries, running.events);
  await running.close();
});

const call = (path: string, init: RequestInit = {}, name = "openai") => fetch(`${running.urlOf(name)}${path}`, init);
const decisions = () => running.record.entries.filter(({ kind }) => kind === "decision").map(({ fields }) => fields);
const outcomes = () => running.record.entries.filter(({ kind }) => kind === "call").map(({ fields }) => fields);

describe("a call to a named target", () => {
  it("goes out as it was decided, below the target's path, with the secret in its header", async () => {
    const body = JSON.stringify({ model: "m", stream: false });
    const response = await call("/chat/completions?n=1&q=a%20b", { method: "POST", body });
    expect({ status: response.status, text: await response.text() }).toEqual({ status: 200, text: "outside" });
    expect(outside.arrived).toHaveLength(1);
    expect(outside.arrived[0]).toMatchObject({ method: "POST", url: "/v1/chat/completions?n=1&q=a%20b", body });
    expect(outside.arrived[0]?.headers).toMatchObject({
      host: `127.0.0.1:${outside.port}`,
      authorization: `Bearer ${SECRET}`,
    });
    expect(decisions()).toMatchObject([
      { verdict: "ALLOW", caller: "spiffe://shop.local/agents/tests", serviceId: "spiffe://shop.local/egress/openai" },
    ]);
    expect(decisions()[0]).toMatchObject({
      service: "openai",
      rule: "chat",
      target: "/chat/completions",
      leg: "outbound",
    });
    expect(response.headers.get("agentid-decision")).toBe(decisions()[0]?.decision);
  });

  it("is refused without a rule, on record, and neither the target nor the secret is touched", async () => {
    for (const [method, path] of [
      ["GET", "/chat/completions"],
      ["POST", "/models"],
      ["POST", "/v1/chat/completions"],
    ] as const) {
      const response = await call(path, { method });
      expect(response.status).toBe(403);
      expect(await response.json()).toMatchObject({ code: "denied", rule: "default" });
    }
    expect(outside.arrived).toEqual([]);
    expect(fetched).toEqual([]);
    expect(decisions().map(({ verdict }) => verdict)).toEqual(["DENY", "DENY", "DENY"]);
    expect((await call("/models")).status).toBe(200);
  });

  it("is refused to whoever has no identity", async () => {
    running.configure([identity("agents/tests", { facts: { exePath: "/nowhere" } })]);
    expect(await (await call("/models")).json()).toMatchObject({ code: "no-identity" });
    expect(outside.arrived).toEqual([]);
    expect(fetched).toEqual([]);
  });

  it("reaches nothing but the target, whatever the request says of hosts", async () => {
    const port = Number(new URL(running.urlOf("openai")).port);
    const elsewhere = [
      `GET http://127.0.0.1:${outside.port}/models HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`,
      `GET /models HTTP/1.1\r\nHost: api.elsewhere.test\r\n\r\n`,
      `CONNECT 127.0.0.1:${outside.port} HTTP/1.1\r\nHost: 127.0.0.1:${outside.port}\r\n\r\n`,
      `GET /models/../../x HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`,
      `GET /models HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nOrigin: https://evil.test\r\n\r\n`,
    ];
    for (const bytes of elsewhere) expect((await sendRaw(port, bytes)).status).toBeGreaterThanOrEqual(400);
    expect(outside.arrived).toEqual([]);
    expect((await sendRaw(port, `GET /models HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`)).status).toBe(200);
  });
});

describe("what the caller sends along", () => {
  const sent = [
    ["Authorization", "Bearer mine"],
    ["X-Api-Key", "mine"],
    ["x_auth_token", "mine"],
    ["Api-Key", "mine"],
    ["Cookie", "session=mine"],
    ["X-Forwarded-For", "10.0.0.1"],
    ["X-Forwarded-Client-Cert", "By=me"],
    ["Forwarded", "for=10.0.0.1"],
    ["Via", "1.1 me"],
    ["Keep-Alive", "timeout=5"],
    ["Proxy-Authorization", "Basic mine"],
    ["Agentid-Ticket", "mine"],
    ["X-Custom", "stays"],
  ] as const;
  const raw = (name: string, path: string) => {
    const port = Number(new URL(running.urlOf(name)).port);
    const lines = sent.map(([key, value]) => `${key}: ${value}\r\n`).join("");
    return sendRaw(port, `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n${lines}\r\n`);
  };
  const names = () =>
    outside.arrived
      .at(-1)
      ?.rawHeaders.filter((_, index) => index % 2 === 0)
      .map((name) => name.toLowerCase());

  it("loses every credential where the target has its own: never both", async () => {
    expect((await raw("openai", "/models")).status).toBe(200);
    expect(names()?.sort()).toEqual(["authorization", "connection", "host", "x-custom"]);
    expect(outside.arrived.at(-1)?.headers.authorization).toBe(`Bearer ${SECRET}`);
    expect((await raw("anthropic", "/v1/messages")).status).toBe(200);
    expect(names()?.sort()).toEqual(["anthropic-version", "connection", "host", "x-api-key", "x-custom"]);
    expect(outside.arrived.at(-1)?.headers["x-api-key"]).toBe(SECRET);
  });

  it("keeps its own where the target has none, and nothing says more of it than it did", async () => {
    expect((await raw("plain", "/")).status).toBe(200);
    expect(names()?.sort()).toEqual([
      ...["api-key", "authorization", "connection", "cookie", "host", "x-api-key", "x-custom", "x_auth_token"],
    ]);
    expect(fetched).toEqual([]);
  });
});

describe("the secret", () => {
  it("that is not there is 503 with what to do, and nothing is sent", async () => {
    secretOf = async () => {
      throw new SecretError("secret-missing", "the secret openai is not there: agentid secret set openai");
    };
    const response = await call("/models");
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({
      code: "secret-missing",
      detail: "openai: the secret openai is not there: agentid secret set openai",
    });
    expect(outside.arrived).toEqual([]);
    expect(outcomes()).toMatchObject([{ status: 503, error: "secret-missing" }]);
  });

  it("that cannot be read is 503, and nothing is sent", async () => {
    secretOf = async () => {
      throw new SecretError("secret-unreadable", "the keychain does not answer: is it locked?");
    };
    expect(await (await call("/models")).json()).toMatchObject({ status: 503, code: "secret-unusable" });
    expect(outside.arrived).toEqual([]);
  });

  it("goes out byte by byte as it is, also where it is not ASCII", async () => {
    secretOf = async () => "cl\u00e9-0123456789";
    expect((await call("/models")).status).toBe(200);
    expect(outside.arrived[0]?.headers.authorization).toBe("Bearer cl\u00e9-0123456789");
  });

  it("is not sent for a caller that has gone while it was fetched", async () => {
    let give: (value: string) => void = () => undefined;
    secretOf = () => new Promise((resolve) => (give = resolve));
    const sent = httpRequest(`${running.urlOf("openai")}/models`).end();
    sent.on("error", () => undefined);
    await expect.poll(() => fetched, soon).toEqual(["openai"]);
    running.configure([identity("agents/tests", { facts: { exePath: "/nowhere" } })]);
    await new Promise((resolve) => sent.once("close", resolve));
    // The relay has heard of it too by the time that it has answered somebody else.
    expect((await call("/models")).status).toBe(403);
    give(SECRET);
    await expect.poll(outcomes, soon).toMatchObject([{ error: "no-identity" }, { error: "caller-gone" }]);
    expect(outside.arrived).toEqual([]);
  });

  it("is not sent by a policy that has changed while it was fetched", async () => {
    let give: (value: string) => void = () => undefined;
    secretOf = () => new Promise((resolve) => (give = resolve));
    const answered = call("/models");
    await expect.poll(() => fetched, soon).toEqual(["openai"]);
    running.setRules("rules: []\n");
    give(SECRET);
    expect(await (await answered).json()).toMatchObject({ status: 503, code: "not-ready" });
    expect(outside.arrived).toEqual([]);
    running.setRules(RULES);
    secretOf = async () => SECRET;
    expect((await call("/models")).status).toBe(200);
  });

  it("does not come back in the headers of an answer, in no form, and the rest does", async () => {
    outside.answer = (_request, response) => {
      response.writeHead(200, {
        "X-Echo": `Bearer ${SECRET}`,
        "Set-Cookie": [`key=${encodeURIComponent(SECRET)}; Path=/`, "other=1"],
        "X-Basic": Buffer.from(SECRET).toString("base64"),
        Location: `/?key=${Buffer.from(SECRET).toString("base64url")}`,
        "X-Other": "stays",
        "Content-Length": "7",
      });
      response.end("outside");
    };
    const response = await call("/models");
    expect([...response.headers].filter(([name]) => !["date", "connection", "keep-alive"].includes(name))).toEqual([
      ["agentid-decision", expect.any(String)],
      ["content-length", "7"],
      ["location", "/?key=[redacted]"],
      ["set-cookie", "key=[redacted]; Path=/"],
      ["set-cookie", "other=1"],
      ["x-basic", "[redacted]"],
      ["x-echo", "Bearer [redacted]"],
      ["x-other", "stays"],
    ]);
  });

  it("is asked for by no WebSocket: none goes out", async () => {
    const port = Number(new URL(running.urlOf("openai")).port);
    const upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"];
    const answer = await sendRaw(
      port,
      [
        ...["GET /models HTTP/1.1", `Host: 127.0.0.1:${port}`, ...upgrade],
        ...["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""],
      ].join("\r\n"),
    );
    expect([answer.status, outside.arrived, fetched]).toEqual([501, [], []]);
    expect((await call("/models")).status).toBe(200);
  });

  it("is not kept with the answer to a call with a key, nor given again with it", async () => {
    outside.answer = (_request, response) => response.writeHead(200, { "X-Echo": `Bearer ${SECRET}` }).end("outside");
    const ask = async () => {
      const response = await call("/chat/x", { method: "POST", body: "{}", headers: { "Idempotency-Key": "k" } });
      expect(await response.text()).toBe("outside");
      return ["idempotency-replayed", "x-echo"].map((name) => response.headers.get(name));
    };
    expect(await ask()).toEqual([null, "Bearer [redacted]"]);
    expect(await ask()).toEqual(["true", "Bearer [redacted]"]);
    expect(outside.arrived).toHaveLength(1);
  });
});

it("a secret as short as a number does not break what frames an answer", () => {
  const { redact } = injectionOf([{ name: "X-Key", value: [{ secret: "a" }] }], new Map([["a", "7"]]));
  expect(redact(["Content-Length", "7", "X-A", "7", "X-7", "b"])).toEqual(["Content-Length", "7", "X-A", "[redacted]"]);
  expect(redact(["Content-Length", "8", "X-A", "8"])).toEqual(["Content-Length", "8", "X-A", "8"]);
});

describe("what flows", () => {
  it("each server-sent event goes on at once", async () => {
    const upstream = new Promise<import("node:http").ServerResponse>((resolve) => {
      outside.answer = (_request, response) => resolve(response);
    });
    const sent = httpRequest(`${running.urlOf("openai")}/chat/completions`, { method: "POST" }).end("{}");
    const response = await upstream;
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.flushHeaders();
    const [answer] = (await once(sent, "response")) as [IncomingMessage];
    for (const event of ["data: 1\n\n", "data: [DONE]\n\n"]) {
      response.write(event);
      const [chunk] = (await once(answer, "data")) as [Buffer];
      expect(chunk.toString()).toBe(event);
    }
    response.end();
    await once(answer.resume(), "end");
  });

  it("a body whose length nobody knows goes out chunk by chunk", async () => {
    const sent = httpRequest(`${running.urlOf("openai")}/chat/files`, { method: "POST" });
    let all = "";
    for (const part of ["one ", "two ", "three"]) {
      sent.write(part);
      all += part;
      await expect.poll(() => outside.arriving, soon).toBe(all);
    }
    sent.end();
    const [answer] = (await once(sent, "response")) as [IncomingMessage];
    await once(answer.resume(), "end");
    expect(outside.arrived[0]).toMatchObject({ body: "one two three" });
    expect(outside.arrived[0]?.headers["transfer-encoding"]).toBe("chunked");
  });

  it("early hints of the target do not stand for its answer", async () => {
    outside.answer = (_request, response) => {
      response.writeEarlyHints({ link: "</style.css>; rel=preload" });
      response.writeHead(201).end("made");
    };
    const response = await call("/models");
    expect({ status: response.status, text: await response.text() }).toEqual({ status: 201, text: "made" });
  });

  it("a redirect is the caller's to follow, and leads to another target only by that target's own rule", async () => {
    const anthropic = running.urlOf("anthropic");
    running.setRules(RULES.replace(/.*twice.*\n/, ""));
    outside.answer = (_request, response) => response.writeHead(307, { Location: `${anthropic}/v1/messages` }).end();
    const response = await call("/models", { redirect: "manual" });
    expect(response.status).toBe(307);
    expect(response.headers.get("location")).toBe(`${anthropic}/v1/messages`);
    expect(outside.arrived).toHaveLength(1);
    expect((await call("/models", { redirect: "follow" })).status).toBe(403);
    expect(outside.arrived).toHaveLength(2);
    running.setRules(RULES);
    outside.answer = (request, response) =>
      request.url === "/v1/models"
        ? response.writeHead(307, { Location: `${anthropic}/v1/messages` }).end()
        : response.end("there");
    expect(await (await call("/models", { redirect: "follow" })).text()).toBe("there");
  });

  it("a call goes to where the target is now", async () => {
    const moved = await runOutside();
    try {
      const kept = running.urlOf("openai");
      expect((await call("/models")).status).toBe(200);
      await running.relay.update([
        egressService(target("openai", moved, { header: { "X-Key": secret("other") } })),
        egressService(target("plain", outside)),
      ]);
      expect(running.urlOf("openai")).toBe(kept);
      expect((await call("/models")).status).toBe(200);
      expect(outside.arrived).toHaveLength(1);
      expect(moved.arrived).toMatchObject([{ url: "/models", headers: { "x-key": SECRET } }]);
      expect(moved.arrived[0]?.headers.authorization).toBeUndefined();
      expect(running.relay.egressUrlOf("anthropic")).toBeUndefined();
    } finally {
      moved.close();
    }
  });
});
