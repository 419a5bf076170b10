import type { TraceParent } from "./trace-context.js";

/** Makes spans of calls. What it does with them never delays or fails a call. */
export interface CallTracer {
  /** `outbound` becomes a span of kind CLIENT, `inbound` one of kind SERVER, as sidecars have it. `startedAt` as `performance.now()` gave it. */
  begin(leg: "outbound" | "inbound", startedAt: number, parent: TraceParent | undefined): CallSpan;
}

/** One leg's part of one call, or of one connection. */
export interface CallSpan {
  /** What the next hop is told: this span is the parent of what follows. */
  readonly traceparent: string;
  readonly tracestate: string | undefined;
  /** The first end counts. */
  end(facts: SpanFacts): void;
}

export interface SpanFacts {
  /** Of few values: `GET invoices`, `tools/call issue_refund`, `shop.Ledger/Get`. */
  readonly name: string;
  /** What went wrong, of few values: a refusal's code, or the status. Undefined: nothing. */
  readonly errorType: string | undefined;
  /** By the names of OpenTelemetry's semantic conventions where they have one; undefined values are left out. */
  readonly attributes: Readonly<Record<string, string | number | boolean | undefined>>;
}
