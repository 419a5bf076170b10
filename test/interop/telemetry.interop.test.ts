import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, it } from "vitest";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { createOtlpTracer } from "../../src/telemetry/otlp-tracer.js";
import { runRelay, shop } from "../relay/running-relay.js";
import { preparePythonEnvironment } from "./python-environment.js";

const folder = join(import.meta.dirname, "telemetry-python");
const python = await preparePythonEnvironment("telemetry-python", join(folder, "requirements.txt"));
if ("missing" in python) process.stderr.write(`SKIPPED: OpenTelemetry for Python: ${python.missing}\n`);

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
const spanId = "00f067aa0ba902b7";

it.skipIf("missing" in python)(
  "OpenTelemetry's own classes read our spans, and the service is in the caller's trace",
  async () => {
    if ("missing" in python) throw new Error(python.missing);
    const child = spawn(python.python, [join(folder, "collect.py")], { stdio: ["ignore", "pipe", "inherit"] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const next = async () => JSON.parse((await lines.next()).value as string) as Record<string, unknown>;
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
