import { createTraceState, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { AlwaysOnSampler, BatchSpanProcessor, ParentBasedSampler, TracerProvider } from "@opentelemetry/sdk-trace";
import type { CallSpan, CallTracer } from "./call-tracer.js";
import { formatTraceParent } from "./trace-context.js";

const EXPORT_TIMEOUT_MS = 5_000;
/** A tracer with an end. */
export interface OtlpTracer extends CallTracer {
  /** Sends what is still to be sent, once the spans that are open have ended; those that take longer than `graceMs` are left out. */
  close(graceMs?: number): Promise<void>;
}

/**
 * Spans to an OpenTelemetry collector, in batches over OTLP/HTTP. `url` is the base, `/v1/traces` is added. What the collector does not take is dropped:
 * the record, not the trace, is the evidence. A caller that says "not sampled" is not.
 */
export function createOtlpTracer(options: {
  readonly url: string;
  /** `service.name` and its like. */
  readonly resource: Readonly<Record<string, string>>;
}): OtlpTracer {
  const url = `${options.url.replace(/\/$/, "")}/v1/traces`;
  const exporter = new OTLPTraceExporter({ url, timeoutMillis: EXPORT_TIMEOUT_MS });
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ ...options.resource }),
    sampler: new ParentBasedSampler({ root: new AlwaysOnSampler() }),
    spanProcessors: [new BatchSpanProcessor({ exporter })],
  });
  const tracer = provider.getTracer("agentid-relay");
  let open = 0;
  const waiting = new Set<() => void>();
  let shutdown: Promise<void> | undefined;

  /** What has just been cut is still on its way to its end. */
  async function whenEnded(graceMs: number | undefined): Promise<void> {
    if (open === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    waiting.add(resolve);
    const patience = graceMs === undefined ? undefined : setTimeout(resolve, graceMs);
    await promise;
    clearTimeout(patience);
    waiting.delete(resolve);
  }

  return {
    begin(leg, startTime, parent): CallSpan {
      const state = parent?.traceState;
      const above =
        parent === undefined
          ? ROOT_CONTEXT
          : trace.setSpanContext(ROOT_CONTEXT, {
              ...{ traceId: parent.traceId, spanId: parent.spanId, traceFlags: parent.flags, isRemote: true },
              ...(state !== undefined && { traceState: createTraceState(state) }),
            });
      const kind = leg === "outbound" ? SpanKind.CLIENT : SpanKind.SERVER;
      const span = tracer.startSpan("call", { kind, startTime }, above);
      const { traceId, spanId, traceFlags } = span.spanContext();
      if (span.isRecording()) open += 1;
      return {
        traceparent: formatTraceParent({ traceId, spanId, flags: traceFlags }),
        tracestate: state,
        end({ name, errorType, attributes }) {
          if (!span.isRecording()) return;
          span.updateName(name);
          for (const [key, value] of Object.entries(attributes)) if (value !== undefined) span.setAttribute(key, value);
          if (errorType !== undefined) {
            span.setAttribute("error.type", errorType);
            span.setStatus({ code: SpanStatusCode.ERROR });
          }
          span.end();
          open -= 1;
          if (open === 0) for (const ended of waiting) ended();
        },
      };
    },
    async close(graceMs) {
      await whenEnded(graceMs);
      shutdown ??= provider.shutdown();
      await shutdown;
    },
  };
}
