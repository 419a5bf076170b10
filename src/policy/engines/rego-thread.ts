/**
 * The program of a thread that evaluates one compiled Rego policy. A policy may loop for as long as it likes: it does so here, and whoever waits for
 * it ends the thread. Imports nothing of agentid, so that it also runs from the sources.
 */
import { parentPort, workerData } from "node:worker_threads";
import { loadPolicy } from "@open-policy-agent/opa-wasm";

export interface RegoThreadData {
  /** `policy.wasm`. */
  readonly wasm: Uint8Array;
  readonly entrypoint: string;
  /** `data` of the policy, as JSON. */
  readonly data: string;
}

export interface RegoQuestion {
  /** As JSON. */
  readonly input: string;
  /** Milliseconds since the epoch: what `time.now_ns` is. */
  readonly now: number;
}

export type RegoAnswer =
  | { readonly kind: "ready" }
  /** `json`: the entrypoint's value; undefined where it has none. */
  | { readonly kind: "value"; readonly json: string | undefined }
  | { readonly kind: "failed"; readonly message: string };

const NANOS_PER_MILLI = 1_000_000;
/** 64 KiB each. */
const MAX_PAGES = 1024;
let now = 0;

/** Exact where a JavaScript number is not: the evaluator takes bytes for JSON. */
function exact(nanos: bigint): ArrayBuffer {
  return new TextEncoder().encode(String(nanos)).buffer as ArrayBuffer;
}

/** A number of nanoseconds came through JSON and has lost up to 128 of them. */
function millisOf(nanos: unknown): number {
  if (typeof nanos !== "number" || !Number.isFinite(nanos)) throw new Error("not a number of nanoseconds");
  return Math.round(nanos / 1000) / 1000;
}

interface Moment {
  readonly year: number;
  readonly month: number;
  readonly day: number;
  readonly hour: number;
  readonly minute: number;
  readonly second: number;
  readonly weekday: string;
}

const formats = new Map<string, Intl.DateTimeFormat>();

/** `ns` or `[ns, "Europe/Berlin"]`, on the clock on that place's wall. */
function momentOf(argument: unknown): Moment {
  const [nanos, zone] = Array.isArray(argument) ? argument : [argument, "UTC"];
  if (typeof zone !== "string") throw new Error("not the name of a time zone");
  const name = zone === "" ? "UTC" : zone;
  let format = formats.get(name);
  if (format === undefined) {
    const options: Intl.DateTimeFormatOptions = {
      ...{ calendar: "iso8601", numberingSystem: "latn", hourCycle: "h23", weekday: "long" },
      ...{ year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" },
    };
    if (name !== "Local") options.timeZone = name;
    format = new Intl.DateTimeFormat("en-US", options);
    formats.set(name, format);
  }
  const parts = new Map(format.formatToParts(Math.floor(millisOf(nanos))).map(({ type, value }) => [type, value]));
  const number = (part: Intl.DateTimeFormatPartTypes) => Number(parts.get(part));
  return {
    ...{ year: number("year"), month: number("month"), day: number("day") },
    ...{ hour: number("hour"), minute: number("minute"), second: number("second") },
    weekday: parts.get("weekday") ?? "",
  };
}

const RFC3339 = /^(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(Z|[+-]\d{2}:\d{2})$/;

function parseRfc3339(text: unknown): bigint {
  const match = RFC3339.exec(String(text));
  if (match === null) throw new Error(`${JSON.stringify(text)} is no time of RFC 3339`);
  const [, day, time, fraction = "", zone] = match;
  const millis = Date.parse(`${day}T${time}${zone}`);
  if (Number.isNaN(millis) || !isCalendarDay(day ?? ""))
    throw new Error(`${JSON.stringify(text)} is no time of RFC 3339`);
  return BigInt(millis) * BigInt(NANOS_PER_MILLI) + BigInt(fraction.padEnd(9, "0"));
}

/** Date.parse takes 31 February for 3 March. */
function isCalendarDay(day: string): boolean {
  const parsed = new Date(`${day}T00:00:00Z`);
  return !Number.isNaN(parsed.getTime()) && parsed.toISOString().startsWith(day);
}

/** The parts of Go's reference time that policies use, as patterns. */
const LAYOUT: readonly (readonly [token: string, part: string, pattern: string])[] = [
  ["2006", "year", "\\d{4}"],
  ["01", "month", "\\d{2}"],
  ["02", "day", "\\d{2}"],
  ["15", "hour", "\\d{2}"],
  ["04", "minute", "\\d{2}"],
  ["05", "second", "\\d{2}"],
  ["Z07:00", "zone", "Z|[+-]\\d{2}:\\d{2}"],
];

function parseLayout(layout: unknown, value: unknown): bigint {
  if (typeof layout !== "string" || typeof value !== "string") throw new Error("layout and value are texts");
  if (layout === "RFC3339") return parseRfc3339(value);
  let pattern = "^";
  for (let at = 0; at < layout.length; ) {
    const known = LAYOUT.find(([token]) => layout.startsWith(token, at));
    const [token, part, form] = known ?? [layout[at] ?? "", undefined, undefined];
    // Whatever else could be a part of Go's reference time would be read otherwise there.
    if (known === undefined && /[0-9A-Za-z]/.test(token) && token !== "T")
      throw new Error(`layout ${layout} is not known here`);
    pattern += part === undefined ? token.replace(/[\\^$.*+?()[\]{}|]/, "\\$&") : `(?<${part}>${form})`;
    at += token.length;
  }
  const parts = new RegExp(`${pattern}$`).exec(value)?.groups;
  if (parts === undefined) throw new Error(`${JSON.stringify(value)} is not as ${layout}`);
  const { year = "0000", month = "01", day = "01", hour = "00", minute = "00", second = "00", zone = "Z" } = parts;
  return parseRfc3339(`${year}-${month}-${day}T${hour}:${minute}:${second}${zone}`);
}

const UNITS: Readonly<Record<string, bigint>> = {
  ...{ ns: 1n, us: 1_000n, µs: 1_000n, μs: 1_000n, ms: 1_000_000n },
  ...{ s: 1_000_000_000n, m: 60_000_000_000n, h: 3_600_000_000_000n },
};

function parseDuration(text: unknown): bigint {
  const [, sign = "", rest = ""] = /^([+-]?)((?:\d+(?:\.\d+)?(?:ns|us|µs|μs|ms|s|m|h))+|0)$/.exec(String(text)) ?? [];
  if (rest === "") throw new Error(`${JSON.stringify(text)} is no duration`);
  let nanos = 0n;
  for (const [, whole = "0", fraction = "", unit = ""] of rest.matchAll(/(\d+)(?:\.(\d+))?(ns|us|µs|μs|ms|s|m|h)/g)) {
    const scale = UNITS[unit] ?? 0n;
    nanos +=
      BigInt(whole) * scale + (BigInt(fraction === "" ? "0" : fraction) * scale) / 10n ** BigInt(fraction.length);
  }
  return sign === "-" ? -nanos : nanos;
}

function addDate(nanos: unknown, years: unknown, months: unknown, days: unknown): bigint {
  const [zoned] = Array.isArray(nanos) ? nanos : [nanos];
  if (Array.isArray(nanos) && nanos[1] !== "UTC" && nanos[1] !== "") throw new Error("time.add_date is in UTC only");
  const millis = millisOf(zoned);
  const date = new Date(Math.floor(millis));
  date.setUTCFullYear(
    date.getUTCFullYear() + Number(years),
    date.getUTCMonth() + Number(months),
    date.getUTCDate() + Number(days),
  );
  const rest = Math.round((millis - Math.floor(millis)) * NANOS_PER_MILLI);
  return BigInt(date.getTime()) * BigInt(NANOS_PER_MILLI) + BigInt(rest);
}

/** What the WebAssembly target lacks and policies about hours need. Whatever else it lacks fails by its name. */
const BUILTINS: Readonly<Record<string, (...args: unknown[]) => unknown>> = {
  "time.now_ns": () => exact(BigInt(Math.floor(now)) * BigInt(NANOS_PER_MILLI)),
  "time.parse_rfc3339_ns": (text) => exact(parseRfc3339(text)),
  "time.parse_ns": (layout, value) => exact(parseLayout(layout, value)),
  "time.parse_duration_ns": (text) => exact(parseDuration(text)),
  "time.weekday": (argument) => momentOf(argument).weekday,
  "time.clock": (argument) => {
    const { hour, minute, second } = momentOf(argument);
    return [hour, minute, second];
  },
  "time.date": (argument) => {
    const { year, month, day } = momentOf(argument);
    return [year, month, day];
  },
  "time.add_date": (nanos, years, months, days) => exact(addDate(nanos, years, months, days)),
};

const named = Object.fromEntries(
  Object.entries(BUILTINS).map(([name, builtin]) => [
    name,
    (...args: unknown[]) => {
      try {
        return builtin(...args);
      } catch (thrown) {
        throw new Error(`${name}: ${textOf(thrown)}`);
      }
    },
  ]),
);

/** Evaluator and modules throw errors, texts and plain objects. */
function textOf(thrown: unknown): string {
  if (typeof thrown === "object" && thrown !== null && "message" in thrown) return String(thrown.message);
  return String(thrown);
}

type Policy = Awaited<ReturnType<typeof loadPolicy>>;

const { wasm, entrypoint, data } = workerData as RegoThreadData;
const encoder = new TextEncoder();
let policy: Policy | undefined;

async function load(): Promise<Policy> {
  const loaded = await loadPolicy(wasm, { initial: 5, maximum: MAX_PAGES }, named);
  const entrypoints = Object.keys(loaded.entrypoints as object);
  if (!entrypoints.includes(entrypoint)) {
    throw new Error(`the policy has no entrypoint ${entrypoint}; it has ${entrypoints.join(", ")}`);
  }
  loaded.setData(encoder.encode(data).buffer);
  return loaded;
}

async function answerTo(question: RegoQuestion): Promise<RegoAnswer> {
  try {
    policy ??= await load();
    now = question.now;
    const results = policy.evaluate(encoder.encode(question.input).buffer, entrypoint) as readonly {
      readonly result?: unknown;
    }[];
    const [first, second] = results;
    if (second !== undefined) throw new Error("the policy has more than one answer");
    return { kind: "value", json: first?.result === undefined ? undefined : JSON.stringify(first.result) };
  } catch (thrown) {
    // What was interrupted may have left anything in its memory.
    policy = undefined;
    return { kind: "failed", message: textOf(thrown) };
  }
}

async function start(): Promise<void> {
  try {
    policy = await load();
    parentPort?.postMessage({ kind: "ready" } satisfies RegoAnswer);
  } catch (thrown) {
    parentPort?.postMessage({ kind: "failed", message: textOf(thrown) } satisfies RegoAnswer);
  }
}

parentPort?.on("message", (question: RegoQuestion) => {
  void answerTo(question).then((answer) => parentPort?.postMessage(answer));
});
void start();
