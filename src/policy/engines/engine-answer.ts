import { z } from "zod";
import type { Obligation } from "../access-request.js";
import type { Verdict } from "../engine.js";
import { shownReason } from "../shown-reason.js";
import { permitted, refused } from "./denials.js";

const obligation = z.strictObject({
  id: z.string().min(1),
  type: z.string().min(1),
  properties: z.record(z.string(), z.unknown()).optional(),
});

/** "a PEP that does not understand an obligation": one that it cannot even read it does not understand. */
export function readObligations(written: unknown): readonly Obligation[] | undefined {
  if (written === undefined) return [];
  const parsed = z.array(obligation).max(32).safeParse(written);
  return parsed.success
    ? parsed.data.map(({ id, type, properties }) => ({ id, type, ...(properties !== undefined && { properties }) }))
    : undefined;
}

const answerObject = z.strictObject({
  allow: z.boolean(),
  reasons: z.array(z.string()).max(32).optional(),
  obligations: z.unknown().optional(),
});

/**
 * The verdict that a Rego policy's value means: `true`, `false`, or an object with `allow` and, if it likes, `reasons` and `obligations`. Everything
 * else is a denial: no value at all, `"true"`, a set, an object with another member.
 */
export function verdictOf(value: unknown, engine: string, rule: string): Verdict {
  if (value === true) return permitted({ rule, reason: `permitted by ${engine}` });
  if (value === false) return refused({ rule, reason: `${engine} does not permit it` });
  if (value === undefined) return refused({ rule, reason: `${engine} does not permit it: ${rule} is undefined` });
  const parsed = answerObject.safeParse(value);
  const obligations = parsed.success ? readObligations(parsed.data.obligations) : undefined;
  if (!parsed.success || obligations === undefined) {
    const what = typeof value === "object" ? "an object that is no decision" : shownReason(JSON.stringify(value));
    return refused({ rule, reason: `${engine} answers with ${what}, not with true or false` });
  }
  const { allow, reasons = [] } = parsed.data;
  const why = reasons.length === 0 ? "" : `: ${shownReason(reasons.join("; "))}`;
  if (allow) return permitted({ rule, reason: `permitted by ${engine}${why}`, obligations });
  return refused({ rule, reason: `${engine} does not permit it${why}` });
}
