import { expect } from "vitest";
import type { RelayParts } from "../../src/relay/exchange.js";
import type { RunningService } from "../../src/relay/running-service.js";
import { createOtlpTracer } from "../../src/telemetry/otlp-tracer.js";
import { type ReceivedSpan, runCollector } from "../telemetry/collector.js";
import { type RunningRelay, runRelay } from "./running-relay.js";

export const TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736";
export const SPAN_ID = "00f067aa0ba902b7";
/** Stands wherever a test may put something that is nobody's business: no span may hold it. */
export const CANARY = "canary-4711";

/** Runs `calls` through a relay whose spans are collected, and gives back those that came: all of `count`, once they have ended. */
export async function traced(
  {
    count,
    ...options
  }: { services: readonly RunningService[]; rules: string; count: number } & {
    change?: (parts: RelayParts) => RelayParts;
  },
  calls: (running: RunningRelay) => Promise<unknown>,
): Promise<Traced> {
  const collector = await runCollector();
  const tracer = createOtlpTracer({ url: collector.url, resource: { "service.name": "agentid" } });
  const ended = new Set<object>();
  const counting: typeof tracer = {
    begin(...begun) {
      const span = tracer.begin(...begun);
      return {
        ...{ traceparent: span.traceparent, tracestate: span.tracestate },
        end(facts) {
          span.end(facts);
          ended.add(span);
        },
      };
    },
    close: () => tracer.close(),
  };
  const running = await runRelay({
    ...options,
    change: (parts) => ({ ...(options.change?.(parts) ?? parts), tracer: () => counting }),
  });
  try {
    await calls(running);
    await expect.poll(() => ended.size, { timeout: 25_000 }).toBe(count);
  } finally {
    await running.close();
    await tracer.close();
    collector.close();
  }
  const { spans, bodies, types, resources } = collector;
  const [client, server] = [3, 2].map((kind) => spans.find((span) => span.kind === kind));
  return { spans, client, server, types, resources, sent: Buffer.concat(bodies).toString("latin1") };
}

export interface Traced {
  readonly spans: readonly ReceivedSpan[];
  /** Of each request to the collector: method, path and type; and whose spans it brought. */
  readonly types: readonly string[];
  readonly resources: readonly Readonly<Record<string, unknown>>[];
  /** Of the outbound leg, and of the inbound one. */
  readonly client: ReceivedSpan | undefined;
  readonly server: ReceivedSpan | undefined;
  /** Every byte that the collector was sent. */
  readonly sent: string;
}
