/** W3C Trace Context, level 2: the caller's place in a trace, as `traceparent` and `tracestate` say it. */
export interface TraceParent {
  /** 32 lower-case hex digits, not all zero. */
  readonly traceId: string;
  /** 16 lower-case hex digits, not all zero. */
  readonly spanId: string;
  readonly flags: number;
  /** As received; undefined where there is none that can be read. */
  readonly traceState: string | undefined;
}

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
/** §3.3.1.3: list members, each key=value; empty ones are allowed. */
const TRACESTATE_MEMBER =
  /^[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]$/;
const MAX_TRACESTATE_MEMBERS = 32;

/**
 * Reads what a caller sent. §3.2.2.2, §4.3: a `traceparent` that cannot be read, or comes more than once, begins a new trace and takes `tracestate` with it;
 * a `tracestate` that cannot be read is dropped alone.
 */
export function parseTraceParent(
  traceparents: readonly string[],
  tracestates: readonly string[],
): TraceParent | undefined {
  const [, version, traceId = "", spanId = "", flags = "", rest] =
    traceparents.length === 1 ? (TRACEPARENT.exec(traceparents[0] ?? "") ?? []) : [];
  if (version === undefined || version === "ff" || (version === "00" && rest !== undefined)) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, flags: Number.parseInt(flags, 16), traceState: readableState(tracestates) };
}

/** §3.2.1: version 00 is what we write, whatever version we read. Of the flags only those that it knows. */
export function formatTraceParent({ traceId, spanId, flags }: Omit<TraceParent, "traceState">): string {
  return `00-${traceId}-${spanId}-${(flags & KNOWN_FLAGS).toString(16).padStart(2, "0")}`;
}

/** sampled, random-trace-id */
const KNOWN_FLAGS = 0b11;

function readableState(tracestates: readonly string[]): string | undefined {
  if (tracestates.length === 0) return undefined;
  const members = tracestates
    .join(",")
    .split(",")
    .map((member) => member.trim())
    .filter((member) => member !== "");
  const keys = new Set(members.map((member) => member.slice(0, member.indexOf("="))));
  const readable = members.length <= MAX_TRACESTATE_MEMBERS && keys.size === members.length;
  if (members.length === 0 || !readable || !members.every((member) => TRACESTATE_MEMBER.test(member))) return undefined;
  return members.join(",");
}
