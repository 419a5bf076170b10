import { afterEach, describe, expect, it } from "vitest";
import {
  ask,
  codeOf,
  type DurableRelay,
  type DurableRelayOptions,
  held,
  PATIENT,
  runDurableRelay,
  send,
} from "./durable-relay.js";
import { sendRaw } from "./raw-http.js";

let relay: DurableRelay | undefined;

async function running(options: DurableRelayOptions): Promise<DurableRelay> {
  relay = await runDurableRelay(options);
  return relay;
}

afterEach(async () => {
  await relay?.close();
  relay = undefined;
});

let count = 0;
/** Counts what it is asked, and says so. */
const counting: DurableRelayOptions["answer"] = (request, response) => {
  request.resume().on("end", () => {
    count += 1;
    response.writeHead(201, { "Content-Type": "application/json", "Set-Cookie": "session=secret", ETag: '"7"' });
    response.end(JSON.stringify({ number: count }));
  });
};

describe("a request with a key", () => {
  it("is sent once; asked again it has the same answer, which says so", async () => {
    const { url, orders, outcomes, verdicts } = await running({ answer: counting });
    const call = {
      key: '"8e03978e-40d5-43e8-bc93-6f8d6e4d8b1f"',
      body: '{"amount":5}',
      headers: { "Content-Type": "application/json" },
    };
    const first = await ask(url, call);
    const again = await ask(url, call);
    expect(first).toMatchObject({ status: 201, headers: { etag: '"7"', "set-cookie": ["session=secret"] } });
    expect(first.headers["idempotency-replayed"]).toBeUndefined();
    expect(again).toMatchObject({
      status: 201,
      body: first.body,
      headers: { etag: '"7"', "idempotency-replayed": "true" },
    });
    expect(again.headers.date).toBe(first.headers.date);
    expect(again.headers["set-cookie"]).toBeUndefined();
    expect(orders.arrived).toHaveLength(1);
    expect(orders.arrived[0]?.headers["idempotency-key"]).toBe(call.key);
    // Decided each time, each with an id of its own, and the record says which answer was an old one.
    expect(verdicts()).toEqual(["ALLOW", "ALLOW"]);
    expect(again.headers["agentid-decision"]).not.toBe(first.headers["agentid-decision"]);
    expect(outcomes()).toMatchObject([{ status: 201 }, { status: 201, replayed: true }]);
    expect(outcomes()[0]).not.toHaveProperty("replayed");
  });

  it("without a key is sent each time", async () => {
    const { url, orders } = await running({ answer: counting });
    const bodies = [await ask(url, { body: "x" }), await ask(url, { body: "x" })].map(({ body }) => body);
    expect(new Set(bodies).size).toBe(2);
    expect(orders.arrived).toHaveLength(2);
  });

  it.each(["GET", "HEAD", "OPTIONS"])("%s changes nothing, and is sent each time", async (method) => {
    const { url, orders } = await running({ answer: counting });
    await ask(url, { key: "k", method });
    expect((await ask(url, { key: "k", method })).headers["idempotency-replayed"]).toBeUndefined();
    expect(orders.arrived).toHaveLength(2);
  });

  it.each(["POST", "PUT", "PATCH", "DELETE"])("%s is sent once", async (method) => {
    const { url, orders } = await running({ answer: counting });
    await ask(url, { key: "k", method });
    expect((await ask(url, { key: "k", method })).headers["idempotency-replayed"]).toBe("true");
    expect(orders.arrived).toHaveLength(1);
  });

  it.each([
    ["a body", { body: "1" }, { body: "2" }],
    ["a body instead of none", {}, { body: "2" }],
    [
      "a content type",
      { body: "1", headers: { "Content-Type": "text/plain" } },
      { body: "1", headers: { "Content-Type": "text/html" } },
    ],
    ["a condition", { headers: { "If-Match": '"1"' } }, { headers: { "If-Match": '"2"' } }],
  ])("is refused with another %s under the same key, and nothing is sent", async (_, one, other) => {
    const { url, orders } = await running({ answer: counting });
    await ask(url, { key: "k", ...one });
    const refused = await ask(url, { key: "k", ...other });
    expect([refused.status, codeOf(refused)]).toEqual([422, "key-reused"]);
    expect(orders.arrived).toHaveLength(1);
    expect((await ask(url, { key: "k", ...one })).headers["idempotency-replayed"]).toBe("true");
    expect((await ask(url, { key: "new", ...other })).status).toBe(201);
  });

  it("is the same request with other credentials, traces and header order", async () => {
    const { url, orders } = await running({ answer: counting });
    const meant = { "Content-Type": "text/plain", Prefer: "wait" };
    await ask(url, { key: "k", headers: { ...meant, Authorization: "Bearer 1", traceparent: "1", Accept: "a/b" } });
    const again = await ask(url, {
      key: "k",
      headers: { Authorization: "Bearer 2", Prefer: "wait", "Content-Type": "text/plain" },
    });
    expect(again.headers["idempotency-replayed"]).toBe("true");
    expect(orders.arrived).toHaveLength(1);
  });

  it.each([
    ["method", { method: "PUT" }],
    ["path", { path: "/v1/other" }],
    ["query", { path: "/v1/orders?page=2" }],
    ["key", { key: "K" }],
  ])("is another one with another %s", async (_, other) => {
    const { url, orders } = await running({ answer: counting });
    await ask(url, { key: "k" });
    expect((await ask(url, { key: "k", ...other })).headers["idempotency-replayed"]).toBeUndefined();
    expect(orders.arrived).toHaveLength(2);
    expect((await ask(url, { key: "k" })).headers["idempotency-replayed"]).toBe("true");
  });

  it("that is no longer permitted is denied, not answered from the store", async () => {
    const { url, orders, running: relay } = await running({ answer: counting });
    const first = await ask(url, { key: "k" });
    relay.setRules("rules:\n  - { name: other, allow: { from: agents/tests, to: orders, path: /v2/* } }\n");
    const denied = await ask(url, { key: "k" });
    expect([denied.status, codeOf(denied)]).toEqual([403, "denied"]);
    expect(denied.body).not.toContain(first.body);
    relay.setRules("rules:\n  - { name: all, allow: { from: agents/tests, to: orders } }\n");
    expect(await ask(url, { key: "k" })).toMatchObject({ status: 201, body: first.body });
    expect(orders.arrived).toHaveLength(1);
  });

  it("that was denied has no answer yet: once it is permitted it is sent", async () => {
    const { url, orders, running: relay } = await running({ answer: counting, rules: "rules: []\n" });
    expect((await ask(url, { key: "k" })).status).toBe(403);
    relay.setRules("rules:\n  - { name: all, allow: { from: agents/tests, to: orders } }\n");
    expect((await ask(url, { key: "k" })).status).toBe(201);
    expect(orders.arrived).toHaveLength(1);
  });
});

describe("keys", () => {
  const text = (value: string | undefined, more = "") =>
    `POST /v1/orders HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n${value === undefined ? "" : `Idempotency-Key: ${value}\r\n`}${more}Content-Length: 0\r\n\r\n`;

  it.each([
    ["a string of structured fields", '"key"'],
    ["with escapes", '"a \\"b\\" \\\\ c"'],
    ["a bare UUID", "8e03978e-40d5-43e8-bc93-6f8d6e4d8b1f"],
    ["as SDKs send it", "stainless-node-retry-8e03978e-40d5-43e8-bc93-6f8d6e4d8b1f"],
    ["base64", "AAECAwQ+/w=="],
    ["of 255 characters", `"${"k".repeat(255)}"`],
  ])("are taken: %s", async (_, value) => {
    const { url, orders } = await running({ answer: counting });
    const bytes = text(value).replace("PORT", url.port);
    const first = await sendRaw(Number(url.port), bytes);
    expect(first.status).toBe(201);
    expect((await sendRaw(Number(url.port), bytes)).head).toMatch(/idempotency-replayed: true/i);
    expect(orders.arrived).toHaveLength(1);
  });

  it.each([
    ["empty", "", "", 400, "idempotency-key"],
    ["an empty string", '""', "", 400, "idempotency-key"],
    ["of 256 characters", "k".repeat(256), "", 400, "idempotency-key"],
    ["of 256 characters in quotes", `"${"k".repeat(256)}"`, "", 400, "idempotency-key"],
    ["a quote that does not end", '"key', "", 400, "idempotency-key"],
    ["a quote in the middle", 'ke"y', "", 400, "idempotency-key"],
    ["an escape that is none", '"k\\ey"', "", 400, "idempotency-key"],
    ["a list", "one, two", "", 400, "idempotency-key"],
    ["a list of strings", '"one", "two"', "", 400, "idempotency-key"],
    ["a string with a parameter", '"key";v=1', "", 400, "idempotency-key"],
    ["a token with a parameter", "key;v=1", "", 400, "idempotency-key"],
    ["an inner list", '("key")', "", 400, "idempotency-key"],
    ["a blank without quotes", "one two", "", 400, "idempotency-key"],
    ["outside ASCII", '"schl\u00fcssel"', "", 400, "idempotency-key"],
    ["a tab", '"a\tb"', "", 400, "idempotency-key"],
    ["a control character", '"a\u0001b"', "", 400, "http-malformed"],
    ["NUL", '"a\u0000b"', "", 400, "http-malformed"],
    ["DEL", '"a\u007fb"', "", 400, "http-malformed"],
    ["given twice", '"key"', 'Idempotency-Key: "key"\r\n', 400, "header-duplicate"],
    ["given twice, once in another spelling", '"key"', "idempotency_key: other\r\n", 400, "header-underscore-twin"],
    ["of a megabyte", "k".repeat(1024 * 1024), "", 431, "header-count"],
  ])("are refused: %s", async (_, value, more, status, code) => {
    const { url, orders, verdicts } = await running({ answer: counting });
    const answer = await sendRaw(Number(url.port), text(value, more).replace("PORT", url.port));
    expect(answer.status).toBe(status);
    expect(answer.body).toContain(code);
    expect(orders.arrived).toHaveLength(0);
    expect(verdicts()).toEqual(["DENY"]);
    // The control: the same without a key.
    expect((await sendRaw(Number(url.port), text(undefined).replace("PORT", url.port))).status).toBe(201);
    expect(orders.arrived).toHaveLength(1);
  });

  it("are the same with and without quotes", async () => {
    const { url, orders } = await running({ answer: counting });
    await ask(url, { key: '"key"' });
    expect((await ask(url, { key: "key" })).headers["idempotency-replayed"]).toBe("true");
    expect(orders.arrived).toHaveLength(1);
  });

  it("come with a body of at most 1 MiB", async () => {
    const { url, orders } = await running({ answer: counting });
    const most = "x".repeat(1024 * 1024);
    const refused = await ask(url, { key: "k", body: `${most}x` });
    expect([refused.status, codeOf(refused)]).toEqual([413, "body-too-large"]);
    expect(orders.arrived).toHaveLength(0);
    expect((await ask(url, { key: "k", body: most })).status).toBe(201);
    expect((await ask(url, { body: `${most}x` })).status).toBe(201);
  });
});

describe("two at once", () => {
  it("the second waits and has the first's answer", async () => {
    const service = held();
    const { url, outcomes } = await running({ answer: service.listener });
    const first = ask(url, { key: "k", body: "1" });
    const { response, body } = await service.at(0);
    const others = [ask(url, { key: "k", body: "1" }), ask(url, { key: "k", body: "1" })];
    const refused = await ask(url, { key: "k", body: "2" });
    expect([refused.status, codeOf(refused)]).toEqual([422, "key-reused"]);
    response.end("done");
    expect((await first).body).toBe("done");
    for (const other of others) {
      expect(await other).toMatchObject({ body: "done", headers: { "idempotency-replayed": "true" } });
    }
    expect(body).toBe("1");
    expect(service.arrived).toHaveLength(1);
    expect(outcomes().filter(({ replayed }) => replayed === true)).toHaveLength(2);
  });

  it("the second is decided when its answer goes out, not when it began to wait", async () => {
    const service = held();
    const { url, running: relay } = await running({ answer: service.listener });
    const first = ask(url, { key: "k" });
    const { response } = await service.at(0);
    const second = ask(url, { key: "k" });
    // It has been read, and waits: a third, with another body, is refused at once.
    expect((await ask(url, { key: "k", body: "2" })).status).toBe(422);
    relay.setRules("rules: []\n");
    response.end("done");
    expect((await first).status).toBe(200);
    expect((await second).status).toBe(403);
  });

  it("many run once", async () => {
    const { url, orders } = await running({ answer: counting });
    const answers = await Promise.all(Array.from({ length: 40 }, () => ask(url, { key: "k", body: "1" })));
    expect(orders.arrived).toHaveLength(1);
    expect(new Set(answers.map(({ body }) => body)).size).toBe(1);
    expect(answers.filter(({ headers }) => headers["idempotency-replayed"] === undefined)).toHaveLength(1);
  });

  it("with other keys do not wait for each other", async () => {
    const service = held();
    const { url } = await running({ answer: service.listener });
    const calls = [ask(url, { key: "a" }), ask(url, { key: "b" })];
    for (const index of [1, 0]) (await service.at(index)).response.end("done");
    expect((await Promise.all(calls)).map(({ status }) => status)).toEqual([200, 200]);
  });

  it("the second hears that the first is under way when it has waited for long", async () => {
    const service = held();
    const waits: (() => void)[] = [];
    const { url } = await running({
      answer: service.listener,
      // What may be done twice is not done twice at once.
      service: { idempotent: [{ method: "POST" }] },
      clock: {
        now: () => Date.now(),
        after(delayMs, callback) {
          if (delayMs === 20_000) waits.push(callback);
          const timer = setTimeout(callback, delayMs).unref();
          return () => clearTimeout(timer);
        },
      },
    });
    const first = ask(url, { key: "k" });
    const { response } = await service.at(0);
    const second = ask(url, { key: "k" });
    await expect.poll(() => waits, PATIENT).toHaveLength(1);
    waits[0]?.();
    expect(await second).toMatchObject({ status: 409, headers: { "retry-after": "1" } });
    expect(codeOf(await second)).toBe("in-flight");
    response.end("done");
    expect((await first).body).toBe("done");
    expect((await ask(url, { key: "k" })).headers["idempotency-replayed"]).toBe("true");
    expect(service.arrived).toHaveLength(1);
  });
});

describe("a call whose end nobody saw", () => {
  it("goes on when its caller is gone; whoever asks again has its answer", async () => {
    const service = held();
    const { url, outcomes } = await running({ answer: service.listener });
    const { request } = send(url, { key: "k", body: "1" });
    const { response } = await service.at(0);
    request.destroy();
    await expect.poll(outcomes, PATIENT).toMatchObject([{ error: "caller-gone" }]);
    const again = ask(url, { key: "k", body: "1" });
    response.end("done");
    expect(await again).toMatchObject({ body: "done", headers: { "idempotency-replayed": "true" } });
    expect(service.arrived).toHaveLength(1);
    // The record has what became of it.
    expect(outcomes()).toMatchObject([{ error: "caller-gone" }, { status: 200 }, { status: 200, replayed: true }]);
  });

  it("that is half read goes on too", async () => {
    const service = held();
    const { url } = await running({ answer: service.listener });
    const { request } = send(url, { key: "k" });
    const { response } = await service.at(0);
    response.write("half");
    await new Promise((resolve) => request.once("response", (answer) => answer.once("data", resolve)));
    request.destroy();
    const again = ask(url, { key: "k" });
    response.end(" and half");
    expect(await again).toMatchObject({ body: "half and half" });
    expect(service.arrived).toHaveLength(1);
  });

  it("ends when its caller's identity does", async () => {
    const service = held();
    const { url, running: relay } = await running({ answer: service.listener });
    const { request } = send(url, { key: "k" });
    const { response } = await service.at(0);
    const cut = new Promise((resolve) => response.once("close", resolve));
    request.destroy();
    await expect
      .poll(() => relay.record.entries.some(({ fields }) => fields.error === "caller-gone"), PATIENT)
      .toBe(true);
    expect(response.destroyed).toBe(false);
    relay.configure(relay.identities.slice(1));
    await cut;
  });
});
