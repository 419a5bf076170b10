import { createHash } from "node:crypto";
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
import { egressService } from "../../../src/relay/running-service.js";
import { ALPN } from "../../../src/relay/tcp-protocol.js";
import { decidesBy, runAuthzen } from "../../authzen/running-authzen.js";
import { freePort } from "../../federation/free-port.js";
import { type ListeningService, runListeningService } from "../../fuzz/listening-service.js";
import type { StrictRequest } from "../../fuzz/strict-http.js";
import { type GrpcService, runGrpcService } from "../grpc-service.js";
import { target } from "../outside.js";
import { exchangeRaw, type RawAnswer } from "../raw-http.js";
import { Flag, Frame, frame, type Head, RawHttp2 } from "../raw-http2.js";
import { identity, runRelay, shop } from "../running-relay.js";
import { echo, runTcpUpstream } from "../tcp-services.js";
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
  /** The instrumented service behind it that reads HTTP/1.1. */
  readonly service?: ListeningService;
  /** What has arrived last at the service; undefined where requests end at the listener. */
  readonly last?: () => StrictRequest | undefined;
  /** What the service is called in `Host`. */
  readonly hostThere?: string;
  /** The status with which a sound request is answered. Default: 200. */
  readonly status?: number;
  /** Instead of bytes of HTTP/1.1. */
  readonly exchange?: (request: ChangedRequest) => Promise<RawAnswer>;
}

const PATIENCE_MS = 10_000;
const CALL =
  '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_invoice","arguments":{"id":{"slot":1}}}}';
const QUESTION =
  '{"x":"y","subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"r1"},"context":{"slot":1}}';
const JSON_BODY = ["Content-Type: application/json"];
const RULES = `rules:
  - { name: all, allow: { from: agents/tests, to: [invoices, chat, ledger, egress/api] } }
  - { name: connects, allow: { from: agents/tests, to: orders, action: connect } }
  - { name: tunnels, allow: { from: agents/tests, to: egress/tunnel, action: connect } }
  - { name: reads, allow: { from: agents/tests, to: payments, tools: [get_invoice] } }
`;
const MCP_ANSWER = '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"arrived"}]}}';

/** Every way in of one running trust domain. A new listener is one more entry of `listeners`. */
export async function runListeners() {
  const invoices = await runListeningService("invoices");
  const payments = await runListeningService("payments", "mcp");
  const chat = await runListeningService("chat");
  chat.answer.to = acceptWebSocket;
  const ledger = await runGrpcService("ledger");
  const orders = await runTcpUpstream("orders", echo);
  const api = await runListeningService("api", "http", "port");
  const tunnel = await runListeningService("tunnel", "http", "port");
  const [apiPort, tunnelPort] = [portOf(api), portOf(tunnel)];
  const folder = mkdtempSync(join(tmpdir(), "agentid-bad-"));
  const outside = { ca: "", port: 0 };
  payments.answer.bytes = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${MCP_ANSWER.length}\r\n\r\n${MCP_ANSWER}`;
  const decisionPoint = decidesBy(() => true);
  // Everything that is asked is allowed: what is refused is refused for its form alone.
  const running = await runAuthzen({
    rules: RULES,
    services: [
      { ...invoices.service, listenSocket: join(folder, "run", "invoices.sock") },
      ...[payments.service, chat.service, ledger.service, orders.service],
      egressService(target("api", { ...outside, port: apiPort }, { scheme: "http", ca: undefined })),
      egressService(
        target("tunnel", { ...outside, port: tunnelPort }, { host: "tunnel.test", connect: true, ca: undefined }),
      ),
    ],
    relay: (parts) => ({ ...parts, resolve: async () => [{ address: "127.0.0.1", family: 4 }] }),
    identities: [identity(BUNDLE_ENDPOINT_IDENTITY)],
    change: () => ({ decisionPoint: () => decisionPoint }),
  });
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
    const status = kind === "WebSocket" ? 101 : 200;
    const common = {
      ...{ kind, sound, service, status, arrivals: () => service.arrived.length },
      ...{ hostThere: "localhost", last: () => service.arrived.at(-1) },
    };
    const outbound = new URL(running.urlOf(name)).port;
    const inbound = String(running.relay.addressesOf(name)?.mtls.port);
    const caller = running.svidOf("agents/tests");
    return [
      {
        ...{ ...common, name: `outbound leg of ${kind}`, host: `127.0.0.1:${outbound}`, port: outbound },
        open: () => connect(Number(outbound), "127.0.0.1"),
      },
      {
        ...{ ...common, name: `inbound leg of ${kind}`, host: `127.0.0.1:${inbound}`, port: inbound },
        open: () =>
          connectTls({
            ...{ host: "127.0.0.1", port: Number(inbound), rejectUnauthorized: false },
            secureContext: secureContextOf(caller),
          }),
      },
    ];
  };
  const grpcLegs = (): readonly Listener[] => {
    const { url, mtls } = running.relay.addressesOf("ledger") ?? { url: "", mtls: { port: 0 } };
    const plain = Number(new URL(url).port);
    const overTls = () =>
      connectTls({
        ...{ host: "127.0.0.1", port: mtls.port, rejectUnauthorized: false, ALPNProtocols: ["h2"] },
        secureContext: secureContextOf(running.svidOf("agents/tests")),
      });
    const leg = (name: string, scheme: string, port: number, open: () => Socket): Listener => {
      const listener: Listener = {
        ...{ name, kind: "gRPC", host: `127.0.0.1:${port}`, port: String(port), open },
        sound: { method: "POST", path: "/shop.Ledger/Get", headers: [], body: "" },
        arrivals: () => ledger.arrived.length,
        last: () => arrivedInGrpc(ledger.arrived.at(-1)),
        exchange: (request) => exchangeHttp2(listener, scheme, request),
      };
      return listener;
    };
    return [
      leg("outbound leg of gRPC", "http", plain, () => connect(plain, "127.0.0.1")),
      leg("inbound leg of gRPC", "https", mtls.port, overTls),
    ];
  };
  // The same name, from an authority that has nothing to do with ours.
  const elsewhere = await runRelay({ services: [], rules: "rules: []\n" });
  const foreign = secureContextOf(elsewhere.svidOf("agents/tests"));
  const tcpLegs = (): readonly Listener[] => {
    const { address, mtls } = running.relay.addressesOf("orders") ?? { address: "", mtls: { port: 0 } };
    const plain = Number(address.slice(address.lastIndexOf(":") + 1));
    const own = secureContextOf(running.svidOf("agents/tests"));
    const leg = (kind: ListenerKind, port: number, open: (request: ChangedRequest) => Socket): Listener => ({
      ...{ name: `leg of ${kind}`, kind, host: "", port: String(port), open: () => open({}) },
      sound: { method: "", path: "", headers: [], body: "ping" },
      arrivals: () => orders.arrived.length,
      exchange: (request) => exchangeTcp(open(request), request),
    });
    return [
      leg("TCP", plain, () => connect({ port: plain, host: "127.0.0.1", allowHalfOpen: true })),
      leg("TCP over TLS", mtls.port, ({ tls = {} }) => {
        const { alpn = [ALPN.plain], certificate, maxVersion, instead } = tls;
        const to = { host: "127.0.0.1", port: mtls.port, allowHalfOpen: true };
        if (instead !== undefined) return connect(to);
        const secureContext = certificate === undefined ? own : foreign;
        return connectTls({
          ...{ ...to, rejectUnauthorized: false, ALPNProtocols: [...alpn] },
          ...(certificate === "none" ? {} : { secureContext }),
          ...(maxVersion !== undefined && { secureContext: undefined, maxVersion }),
        });
      }),
    ];
  };
  const proxyPort = Number(new URL(running.relay.proxyUrl() ?? "").port);
  const egressPort = Number(new URL(running.relay.egressUrlOf("api") ?? "").port);
  const get = { method: "GET", path: "/v1/x", headers: [], body: "" };
  const question = { method: "POST", path: "/access/v1/evaluation", headers: JSON_BODY, body: QUESTION };
  const bundlePort = bundleEndpoint.address.port;
  const listeners: readonly Listener[] = [
    ...legs("http service", invoices, get),
    {
      ...{ name: "Unix socket of an http service", kind: "http service", host: "localhost", port: "80", sound: get },
      ...{ service: invoices, hostThere: "localhost", last: () => invoices.arrived.at(-1) },
      open: () => connect(join(folder, "run", "invoices.sock")),
      arrivals: () => invoices.arrived.length,
    },
    {
      ...{ name: "egress target", kind: "egress target", host: `127.0.0.1:${egressPort}`, port: String(egressPort) },
      ...{ sound: get, service: api, hostThere: `127.0.0.1:${apiPort}`, last: () => api.arrived.at(-1) },
      ...{ open: () => connect(egressPort, "127.0.0.1"), arrivals: () => api.arrived.length },
    },
    ...legs("WebSocket", chat, {
      ...{ method: "GET", path: "/v1/x", body: "" },
      headers: [
        ...["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"],
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
      ],
    }),
    {
      ...{ name: "CONNECT proxy", kind: "CONNECT proxy", host: `tunnel.test:${tunnelPort}`, port: String(tunnelPort) },
      sound: { method: "CONNECT", path: `tunnel.test:${tunnelPort}`, headers: [], body: "" },
      ...{ open: () => connect(proxyPort, "127.0.0.1"), arrivals: () => tunnel.connections },
    },
    ...grpcLegs(),
    ...tcpLegs(),
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
      await Promise.all([running, bundleEndpoint, oidc, control, elsewhere, orders].map((one) => one.close()));
      for (const service of [invoices, payments, chat, ledger, api, tunnel]) service.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export function exchange(listener: Listener, request: ChangedRequest): Promise<RawAnswer> {
  if (listener.exchange !== undefined) return listener.exchange(request);
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
  const { method = sound.method, target = "{path}", headers = [], without = [], message, body } = request;
  const given = new Set([...headers, ...without.map((name) => `${name}:`)].map(nameIn));
  const own = sound.headers.filter((line) => !given.has(nameIn(line)));
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

function nameIn(line: string): string {
  return line.slice(0, line.indexOf(":")).toLowerCase();
}

function portOf({ service: { upstream } }: ListeningService): number {
  return upstream.kind === "tcp" ? upstream.port : 0;
}

/** RFC 6455 §4.2.2. */
function acceptWebSocket({ headers }: StrictRequest): string {
  const key = headers.find(([name]) => name.toLowerCase() === "sec-websocket-key")?.[1];
  if (key === undefined) return "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\narrived";
  const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  const switching = ["Connection: Upgrade", "Upgrade: websocket", `Sec-WebSocket-Accept: ${accept}`];
  return ["HTTP/1.1 101 Switching Protocols", ...switching, "", ""].join("\r\n");
}

/** The sound call of `listener` with `request` changed in it, in frames. Status 0 where it is reset, or the connection with it. */
async function exchangeHttp2(listener: Listener, scheme: string, request: ChangedRequest): Promise<RawAnswer> {
  const { raw, body, message, fields = {}, headers = [] } = request;
  if (raw !== undefined || body !== undefined || message !== undefined) throw new Error("that is HTTP/1.1");
  const meant = (text: string) =>
    text
      .replaceAll("{host}", listener.host)
      .replaceAll("{port}", listener.port)
      .replaceAll("{path}", listener.sound.path);
  const lines = headers.map((line) => [nameIn(line), meant(line.slice(line.indexOf(":") + 1).trim())] as const);
  const sound: Head = [
    [":method", request.method ?? listener.sound.method],
    [":scheme", scheme],
    [":authority", meant(request.host ?? "{host}")],
    [":path", meant(request.target ?? "{path}")],
    ["content-type", "application/grpc"],
    ["te", "trailers"],
  ];
  const { changes = {}, more = [] } = fields;
  const head = sound
    .filter(([name]) => !lines.some(([given]) => given === name))
    .flatMap(([name, value]) => {
      const changed = name in changes ? changes[name] : value;
      return changed === undefined ? [] : [[name, meant(changed)] as const];
    });
  const connection = new RawHttp2(listener.open());
  const stream = connection.open([...head, ...lines, ...more.map(([name, value]) => [name, meant(value)] as const)], {
    ended: false,
  });
  connection.send(frame(Frame.data, Flag.endStream, stream, Buffer.from([0, 0, 0, 0, 1, 65])));
  const deadline = Date.now() + PATIENCE_MS;
  let outcome = connection.outcome(stream);
  while (outcome === undefined && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 2));
    outcome = connection.outcome(stream);
  }
  connection.close();
  if (outcome === undefined) throw new Error("neither answered nor reset");
  return { status: outcome === "answered" ? 200 : 0, head: outcome, body: "" };
}

/** Bytes that the service echoes. Status 200 where all of them come back, 0 where nothing does. */
function exchangeTcp(socket: Socket, { first, tls = {} }: ChangedRequest): Promise<RawAnswer> {
  const bytes = Buffer.from(tls.instead ?? first ?? "ping", "latin1");
  return new Promise((resolve, reject) => {
    const came: Buffer[] = [];
    socket.setTimeout(PATIENCE_MS, () => reject(new Error("neither answered nor closed")));
    // The alert with which a handshake is refused is not of the service.
    socket.on("data", (chunk: Buffer) => came.push(chunk));
    socket.on("error", () => undefined);
    socket.on("close", () => {
      const all = Buffer.concat(came);
      if (tls.instead === undefined && all.length > 0 && !all.equals(bytes)) reject(new Error(`came back: ${all}`));
      else resolve({ status: all.equals(bytes) ? 200 : 0, head: "closed", body: "" });
    });
    socket.end(bytes);
  });
}

function arrivedInGrpc(call: GrpcService["arrived"][number] | undefined): StrictRequest | undefined {
  if (call === undefined) return undefined;
  const fields = Object.entries(call.metadata.toHttp2Headers());
  const headers = fields.flatMap(([name, values]) => [values].flat().map((value) => [name, String(value)] as const));
  return { method: "POST", target: `/shop.Ledger/${call.method}`, headers, body: "" };
}
