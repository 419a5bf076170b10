import { connect as connectTls, type TLSSocket } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { secureContextOf } from "../../src/http/mutual-tls.js";
import { type BadRequest, badHeaders, badOrigins, badPaths } from "./bad-requests.js";
import { exchangeRaw, type RawAnswer, sendRaw } from "./raw-http.js";
import { type RunningRelay, runRelay, runUpstream, type Upstream } from "./running-relay.js";

let invoices: Upstream;
let running: RunningRelay;

beforeAll(async () => {
  invoices = await runUpstream("invoices", "http", (request, response) => {
    request.resume().on("end", () => response.end("arrived"));
  });
  // Everything is allowed: whatever is refused here is refused for its form alone.
  running = await runRelay({
    services: [invoices.service],
    rules: "rules:\n  - { name: all, allow: { from: agents/tests, to: invoices } }\n",
  });
});

afterAll(async () => {
  await running.close();
  invoices.close();
});

interface Listener {
  readonly name: string;
  port(): number;
  send(bytes: string): Promise<RawAnswer>;
}

const outbound: Listener = {
  name: "outbound leg",
  port: () => Number(new URL(running.urlOf("invoices")).port),
  send: (bytes) => sendRaw(outbound.port(), bytes),
};

const inbound: Listener = {
  name: "inbound leg",
  port: () => running.relay.addressesOf("invoices")?.mtls.port ?? 0,
  async send(bytes) {
    const socket: TLSSocket = connectTls({
      ...{ host: "127.0.0.1", port: inbound.port(), rejectUnauthorized: false },
      secureContext: secureContextOf(running.svidOf("agents/tests")),
    });
    return exchangeRaw(socket, bytes);
  },
};

function bytesOf(bad: Partial<BadRequest>, port: number): string {
  const host = `127.0.0.1:${port}`;
  if (bad.raw !== undefined) return bad.raw.replaceAll("HOST", host).replaceAll("PORT", String(port));
  const { method = "GET", target = "/v1/x", headers = [], body = "" } = bad;
  return [`${method} ${target} HTTP/1.1`, `Host: ${host}`, ...headers, "", body].join("\r\n");
}

describe.each([outbound, inbound])("the $name", (listener) => {
  it.each([...badPaths, ...badHeaders, ...badOrigins])("refuses $class: $what", async (bad) => {
    const arrived = invoices.arrived.length;
    const control = await listener.send(bytesOf({}, listener.port()));
    expect(control).toMatchObject({ status: 200, body: expect.stringContaining("arrived") });
    expect(invoices.arrived.length).toBe(arrived + 1);

    const answer = await listener.send(bytesOf(bad, listener.port()));
    expect({ status: answer.status, code: JSON.parse(answer.body || "{}").code }).toEqual({
      status: bad.status,
      code: bad.code,
    });
    expect(invoices.arrived.length).toBe(arrived + 1);
    // On record before it was answered, like every denial.
    const last = running.record.entries.filter(({ kind }) => kind === "decision").at(-1);
    expect(last?.fields).toMatchObject({ verdict: "DENY", rule: bad.code });
  });
});

it("refuses a target that is too long", async () => {
  const answer = await outbound.send(bytesOf({ target: `/v1/${"x".repeat(9_000)}` }, outbound.port()));
  expect(answer.status).toBe(414);
});
