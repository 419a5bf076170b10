import { type ChildProcess, spawn } from "node:child_process";
import { realpathSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, it } from "vitest";
import type { RunningService } from "../../src/relay/running-service.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { createOtlpTracer } from "../../src/telemetry/otlp-tracer.js";
import { identity, runRelay, shop } from "../relay/running-relay.js";
import { preparePythonEnvironment } from "./python-environment.js";

const folder = join(import.meta.dirname, "telemetry-python");
const python = await preparePythonEnvironment("telemetry-python", join(folder, "requirements.txt"));
if ("missing" in python) process.stderr.write(`SKIPPED: OpenTelemetry for Python: ${python.missing}\n`);

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
const spanId = "00f067aa0ba902b7";

interface Program {
  readonly child: ChildProcess;
  next(): Promise<Record<string, unknown>>;
}

/** A program that says a line of JSON for each thing that it sees. */
function start(program: string, name: string): Program {
  const child = spawn(program, [join(folder, name)], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return { child, next: async () => JSON.parse((await lines.next()).value as string) as Record<string, unknown> };
}

it.skipIf("missing" in python)(
  "OpenTelemetry's own classes read our spans, and the service is in the caller's trace",
  async () => {
    if ("missing" in python) throw new Error(python.missing);
    const { child, next } = start(python.python, "collect.py");
    try {
      const { port } = (await next()) as { port: number };
      const tracer = createOtlpTracer({ url: `http://127.0.0.1:${port}`, resource: { "service.name": "agentid" } });
      const running = await runRelay({
        services: [
          {
            ...{
              name: "invoices",
              id: SpiffeId.of(shop, "services/invoices"),
              protocol: "http",
              listenPort: undefined,
            },
            upstream: { kind: "tcp", host: "127.0.0.1", port },
          },
        ],
        rules: "rules:\n  - { name: reads, allow: { from: agents/tests, to: invoices, method: GET } }\n",
        change: (parts) => ({ ...parts, tracer: () => tracer }),
      });
      const headers = { traceparent: `00-${traceId}-${spanId}-01`, tracestate: "rojo=1,congo=t61rcWkgMzE" };
      await fetch(`${running.urlOf("invoices")}/v1`, { headers }).then((response) => response.text());
      const { service } = (await next()) as { service: { trace: string; span: string; state: string } };
      await running.close();
      await tracer.close();
      const spans = [await next(), await next()];
      const [client, server] = [3, 2].map((kind) => spans.find((span) => span.kind === kind));
      const common = { trace: traceId, state: headers.tracestate, name: "GET invoices", took: true };
      expect(client).toMatchObject({ ...common, parent: spanId });
      expect(server).toMatchObject({ ...common, parent: client?.span });
      expect(service).toEqual({ trace: traceId, span: server?.span, state: headers.tracestate });
    } finally {
      child.kill();
    }
  },
);

it.skipIf("missing" in python)(
  "OpenTelemetry's instrumentation of gRPC, and its propagator in a WebSocket's handshake, find our spans between theirs",
  async () => {
    if ("missing" in python) throw new Error(python.missing);
    const collector = start(python.python, "collect.py");
    const programs = start(python.python, "kinds.py");
    try {
      const { port } = (await collector.next()) as { port: number };
      const ports = (await programs.next()) as { grpc: number; websocket: number };
      const tracer = createOtlpTracer({ url: `http://127.0.0.1:${port}`, resource: { "service.name": "agentid" } });
      const service = (name: string, protocol: "grpc" | "http", at: number): RunningService => ({
        ...{ name, id: SpiffeId.of(shop, `services/${name}`), protocol, listenPort: undefined },
        upstream: { kind: "tcp", host: "127.0.0.1", port: at },
      });
      const running = await runRelay({
        services: [service("ledger", "grpc", ports.grpc), service("chat", "http", ports.websocket)],
        identities: [identity("agents/python", { facts: { exePath: realpathSync(python.python) } })],
        rules: `rules:
  - { name: ledger, allow: { from: agents/python, to: ledger, path: /shop.Ledger/Get } }
  - { name: chat, allow: { from: agents/python, to: chat, path: /chat } }
`,
        change: (parts) => ({ ...parts, tracer: () => tracer }),
      });
      const [ledger, chat] = ["ledger", "chat"].map((name) => new URL(running.urlOf(name)).host);
      programs.child.stdin?.write(`${JSON.stringify({ grpc: ledger, websocket: `ws://${chat}/chat` })}\n`);
      const theirs: Record<string, unknown>[] = [];
      while (theirs.length < 5) theirs.push(await programs.next());
      expect(theirs.find(({ name }) => name === "done")).toEqual({ name: "done", answered: true, echoed: true });
      await running.close();
      await tracer.close();
      const ours = [await collector.next(), await collector.next(), await collector.next(), await collector.next()];
      const named = (name: string, kind: number) => ours.find((span) => span.name === name && span.kind === kind);
      const their = (kind: string) => theirs.find((span) => span.kind === kind);
      const [asks, called, served, opened] = ["INTERNAL", "CLIENT", "SERVER", "SERVICE"].map(their);
      const trace = asks?.trace;
      expect(new Set([...ours, called, served, opened].map((span) => span?.trace))).toEqual(new Set([trace]));
      expect(named("shop.Ledger/Get", 3)).toMatchObject({ parent: called?.span });
      expect(named("shop.Ledger/Get", 2)).toMatchObject({
        parent: named("shop.Ledger/Get", 3)?.span,
        attributes: {
          "rpc.system": "grpc",
          "rpc.service": "shop.Ledger",
          "rpc.method": "Get",
          "rpc.grpc.status_code": 0,
        },
      });
      expect(served).toMatchObject({ parent: named("shop.Ledger/Get", 2)?.span });
      expect(named("GET chat", 3)).toMatchObject({ parent: asks?.span });
      expect(named("GET chat", 2)).toMatchObject({
        parent: named("GET chat", 3)?.span,
        attributes: { "http.response.status_code": 101, "network.protocol.name": "websocket" },
      });
      expect(opened).toMatchObject({ span: named("GET chat", 2)?.span });
    } finally {
      collector.child.kill();
      programs.child.kill();
    }
  },
);
