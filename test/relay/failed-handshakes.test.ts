import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { type ConnectionOptions, connect as connectTls } from "node:tls";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createStrangerRefusals, type StrangerRefusals } from "../../src/audit/stranger-refusals.js";
import { secureContextOf } from "../../src/http/mutual-tls.js";
import type { RelayParts } from "../../src/relay/exchange.js";
import { ALPN } from "../../src/relay/tcp-protocol.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { createTestClock } from "../identity/test-trust-domain.js";
import { identity, type RunningRelay, runRelay, runUpstream, shop, testAgent, type Upstream } from "./running-relay.js";

/** Connections to inbound legs that do not come out of their TLS handshake: closed, and on record with what was wrong. */

const BOUNDS = { atOnce: 10, everyMs: 60_000, firstSumMs: 60_000, lastSumMs: 60_000, kinds: 64 };
/** Each kind of inbound leg, and what it agrees on with who comes. */
const LEGS = { invoices: "http/1.1", payments: "http/1.1", ledger: "h2", orders: ALPN.plain } as const;
const names = Object.keys(LEGS) as (keyof typeof LEGS)[];

let upstreams: readonly Upstream[];
let start: (change: (parts: RelayParts) => RelayParts) => Promise<RunningRelay>;
let running: RunningRelay;

beforeAll(async () => {
  const invoices = await runUpstream("invoices", "http", (_request, response) => response.end());
  const payments = await runUpstream("payments", "mcp", (_request, response) => response.end());
  upstreams = [invoices, payments];
  const like = (name: string, protocol: "grpc" | "tcp") => ({
    ...{ ...invoices.service, name, protocol, id: SpiffeId.of(shop, `services/${name}`) },
  });
  start = (change) =>
    runRelay({
      services: [invoices.service, payments.service, like("ledger", "grpc"), like("orders", "tcp")],
      identities: [testAgent, identity("agents/other")],
      rules: "rules: []\n",
      change,
    });
  running = await start((parts) => parts);
});
afterAll(async () => {
  await running.close();
  for (const upstream of upstreams) upstream.close();
});
beforeEach(() => {
  running.record.entries.length = 0;
});

const portOf = (name: string, relay = running) => relay.relay.addressesOf(name)?.mtls.port ?? 0;
const refusals = (relay = running) =>
  relay.record.entries
    .filter(({ kind }) => kind === "decision")
    .map(({ fields: { service, rule, reason, caller } }) => ({ service, rule, reason, caller }));
const refused = (service: string, reason: string) => ({ service, rule: "handshake-failed", reason, caller: "(none)" });

async function closed(socket: Socket): Promise<void> {
  socket.on("error", () => undefined);
  socket.resume();
  if (!socket.closed) await once(socket, "close");
}

async function shakes(
  name: keyof typeof LEGS,
  more: ConnectionOptions = {},
  relay = running,
): Promise<"secure" | "failed"> {
  const socket = connectTls({
    ...{ host: "127.0.0.1", port: portOf(name, relay), rejectUnauthorized: false, ALPNProtocols: [LEGS[name]] },
    secureContext: secureContextOf(relay.svidOf("agents/other")),
    ...more,
  });
  const outcome = await new Promise<"secure" | "failed">((resolve) => {
    socket.once("secureConnect", () => resolve("secure"));
    socket.once("error", () => resolve("failed"));
  });
  socket.destroy();
  return outcome;
}

describe.each(names)("the inbound leg of %s", (name) => {
  it("says why a handshake failed", async () => {
    expect(await shakes(name)).toBe("secure");
    expect(await shakes(name, { secureContext: undefined as never, maxVersion: "TLSv1.2" })).toBe("failed");
    expect(await shakes(name, { ALPNProtocols: ["x/1"] })).toBe("failed");
    const plain = connect(portOf(name), "127.0.0.1");
    plain.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await closed(plain);
    await expect
      .poll(() => refusals())
      .toEqual([
        refused(name, "TLS 1.3 was not offered (ERR_SSL_UNSUPPORTED_PROTOCOL)"),
        refused(name, "no protocol of this listener was offered by ALPN (ERR_SSL_NO_APPLICATION_PROTOCOL)"),
        refused(name, "plain HTTP was spoken where TLS is (ERR_SSL_HTTP_REQUEST)"),
      ]);
  });

  // Bytes end by themselves in each direction: there it is a handshake that takes too long.
  it.skipIf(LEGS[name] === ALPN.plain)("has nothing to say of who only goes away", async () => {
    for (const bytes of ["", "\x16\x03\x01"]) {
      const socket = connect(portOf(name), "127.0.0.1");
      await once(socket, "connect");
      if (bytes !== "") socket.write(bytes, "latin1");
      socket.end();
      await closed(socket);
    }
    expect(await shakes(name, { ALPNProtocols: ["x/1"] })).toBe("failed");
    await expect.poll(() => refusals()).toHaveLength(1);
  });
});

it("has on record how many have failed alike, not each of them", async () => {
  let strangers: StrangerRefusals | undefined;
  const relay = await start((parts) => {
    strangers = createStrangerRefusals(parts.audit, createTestClock(), undefined, BOUNDS);
    return { ...parts, strangers };
  });
  const fail = () => shakes("ledger", { ALPNProtocols: ["x/1"] }, relay);
  for (let i = 0; i < 15; i += 1) expect(await fail()).toBe("failed");
  expect(await shakes("ledger", {}, relay)).toBe("secure");
  strangers?.close();
  expect(refusals(relay)).toHaveLength(BOUNDS.atOnce);
  const sums = relay.record.entries.filter(({ kind }) => kind === "refusals.counted").map(({ fields }) => fields);
  expect(sums).toMatchObject([{ count: 5, rule: "handshake-failed", service: "ledger", caller: "(none)" }]);
  await relay.close();
});

it("closes a connection whose handshake takes too long, and has that on record", { timeout: 60_000 }, async () => {
  running.record.entries.length = 0;
  await Promise.all(names.map((name) => closed(connect(portOf(name), "127.0.0.1"))));
  const slow = (name: string) => refused(name, "the TLS handshake took too long (ERR_TLS_HANDSHAKE_TIMEOUT)");
  expect(refusals()).toEqual(expect.arrayContaining(names.map(slow)));
  expect(await shakes("invoices")).toBe("secure");
});
