import { createTraceState, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { AlwaysOnSampler, BatchSpanProcessor, ParentBasedSampler, TracerProvider } from "@opentelemetry/sdk-trace";
import type { CallSpan, CallTracer } from "./call-tracer.js";
import { formatTraceParent } from "./trace-context.js";

const EXPORT_TIMEOUT_MS = 5_000;
/** How long an end may wait for the spans that are still open. */
const GRACE_MS = 1_000;

/**
 * Spans to an OpenTelemetry collector, in batches over OTLP/HTTP. `url` is the base, `/v1/traces` is added. What the collector does not take is dropped:
 * the record, not the trace, is the evidence. A caller that says "not sampled" is not.
 */
export function createOtlpTracer(options: {
  readonly url: string;
  /** `service.name` and its like. */
  readonly resource: Readonly<Record<string, string>>;
}): CallTracer & { close(): Promise<void> } {
  const url = `${options.url.replace(/\/$/, "")}/v1/traces`;
  const exporter = new OTLPTraceExporter({ url, timeoutMillis: EXPORT_TIMEOUT_MS });
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ ...options.resource }),
    sampler: new ParentBasedSampler({ root: new AlwaysOnSampler() }),
    spanProcessors: [new BatchSpanProcessor({ exporter })],
  });
  const tracer = provider.getTracer("agentid-relay");
  let open = 0;
  let lastEnded = (): void => undefined;

  /** What has just been cut is still on its way to its end. */
  async function whenEnded(): Promise<void> {
    if (open === 0) return;
    let patience: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      lastEnded = resolve;
      patience = setTimeout(resolve, GRACE_MS);
    });
    clearTimeout(patience);
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
          if (open === 0) lastEnded();
        },
      };
    },
    async close() {
      await whenEnded();
      await provider.shutdown();
    },
  };
}
