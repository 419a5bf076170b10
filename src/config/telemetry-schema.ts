import { z } from "zod";
import { text } from "./schema-text.js";
import { checkCollectorUrl } from "./values.js";

export const telemetry = z
  .strictObject({
    otlp: text(checkCollectorUrl, {
      description:
        "An OpenTelemetry collector that takes OTLP over HTTP, as its base address: each leg's part of a call becomes a span at `/v1/traces`. Without it, `OTEL_EXPORTER_OTLP_ENDPOINT` of the daemon's environment counts. `OTEL_EXPORTER_OTLP_HEADERS` gives headers, such as a token.",
      examples: ["http://127.0.0.1:4318"],
    }),
  })
  .meta({
    description: "Who is told of calls besides the record: who called what, decided how, and how long it took.",
  });
