import type { Decision } from "./access-request.js";
import type { JudgeUse, RuleDraw, Verdict } from "./engine.js";

/**
 * What is left of an allow when its limits are asked: all of them give and count the call, or none counts it and it is a denial. So a limit
 * counts only what is allowed by everything else; `explain` counts nothing.
 */
export function settled<Given extends Verdict>(
  verdict: Given,
  use: JudgeUse,
): Given | (Given & { readonly retryAfterMs: number }) {
  const { draws } = verdict;
  if (draws === undefined || !verdict.allowed) return verdict;
  // The caller and an agent above it may be counted in one place; a call is one call.
  const once = draws.length === 1 ? draws : [...new Map(draws.map((draw) => [draw.key, draw])).values()];
  const empty = once.filter((draw) => draw.waitMs() > 0);
  if (empty.length === 0) {
    if (use === "decide") for (const draw of once) draw.take();
    return once.length === draws.length ? verdict : { ...verdict, draws: once };
  }
  const waits = empty.map((draw) => ({ draw, waitMs: use === "decide" ? draw.refuse() : draw.waitMs() }));
  const longest = waits.reduce((known, other) => (other.waitMs > known.waitMs ? other : known));
  return { ...verdict, ...refusedBy(longest.draw, longest.waitMs), retryAfterMs: longest.waitMs };
}

/** What decisions have taken from limits, for as long as anybody holds them. */
const taken = new WeakMap<Decision, readonly RuleDraw[]>();

export function holdTaken(decision: Decision, draws: readonly RuleDraw[]): void {
  taken.set(decision, draws);
}

/** Gives back, once, what an allow took from limits: for whoever cannot act on it. `decision` is the very object that the decision point answered with. */
export function withdraw(decision: Decision): void {
  const draws = taken.get(decision);
  if (draws === undefined) return;
  taken.delete(decision);
  for (const draw of draws) draw.giveBack();
}

function refusedBy({ rule, at, message, text }: RuleDraw, waitMs: number) {
  const reason = `${rule} allows ${text}: ask again in ${waitText(waitMs)}`;
  return { allowed: false, rule, at, message, reason, conditional: true, obligations: [] } as const;
}

function waitText(waitMs: number): string {
  const seconds = Math.ceil(waitMs / 1000);
  if (seconds <= 120) return `${seconds} s`;
  return seconds <= 7200 ? `${Math.ceil(seconds / 60)} min` : `${Math.ceil(seconds / 3600)} h`;
}
