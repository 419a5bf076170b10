import { messageOf } from "../coded-error.js";
import type { Config } from "../config/config.js";
import { checkCollectorUrl } from "../config/values.js";
import type { CallTracer } from "../telemetry/call-tracer.js";
import type { OtlpTracer } from "../telemetry/otlp-tracer.js";
import type { Foundation } from "./foundation.js";

/** How long an end may wait for the spans that are still open. */
const GRACE_MS = 1_000;

/** Spans of calls, where a collector is configured. */
export interface Tracing {
  tracer(): CallTracer | undefined;
  /** Goes over to the collector of `config`. Calls that are under way are told to the old one when they end. */
  follow(config: Config): Promise<void>;
}

export async function startTracing(foundation: Foundation): Promise<Tracing> {
  const { options, problem, undo } = foundation;
  let current: { readonly url: string; readonly tracer: OtlpTracer } | undefined;
  const retired = new Set<OtlpTracer>();

  async function follow(config: Config): Promise<void> {
    const url = config.telemetry?.otlp ?? fromEnvironment();
    if (url === current?.url) return;
    const old = current?.tracer;
    current = undefined;
    if (url !== undefined) {
      // Most trust domains have no collector: the library is loaded for those that have.
      const { createOtlpTracer } = await import("../telemetry/otlp-tracer.js");
      const resource = { "service.name": "agentid", "service.namespace": config.trustDomain.name };
      current = { url, tracer: createOtlpTracer({ url, resource }) };
    }
    // A reload does not wait for the calls that the old one still follows.
    if (old !== undefined) retire(old);
  }

  function retire(old: OtlpTracer): void {
    retired.add(old);
    const forget = () => void retired.delete(old);
    old.close().then(forget, forget);
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
  undo.push(() => {
    const all = current === undefined ? [...retired] : [...retired, current.tracer];
    return Promise.all(all.map((one) => one.close(GRACE_MS).catch(() => undefined)));
  });
  return { tracer: () => current?.tracer, follow };
}
