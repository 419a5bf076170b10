import { once } from "node:events";
import { Agent, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import { Agent as TlsAgent, request as tlsRequest } from "node:https";
import { connect as connectTcp, type Socket } from "node:net";
import { connect } from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { secureContextOf } from "../../src/http/mutual-tls.js";
import { exchangeRaw, sendRaw } from "./raw-http.js";
import { identity, type RunningRelay, runRelay, runUpstream, testAgent, type Upstream } from "./running-relay.js";

const MOST = 4;
const RULES = "rules:\n  - { name: all, allow: { from: agents/*, to: [invoices, orders] } }\n";

let invoices: Upstream;
let orders: Upstream;
let running: RunningRelay;
let agent: Agent;

const answerAtOnce = (request: IncomingMessage, response: ServerResponse) =>
  void request.resume().on("end", () => response.end("arrived"));

async function start(maxConnections?: number): Promise<void> {
  invoices = await runUpstream("invoices", "http", answerAtOnce);
  orders = await runUpstream("orders", "http", answerAtOnce);
  running = await runRelay({
    services: [invoices.service, orders.service],
    identities: [testAgent, identity("agents/other")],
    rules: RULES,
    change: (parts) => ({ ...parts, ...(maxConnections !== undefined && { maxConnections }) }),
  });
}

beforeEach(() => {
  agent = new Agent({ keepAlive: true });
});

afterEach(async () => {
  agent.destroy();
  await running.close();
  invoices.close();
  orders.close();
});

const portOf = (service: string) => Number(new URL(running.urlOf(service)).port);
const inboundPort = () => running.relay.addressesOf("invoices")?.mtls.port ?? 0;
const secureContext = () => secureContextOf(running.svidOf("agents/other"));

describe("connections beyond the bound", () => {
  beforeEach(() => start(MOST));

  const legs = [
    {
      leg: "outbound",
      get: () => `GET /v1/x HTTP/1.1\r\nHost: 127.0.0.1:${portOf("invoices")}\r\n\r\n`,
      async open(): Promise<Socket> {
        const socket = connectTcp(portOf("invoices"), "127.0.0.1");
        await once(socket, "connect");
        return socket;
      },
    },
    {
      leg: "inbound",
      get: () => "GET /v1/x HTTP/1.1\r\nHost: invoices\r\n\r\n",
      async open(): Promise<Socket> {
        const socket = connect({
          ...{ host: "127.0.0.1", port: inboundPort(), rejectUnauthorized: false },
          secureContext: secureContext(),
        });
        await once(socket, "secureConnect");
        return socket;
      },
    },
  ] as const;

  it.each(legs)("are told so on the $leg leg, on record, and served once others have gone", async ({ get, open }) => {
    const held = await Promise.all(Array.from({ length: MOST }, open));
    const refused = await exchangeRaw(await open(), get());
    expect(refused.status).toBe(503);
    expect(JSON.parse(refused.body)).toMatchObject({ code: "connection-limit" });
    expect(running.record.entries.at(-1)).toMatchObject({
      kind: "decision",
      fields: { verdict: "DENY", rule: "connection-limit" },
    });
    expect(invoices.arrived).toHaveLength(0);
    // Those that were there first are served all the same.
    const [first, ...others] = held as [Socket, ...Socket[]];
    expect(await exchangeRaw(first, get())).toMatchObject({ status: 200 });
    await expect.poll(async () => (await exchangeRaw(await open(), get())).status).toBe(200);
    for (const socket of others) socket.destroy();
  });
});

describe("a drain", () => {
  beforeEach(() => start());

  const call = () =>
    new Promise<IncomingMessage>((resolve, reject) => {
      httpRequest(`${running.urlOf("invoices")}/v1/x`, { agent })
        .once("response", resolve)
        .once("error", reject)
        .end();
    });
  const textOf = async (answer: IncomingMessage) => (await answer.setEncoding("utf8").toArray()).join("");

  it.each([
    { what: "has not begun its answer", begin: (_response: ServerResponse) => undefined },
    { what: "is in the middle of its answer", begin: (response: ServerResponse) => void response.write("ar") },
  ])("lets a call finish that $what, ends idle connections, and takes no new ones", async ({ begin }) => {
    const idle = connectTcp(portOf("invoices"), "127.0.0.1");
    await once(idle, "connect");
    expect(await textOf(await call())).toBe("arrived");
    const arrived = new Promise<ServerResponse>((resolve) => {
      invoices.answer = (_request, response) => resolve(response);
    });
    const answered = call().then(textOf);
    const response = await arrived;
    begin(response);
    const idleEnded = once(idle.resume(), "close");
    // Longer than the test may take: what it waits for is the call, not the end of the grace.
    const closed = running.relay.close({ graceMs: 600_000 });
    await idleEnded;
    await expect.poll(() => sendRaw(portOf("invoices"), "GET / HTTP/1.1\r\n\r\n")).toMatchObject({ status: 0 });
    response.end(response.headersSent ? "rived" : "arrived");
    expect(await answered).toBe("arrived");
    await closed;
  });
});

describe("a service that does not answer", () => {
  beforeEach(() => start());

  it("delays no call to another, however many wait for it", async () => {
    // More than the connections that are opened to one service.
    const waiting = 520;
    invoices.answer = () => undefined;
    const tls = new TlsAgent({ keepAlive: true, secureContext: secureContext(), rejectUnauthorized: false } as object);
    try {
      for (let sent = 0; sent < waiting; sent += 1) {
        const request = tlsRequest({
          host: "127.0.0.1",
          port: inboundPort(),
          agent: tls,
          headers: { Host: "invoices" },
        });
        request.on("error", () => undefined).end();
      }
      await expect.poll(() => decisions("invoices"), { timeout: 30_000 }).toBe(waiting);
      const answer = await fetch(`${running.urlOf("orders")}/v1/x`);
      expect(await answer.text()).toBe("arrived");
      expect(decisions("orders")).toBe(1);
      expect(running.record.entries.filter(({ kind }) => kind === "call")).toHaveLength(1);
    } finally {
      tls.destroy();
    }
  }, 60_000);

  const decisions = (service: string) =>
    running.record.entries.filter(({ kind, fields }) => kind === "decision" && fields.service === service).length;
});

describe("a service that does not read", () => {
  beforeEach(() => start());

  it("holds its caller back, so that what is sent does not gather in memory", async () => {
    const most = 256 * 1024 * 1024;
    const asked = Promise.withResolvers<IncomingMessage>();
    let arrived = 0;
    invoices.answer = (request, response) => {
      asked.resolve(request.pause());
      request.on("data", (chunk: Buffer) => {
        arrived += chunk.length;
      });
      request.on("end", () => response.end());
    };
    const sent = httpRequest(`${running.urlOf("invoices")}/v1/x`, { method: "POST", agent });
    const answered = once(sent, "response") as Promise<[IncomingMessage]>;
    const block = Buffer.alloc(256 * 1024);
    let given = 0;
    const stuck = async () => {
      while (given < most) {
        given += block.length;
        if (sent.write(block)) continue;
        const drained = await Promise.race([
          once(sent, "drain"),
          new Promise((resolve) => setTimeout(resolve, 500, "stuck")),
        ]);
        if (drained === "stuck") return true;
      }
      return false;
    };
    expect(await stuck()).toBe(true);
    expect(given).toBeLessThan(64 * 1024 * 1024);
    // Once it reads, everything arrives.
    (await asked.promise).resume();
    sent.end();
    const [answer] = await answered;
    expect(answer.resume().statusCode).toBe(200);
    expect(arrived).toBe(given);
  });
});
