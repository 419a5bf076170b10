import { messageOf } from "../coded-error.js";
import type { Config } from "../config/config.js";
import { checkCollectorUrl } from "../config/values.js";
import type { CallTracer } from "../telemetry/call-tracer.js";
import type { Foundation } from "./foundation.js";

/** Spans of calls, where a collector is configured. */
export interface Tracing {
  tracer(): CallTracer | undefined;
  /** Goes over to the collector of `config`. What is still to be sent to the old one is sent. */
  follow(config: Config): Promise<void>;
}

export async function startTracing(foundation: Foundation): Promise<Tracing> {
  const { options, problem, undo } = foundation;
  let current: { url: string; tracer: CallTracer & { close(): Promise<void> } } | undefined;
  let closing: Promise<unknown> = Promise.resolve();

  async function follow(config: Config): Promise<void> {
    const url = config.telemetry?.otlp ?? fromEnvironment();
    if (url === current?.url) return;
    const old = current;
    current = undefined;
    if (url !== undefined) {
      // Most trust domains have no collector: the library is loaded for those that have.
      const { createOtlpTracer } = await import("../telemetry/otlp-tracer.js");
      const resource = { "service.name": "agentid", "service.namespace": config.trustDomain.name };
      current = { url, tracer: createOtlpTracer({ url, resource }) };
    }
    // A reload does not wait for the calls that the old one still follows.
    closing = Promise.all([closing, old?.tracer.close().catch(() => undefined)]);
  }

  function fromEnvironment(): string | undefined {
    const { OTEL_EXPORTER_OTLP_ENDPOINT: url = "", OTEL_SDK_DISABLED: disabled } = options.environment;
    if (url === "" || disabled?.toLowerCase() === "true") return undefined;
    const wrong = checkCollectorUrl(url);
    if (wrong === undefined) return url;
    problem("warning", "telemetry", `OTEL_EXPORTER_OTLP_ENDPOINT is not used: ${wrong}`);
    return undefined;
  }

  try {
    await follow(foundation.project.config);
  } catch (thrown) {
    problem("warning", "telemetry", `no spans are sent: ${messageOf(thrown)}`);
  }
  undo.push(() => Promise.all([closing, current?.tracer.close().catch(() => undefined)]));
  return { tracer: () => current?.tracer, follow };
}
