import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { BUNDLE_ENDPOINT_IDENTITY } from "../../../src/config/config.js";
import { routes } from "../../../src/control-api/routes.js";
import { type ControlHandlers, createControlServer } from "../../../src/daemon/control-server.js";
import { openBundleEndpoint } from "../../../src/federation/bundle-endpoint.js";
import { openOidcDiscovery } from "../../../src/federation/oidc-discovery.js";
import { createPublishedBundle } from "../../../src/federation/published-bundle.js";
import { secureContextOf } from "../../../src/http/mutual-tls.js";
import { decidesBy, runAuthzen } from "../../authzen/running-authzen.js";
import { freePort } from "../../federation/free-port.js";
import { type ListeningService, runListeningService } from "../../fuzz/listening-service.js";
import { exchangeRaw, type RawAnswer } from "../raw-http.js";
import { identity, shop } from "../running-relay.js";
import type { ChangedRequest, ListenerKind } from "./vector.js";

/** A way in: how bytes get there, what it wants in a sound request, and where things arrive that it lets through. */
export interface Listener {
  readonly name: string;
  readonly kind: ListenerKind;
  /** What it answers to in `Host`, and the port in it. */
  readonly host: string;
  readonly port: string;
  readonly sound: {
    readonly method: string;
    readonly path: string;
    readonly headers: readonly string[];
    readonly body: string;
  };
  open(): Socket;
  /** How much has arrived behind it. */
  arrivals(): number;
  /** The instrumented service behind it; undefined where requests end at the listener. */
  readonly service?: ListeningService;
}

const CALL =
  '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_invoice","arguments":{"id":{"slot":1}}}}';
const QUESTION =
  '{"x":"y","subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"r1"},"context":{"slot":1}}';
const JSON_BODY = ["Content-Type: application/json"];
const RULES = `rules:
  - { name: all, allow: { from: agents/tests, to: invoices } }
  - { name: reads, allow: { from: agents/tests, to: payments, tools: [get_invoice] } }
`;
const MCP_ANSWER = '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"arrived"}]}}';

/** Every way in of one running trust domain. A new listener is one more entry of `listeners`. */
export async function runListeners() {
  const invoices = await runListeningService("invoices");
  const payments = await runListeningService("payments", "mcp");
  payments.answer.bytes = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${MCP_ANSWER.length}\r\n\r\n${MCP_ANSWER}`;
  const decisionPoint = decidesBy(() => true);
  // Everything that is asked is allowed: what is refused is refused for its form alone.
  const running = await runAuthzen({
    rules: RULES,
    services: [invoices.service, payments.service],
    identities: [identity(BUNDLE_ENDPOINT_IDENTITY)],
    change: () => ({ decisionPoint: () => decisionPoint }),
  });
  const folder = mkdtempSync(join(tmpdir(), "agentid-bad-"));
  const asTests = (port: number) =>
    connectTls({
      ...{ host: "127.0.0.1", port, rejectUnauthorized: false },
      secureContext: secureContextOf(running.svidOf("agents/gateway")),
    });

  let documents = 0;
  const counted = <Made>(make: () => Made): Made => {
    documents += 1;
    return make();
  };
  const { bundles, keeper: svids } = running;
  const { clock } = running.parts;
  const federation = { ours: shop, clock, onProblem: () => undefined };
  const published = createPublishedBundle({
    ...{ ours: shop, bundles, clock, file: join(folder, "bundle-sequence.json") },
    authorityLifetimeSeconds: () => 86_400,
  });
  const bundleEndpoint = await openBundleEndpoint({
    ...{ ...federation, svids, config: { listen: { host: "127.0.0.1", port: 0 }, web: undefined } },
    published: { current: () => counted(() => published.current()) },
  });
  const oidcPort = await freePort();
  const oidc = await openOidcDiscovery({
    ...federation,
    config: {
      listen: { host: "127.0.0.1", port: oidcPort },
      issuer: `http://127.0.0.1:${oidcPort}`,
      web: undefined,
    },
    bundles: { ...bundles, jwtBundle: (trustDomain) => counted(() => bundles.jwtBundle(trustDomain)) },
  });

  let handled = 0;
  const rotate = () => {
    handled += 1;
    return { rotated: [] };
  };
  const control = createControlServer({
    handlers: { rotate } as unknown as Partial<ControlHandlers>,
    admit: () => "administrator",
  });
  const controlSocket = join(folder, "control.sock");
  await control.listen(controlSocket);

  const legs = (kind: ListenerKind, service: ListeningService, sound: Listener["sound"]): readonly Listener[] => {
    const { name } = service.service;
    const common = { kind, sound, service, arrivals: () => service.arrived.length };
    const outbound = new URL(running.urlOf(name)).port;
    const inbound = String(running.relay.addressesOf(name)?.mtls.port);
    const caller = running.svidOf("agents/tests");
    return [
      {
        ...{ ...common, name: `outbound leg of an ${kind}`, host: `127.0.0.1:${outbound}`, port: outbound },
        open: () => connect(Number(outbound), "127.0.0.1"),
      },
      {
        ...{ ...common, name: `inbound leg of an ${kind}`, host: `127.0.0.1:${inbound}`, port: inbound },
        open: () =>
          connectTls({
            ...{ host: "127.0.0.1", port: Number(inbound), rejectUnauthorized: false },
            secureContext: secureContextOf(caller),
          }),
      },
    ];
  };
  const question = { method: "POST", path: "/access/v1/evaluation", headers: JSON_BODY, body: QUESTION };
  const bundlePort = bundleEndpoint.address.port;
  const listeners: readonly Listener[] = [
    ...legs("http service", invoices, { method: "GET", path: "/v1/x", headers: [], body: "" }),
    ...legs("MCP service", payments, {
      ...{ method: "POST", path: "/mcp", body: CALL },
      headers: [...JSON_BODY, "Accept: application/json, text/event-stream"],
    }),
    {
      ...{ name: "AuthZEN TLS door", kind: "AuthZEN", host: `127.0.0.1:${running.tlsPort}`, sound: question },
      ...{ port: String(running.tlsPort), open: () => asTests(running.tlsPort) },
      arrivals: () => decisionPoint.asked.length,
    },
    {
      ...{ name: "AuthZEN Unix door", kind: "AuthZEN", host: "localhost", port: "80", sound: question },
      ...{ open: () => connect(running.unix.socketPath), arrivals: () => decisionPoint.asked.length },
    },
    {
      ...{ name: "bundle endpoint", kind: "documents", host: `127.0.0.1:${bundlePort}`, port: String(bundlePort) },
      sound: { method: "GET", path: "/", headers: [], body: "" },
      open: () => connectTls({ host: "127.0.0.1", port: bundlePort, rejectUnauthorized: false }),
      arrivals: () => documents,
    },
    {
      ...{ name: "OIDC endpoint", kind: "documents", host: `127.0.0.1:${oidcPort}`, port: String(oidcPort) },
      sound: { method: "GET", path: "/keys", headers: [], body: "" },
      ...{ open: () => connect(oidcPort, "127.0.0.1"), arrivals: () => documents },
    },
    {
      ...{ name: "control socket", kind: "control API", host: "agentid", port: "80" },
      sound: { method: routes.rotate.method, path: routes.rotate.path, headers: [], body: '{"name":"x","slot":1}' },
      ...{ open: () => connect(controlSocket), arrivals: () => handled },
    },
  ];
  return {
    listeners,
    record: running.record,
    async close() {
      await Promise.all([running.close(), bundleEndpoint.close(), oidc.close(), control.close()]);
      for (const service of [invoices, payments]) service.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export function exchange(listener: Listener, request: ChangedRequest): Promise<RawAnswer> {
  return exchangeRaw(listener.open(), bytesOf(listener, request));
}

/** The sound request of `listener` with `request` changed in it. */
export function bytesOf(listener: Listener, request: ChangedRequest): Buffer {
  const { sound, host, port } = listener;
  const meant = (text: string) =>
    text.replaceAll("{host}", host).replaceAll("{port}", port).replaceAll("{path}", sound.path);
  if (request.raw !== undefined) {
    const { raw } = request;
    return Buffer.from(meant(raw.replace("{sound}", () => bytesOf(listener, {}).toString("latin1"))), "latin1");
  }
  const { method = sound.method, target = "{path}", headers = [], message, body } = request;
  const given = new Set(headers.map((line) => line.slice(0, line.indexOf(":")).toLowerCase()));
  const own = sound.headers.filter((line) => !given.has(line.slice(0, line.indexOf(":")).toLowerCase()));
  const content = body === undefined ? Buffer.from(message?.(sound.body) ?? sound.body) : Buffer.from(body, "latin1");
  const framed = body !== undefined || (sound.body === "" && content.length === 0);
  const head = [
    `${method} ${meant(target)} HTTP/1.1`,
    `Host: ${meant(request.host ?? "{host}")}`,
    ...own,
    ...headers.map(meant),
    ...(framed ? [] : [`Content-Length: ${content.length}`]),
  ];
  return Buffer.concat([Buffer.from(`${head.join("\r\n")}\r\n\r\n`, "latin1"), content]);
}
