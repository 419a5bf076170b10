import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { EgressTarget } from "../../src/config/config.js";
import { secureContextOf } from "../../src/http/mutual-tls.js";
import { egressService, type RunningService } from "../../src/relay/running-service.js";
import { type ListeningService, runListeningService } from "../fuzz/listening-service.js";
import { target } from "./outside.js";
import { exchangeRaw } from "./raw-http.js";
import { type RunningRelay, runRelay } from "./running-relay.js";

/** A service that names its own address in an answer does not lead its client around the relay. */

const RULES = `rules:
  - { name: pages, allow: { from: agents/tests, to: [invoices, orders, files], path: [/v1/x, /next, /next/**] } }
  - { name: calls, allow: { from: agents/tests, to: payments, tools: [get_invoice] } }
  - { name: out, allow: { from: agents/tests, to: [egress/plain, egress/api] } }
`;

let invoices: ListeningService;
let orders: ListeningService;
let files: ListeningService;
let payments: ListeningService;
let running: RunningRelay;

const portAt = ({ service }: ListeningService) => (service.upstream.kind === "tcp" ? service.upstream.port : 0);
/** Of egress: the same server, on this machine and therefore allowed without TLS. */
const outside = (name: string, more: Partial<EgressTarget> = {}): RunningService =>
  egressService(target(name, { port: portAt(invoices), ca: "" }, { scheme: "http", ca: undefined, ...more }));

beforeAll(async () => {
  invoices = await runListeningService("invoices", "http", "port");
  orders = await runListeningService("orders", "http", "port");
  files = await runListeningService("files");
  payments = await runListeningService("payments", "mcp", "port");
  running = await runRelay({
    services: [
      ...[invoices.service, orders.service, files.service, payments.service],
      ...[outside("plain"), outside("api", { basePath: "/v1" })],
    ],
    rules: RULES,
  });
});
afterAll(async () => {
  await running.close();
  for (const service of [invoices, orders, files, payments]) service.close();
});
beforeEach(() => {
  for (const { answer } of [invoices, orders, files, payments]) answer.to = undefined;
});

interface Way {
  readonly name: string;
  readonly service: () => ListeningService;
  open(): Socket;
  /** As the caller has found it. */
  base(): string;
}

const outbound = (name: string, service: () => ListeningService, said = ""): Way => ({
  ...{ name: `outbound leg of ${name} as ${said || "it is"}`, service },
  open: () => connect(Number(new URL(running.urlOf(name)).port), "127.0.0.1"),
  base: () => (said === "" ? running.urlOf(name) : running.urlOf(name).replace("127.0.0.1", said)),
});
const inbound = (host: (port: number) => string): Way => ({
  ...{ name: `inbound leg as ${host(0)}`, service: () => invoices },
  open: () =>
    connectTls({
      ...{ host: "127.0.0.1", port: running.relay.addressesOf("invoices")?.mtls.port ?? 0, rejectUnauthorized: false },
      secureContext: secureContextOf(running.svidOf("agents/tests")),
    }),
  base: () => `https://${host(running.relay.addressesOf("invoices")?.mtls.port ?? 0)}`,
});

const ways = [
  outbound("invoices", () => invoices),
  outbound("invoices", () => invoices, "localhost"),
  inbound((port) => `127.0.0.1:${port}`),
  inbound(() => "invoices"),
  inbound(() => "invoices.shop.local"),
  outbound("plain", () => invoices),
];

/** The head of what a caller sees where the service says these lines. */
async function headFor(way: Way, lines: readonly string[], status = "302 Found"): Promise<string> {
  way.service().answer.to = () =>
    [`HTTP/1.1 ${status}`, ...lines, "Content-Length: 0", "", ""]
      .join("\r\n")
      .replaceAll("PORT", String(portAt(way.service())));
  const bytes = `GET /v1/x HTTP/1.1\r\nHost: ${new URL(way.base()).host}\r\n\r\n`;
  const answer = await exchangeRaw(way.open(), bytes);
  expect(answer.status).toBe(Number(status.slice(0, 3)));
  return answer.head;
}

function field(head: string, name: string): string | undefined {
  return new RegExp(`^${name}: (.*)$`, "im").exec(head)?.[1]?.trim();
}

describe.each(ways)("$name", (way) => {
  it.each([
    ["http://127.0.0.1:PORT/next?a=%20b#c", "/next?a=%20b#c"],
    ["http://127.0.0.1:PORT", "/"],
    ["HTTP://127.0.0.1:PORT/next", "/next"],
    ["https://127.0.0.1:PORT/next", "/next"],
    ["//127.0.0.1:PORT/next", "/next"],
    ["http:\\\\127.0.0.1:PORT\\next", "/next"],
    ["/\\127.0.0.1:PORT/next", "/next"],
    ["http://user:pw@127.0.0.1:PORT/next", "/next"],
    ["http://localhost:PORT/next", "/next"],
    ["http://localhost.:PORT/next", "/next"],
    ["http://x.localhost:PORT/next", "/next"],
    ["http://[::1]:PORT/next", "/next"],
    ["http://[::ffff:127.0.0.1]:PORT/next", "/next"],
    ["http://127.1:PORT/next", "/next"],
    ["http://2130706433:PORT/next", "/next"],
    ["http://0x7f.1:PORT/next", "/next"],
    ["http://127.0.0.2:PORT/next", "/next"],
    ["http://0.0.0.0:PORT/next", "/next"],
    ["http://[::]:PORT/next", "/next"],
  ])("%s leads to itself", async (location, path) => {
    const head = await headFor(way, [
      `LOCATION: ${location}`,
      `content-location: ${location}`,
      `Refresh: 0;URL=${location}`,
    ]);
    expect(["location", "content-location", "refresh"].map((name) => field(head, name))).toEqual([
      ...[`${way.base()}${path}`, `${way.base()}${path}`, `0;URL=${way.base()}${path}`],
    ]);
  });

  it.each([
    "/next",
    "next",
    "../x",
    "?a=1",
    "#a",
    "",
    "http://127.0.0.1:1/next",
    "http://127.0.0.1/next",
    "https://localhost/next",
    "http://127.0.0.1.evil.example:PORT/next",
    "http://evil.example:PORT/next",
    "http://evil.example/http://127.0.0.1:PORT/",
    "http://10.0.0.1:PORT/next",
    "ftp://127.0.0.1:PORT/next",
    "http://127.0.0.1:PORT:1/next",
  ])("%j stays as it is", async (location) => {
    const named = location.replaceAll("PORT", String(portAt(way.service())));
    const head = await headFor(way, [`Location: ${location}`, `Refresh: 3; url=${location}`]);
    expect(field(head, "Location")).toBe(named);
    expect(field(head, "Refresh")).toBe(`3; url=${named}`.trim());
  });

  it("says nothing of other places to ask at", async () => {
    const head = await headFor(way, ['Alt-Svc: h2="127.0.0.1:PORT"; ma=86400', "alt-svc: clear", "X-Other: stays"]);
    expect(head).not.toMatch(/^alt-svc:/im);
    expect(field(head, "X-Other")).toBe("stays");
  });
});

it("a client that follows comes back to the relay, which decides again", async () => {
  const arrivedAt = (path: string) => invoices.arrived.filter(({ target }) => target === path).length;
  const to = (path: string) => {
    invoices.answer.to = (request) =>
      request.target === "/v1/x"
        ? `HTTP/1.1 307 T\r\nLocation: http://127.0.0.1:${portAt(invoices)}${path}\r\nContent-Length: 0\r\n\r\n`
        : invoices.answer.bytes;
  };
  to("/next/page");
  const allowed = await fetch(`${running.urlOf("invoices")}/v1/x`);
  expect({ status: allowed.status, url: allowed.url, text: await allowed.text() }).toEqual({
    ...{ status: 200, url: `${running.urlOf("invoices")}/next/page`, text: "arrived" },
  });
  expect(arrivedAt("/next/page")).toBe(1);
  to("/admin");
  const denied = await fetch(`${running.urlOf("invoices")}/v1/x`);
  expect(denied.status).toBe(403);
  expect(arrivedAt("/admin")).toBe(0);
  const last = running.record.entries.findLast(({ kind }) => kind === "decision");
  expect(last?.fields).toMatchObject({ verdict: "DENY", target: "/admin" });
});

it.each([
  ["0; url=URL", "0; url="],
  ["5;url='URL' and more", "5;url="],
  ['5;url="URL"', "5;url="],
  ["1, 'URL", "1, "],
  ["0.5 URL", "0.5 "],
  ["0;URL", "0;"],
  [" 0 ; url = URL", "0 ; url = "],
])("Refresh: %s is read as a browser does", async (refresh, before) => {
  const [way] = ways;
  if (way === undefined) throw new Error("no way");
  const head = await headFor(way, [`Refresh: ${refresh.replace("URL", `http://127.0.0.1:${portAt(invoices)}/next`)}`]);
  expect(field(head, "Refresh")).toMatch(new RegExp(`^${before}(?:url=)?${way.base()}/next$`, "i"));
});

it.each([
  ["<URL>; rel=next", "<OWN>; rel=next"],
  [
    '<URL>; rel="next", </next?p=3>; rel=last,<URL>;rel=first',
    '<OWN>; rel="next", </next?p=3>; rel=last,<OWN>;rel=first',
  ],
  ["< URL >; rel=next", "<OWN>; rel=next"],
  // What stands in a string is no link, whatever it looks like; nor is what has no end.
  ['<URL>; title="a \\"<URL>, <URL>"; rel=next', '<OWN>; title="a \\"<URL>, <URL>"; rel=next'],
  ['<URL>; title="<URL>', '<OWN>; title="<URL>'],
  ["<URL; rel=next", "<URL; rel=next"],
  ["<<URL>; rel=next", "<<OWN>; rel=next"],
  ["<http://evil.example/URL>; rel=next", "<http://evil.example/URL>; rel=next"],
  ["URL", "URL"],
])("Link: %s leads to itself where it does", async (link, seen) => {
  for (const way of ways) {
    const named = (value: string, at: string) =>
      value.replaceAll("URL", `http://127.0.0.1:${portAt(way.service())}/next`).replaceAll("OWN", at);
    const head = await headFor(way, [`LINK: ${named(link, "")}`, "Link: </b>; rel=prev"], "200 OK");
    expect(/^link: (.*)\r?$/im.exec(head)?.[1]).toBe(named(seen, `${way.base()}/next`));
    expect(head).toMatch(/^Link: <\/b>; rel=prev\r?$/m);
  }
});

it("a redirect to another service's address goes on as it is", async () => {
  const [way] = ways;
  if (way === undefined) throw new Error("no way");
  const elsewhere = `http://127.0.0.1:${portAt(orders)}/next`;
  expect(field(await headFor(way, [`Location: ${elsewhere}`]), "Location")).toBe(elsewhere);
});

it("a service on a Unix socket is called localhost, and nothing else names it", async () => {
  const way = outbound("files", () => files);
  const location = async (value: string) => field(await headFor(way, [`Location: ${value}`]), "Location");
  expect(await location("http://localhost/next")).toBe(`${way.base()}/next`);
  expect(await location("http://localhost:80/next")).toBe(`${way.base()}/next`);
  for (const other of ["http://localhost:8080/next", "http://127.0.0.1/next", "https://localhost/next"]) {
    expect(await location(other)).toBe(other);
  }
});

it("the path that the relay puts before each of a target's comes off", async () => {
  const way = outbound("api", () => invoices);
  const location = async (value: string) => field(await headFor(way, [`Location: ${value}`]), "Location");
  const at = `http://127.0.0.1:${portAt(invoices)}`;
  expect(await location(`${at}/v1/next?a=1`)).toBe(`${way.base()}/next?a=1`);
  expect(await location(`${at}/v1`)).toBe(`${way.base()}/`);
  expect(await location("/v1/next")).toBe("/next");
  // What lies beside that path is nothing that the target offers here.
  for (const beside of [`${at}/v2/next`, `${at}/v1x/next`, `${at}/v1/../v2`, "/v2/next", "next", "?a=1"]) {
    expect(await location(beside)).toBe(beside);
  }
});

it("MCP and WebSockets are redirected alike", async () => {
  const own = (to: ListeningService, scheme: string) =>
    `HTTP/1.1 307 T\r\nLocation: ${scheme}://127.0.0.1:${portAt(to)}/next\r\nAlt-Svc: clear\r\nContent-Length: 0\r\n\r\n`;
  payments.answer.to = () => own(payments, "http");
  const called = await fetch(`${running.urlOf("payments")}/mcp`, {
    ...{ method: "POST", redirect: "manual", headers: { "Content-Type": "application/json" } },
    body: '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_invoice"}}',
  });
  expect(called.headers.get("location")).toBe(`${running.urlOf("payments")}/next`);
  const base = running.urlOf("invoices");
  for (const [scheme, ours] of [
    ["http", "http"],
    ["ws", "ws"],
    ["wss", "ws"],
  ] as const) {
    invoices.answer.to = () => own(invoices, scheme);
    const handshake = [
      ...["GET /v1/x HTTP/1.1", `Host: ${new URL(base).host}`, "Connection: Upgrade", "Upgrade: websocket"],
      ...["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""],
    ].join("\r\n");
    const { status, head } = await exchangeRaw(connect(Number(new URL(base).port), "127.0.0.1"), handshake);
    expect({ status, location: field(head, "Location"), other: field(head, "Alt-Svc") }).toEqual({
      ...{ status: 307, location: `${base.replace("http", ours)}/next`, other: undefined },
    });
  }
});
