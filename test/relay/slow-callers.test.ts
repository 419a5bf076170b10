import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { afterAll, beforeAll, expect, it } from "vitest";
import { secureContextOf } from "../../src/http/mutual-tls.js";
import { egressService } from "../../src/relay/running-service.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { target } from "./outside.js";
import { identity, type RunningRelay, runRelay, runUpstream, shop, testAgent, type Upstream } from "./running-relay.js";

/** Callers that connect and do not come to ask anything: each listener ends them by itself, in words where its protocol has some. */

const RULES = "rules: [{ name: all, allow: { from: agents/*, to: invoices } }]\n";
const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

let invoices: Upstream;
let running: RunningRelay;

beforeAll(async () => {
  invoices = await runUpstream("invoices", "http", (_request, response) => response.end("arrived"));
  const ledger = {
    ...invoices.service,
    name: "ledger",
    protocol: "grpc" as const,
    id: SpiffeId.of(shop, "services/ledger"),
  };
  const api = target("api", { port: 9, ca: "" }, { host: "api.test", connect: true, ca: undefined });
  running = await runRelay({
    services: [invoices.service, ledger, egressService(api)],
    identities: [testAgent, identity("agents/other")],
    rules: RULES,
  });
});
afterAll(async () => {
  await running.close();
  invoices.close();
});

const plain = (url: () => string) => () => connect(Number(new URL(url()).port), "127.0.0.1");
const secure = (name: string, alpn: string) => () =>
  connectTls({
    ...{ host: "127.0.0.1", port: running.relay.addressesOf(name)?.mtls.port ?? 0, rejectUnauthorized: false },
    ...{ ALPNProtocols: [alpn], secureContext: secureContextOf(running.svidOf("agents/other")) },
  });
const http = plain(() => running.urlOf("invoices"));
const grpc = plain(() => running.urlOf("ledger"));
const proxy = plain(() => running.relay.proxyUrl() ?? "");

const callers: readonly { what: string; open: () => Socket; says: string; hears: "408" | "settings" | "nothing" }[] = [
  { what: "HTTP, nothing", open: http, says: "", hears: "nothing" },
  { what: "HTTP, half a head", open: http, says: "GET / HTTP/1.1\r\nHost:", hears: "408" },
  { what: "HTTP over TLS, nothing", open: secure("invoices", "http/1.1"), says: "", hears: "nothing" },
  { what: "HTTP over TLS, a letter", open: secure("invoices", "http/1.1"), says: "G", hears: "408" },
  { what: "CONNECT, nothing", open: proxy, says: "", hears: "nothing" },
  { what: "CONNECT, half a head", open: proxy, says: "CONNECT a", hears: "408" },
  { what: "gRPC, nothing", open: grpc, says: "", hears: "nothing" },
  { what: "gRPC, half a preface", open: grpc, says: PREFACE.slice(0, 8), hears: "nothing" },
  // What it hears are the listener's own settings.
  { what: "gRPC, no settings", open: grpc, says: PREFACE, hears: "settings" },
  { what: "gRPC over TLS, nothing", open: secure("ledger", "h2"), says: "", hears: "settings" },
];

function meaningOf(heard: string): string {
  if (heard === "") return "nothing";
  // The type of the first frame (RFC 9113 §6.5).
  if (heard.charCodeAt(3) === 4) return "settings";
  return /^HTTP\/1\.1 (\d+) .*did not arrive in time/s.exec(heard)?.[1] ?? heard;
}

it("nobody stays who asks nothing", { timeout: 40_000 }, async () => {
  const ends = callers.map(async ({ what, open, says }) => {
    const socket = open();
    let heard = "";
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      heard += chunk.toString("latin1");
    });
    if (says !== "") socket.write(says);
    await once(socket, "close");
    return [what, heard] as const;
  });
  // Meanwhile whoever asks is answered.
  expect(await (await fetch(`${running.urlOf("invoices")}/x`)).text()).toBe("arrived");
  const heard = Object.fromEntries(await Promise.all(ends));
  for (const { what, hears } of callers) expect(meaningOf(heard[what] ?? ""), what).toBe(hears);
  expect(invoices.arrived.map(({ url }) => url)).toEqual(["/x"]);
  // On record are those who had begun to ask.
  const slow = running.events.filter((event) => event.event === "call" && /did not arrive in time/.test(event.reason));
  expect(slow).toHaveLength(callers.filter(({ hears }) => hears === "408").length);
});
