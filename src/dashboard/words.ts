import type { Call } from "./call-log.js";
import type { Identity } from "./state.js";

/** `12:04:31.7` in the time zone of the terminal. */
export function clockTime(time: string | number): string {
  const date = new Date(time);
  const tenths = Math.floor(date.getMilliseconds() / 100);
  return `${clockSeconds(date)}.${tenths}`;
}

/** `12:04:31` in the time zone of the terminal. */
export function clockSeconds(time: string | number | Date): string {
  const date = new Date(time);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

/** Time left as `6:12`, `1h04`, `3d`; `0:00` when it is over. */
export function timeLeft(milliseconds: number): string {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  if (seconds < 3600) return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  const hours = Math.floor(seconds / 3600);
  if (hours < 48) return `${hours}h${String(Math.floor((seconds % 3600) / 60)).padStart(2, "0")}`;
  return `${Math.floor(hours / 24)}d`;
}

/** `3.1 ms`, `412 ms`, `2.4 s`. */
export function duration(milliseconds: number): string {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${milliseconds >= 100 ? Math.round(milliseconds) : milliseconds.toFixed(1)} ms`;
}

/** `1 rule`, `3 rules`. */
export function counted(count: number, noun: string): string {
  if (count === 1) return `1 ${noun}`;
  return `${count} ${noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : `${noun}s`}`;
}

/**
 * A caller for a narrow column: the last segment of an identity's name where only one registered identity ends so, else
 * all of it, so that `elsewhere/billing` never looks like `agents/billing`.
 */
export function shortCaller(caller: string, names: ReadonlySet<string>): string {
  if (!names.has(caller)) return caller;
  const last = lastSegment(caller);
  for (const name of names) if (name !== caller && lastSegment(name) === last) return caller;
  return last;
}

function lastSegment(name: string): string {
  return name.slice(name.lastIndexOf("/") + 1);
}

/** What passed on a connection whose bytes are not read: `↑512 B ↓1.5 MB`; undefined for every other call. */
export function bytesPassed(ended: {
  readonly sent?: number | undefined;
  readonly received?: number | undefined;
}): string | undefined {
  const { sent, received } = ended;
  return sent === undefined || received === undefined ? undefined : `↑${byteCount(sent)} ↓${byteCount(received)}`;
}

function byteCount(bytes: number): string {
  const unit = ["B", "kB", "MB", "GB", "TB"].findIndex((_, power) => bytes < 1_000 ** (power + 1));
  const power = unit === -1 ? 4 : unit;
  const value = bytes / 1_000 ** power;
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

/** How an allowed call went: `200`, `↑512 B ↓1.5 MB`, `failed: …`, `…` while it runs. */
export function callResult(call: Call): string {
  if (call.ended === undefined) return "…";
  const { status, error } = call.ended;
  if (error !== undefined) return `failed: ${error}`;
  return bytesPassed(call.ended) ?? (status === undefined ? "no answer" : String(status));
}

/** The state of an identity's certificate in words and a share of its lifetime that is left, 0 to 1. */
export function expiryOf(identity: Identity, now: number): { left: string; share: number; next: string } {
  if (identity.notAfter === undefined) return { left: "no SVID", share: 0, next: "" };
  const notAfter = Date.parse(identity.notAfter);
  const remaining = notAfter - now;
  if (remaining <= 0) return { left: "EXPIRED", share: 0, next: "" };
  const share = Math.min(1, remaining / Math.max(1, notAfter - identity.since));
  if (identity.rotateAt === undefined) return { left: timeLeft(remaining), share, next: "" };
  const untilRotation = Date.parse(identity.rotateAt) - now;
  return { left: timeLeft(remaining), share, next: untilRotation <= 0 ? "↻ now" : `↻ ${timeLeft(untilRotation)}` };
}

/** `███████░░░` */
export function bar(share: number, cells: number): string {
  const full = Math.ceil(Math.min(1, Math.max(0, share)) * cells);
  return "█".repeat(full) + "░".repeat(cells - full);
}
