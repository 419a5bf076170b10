import type { ShadowReport } from "./explanation-routes.js";

type Outcome = Pick<ShadowReport, "rule" | "effect" | "would" | "differs">;

/** What rules in shadow would have done, in words: `in shadow nobody-deletes would deny`; empty where there is nothing to say. */
export function shadowWords(shadow: readonly Outcome[] = []): string {
  return shadow.map(wordsOf).join("; ");
}

function wordsOf({ rule, effect, would, differs }: Outcome): string {
  if (isSpared({ effect, would, differs })) return "let through: its identity is in shadow";
  return `in shadow ${rule} would ${would === "require" ? "require more" : would}${differs ? "" : " too"}`;
}

/** An identity in shadow was let do what no rule allows. */
export function isSpared({ effect, would, differs }: Omit<Outcome, "rule">): boolean {
  return effect === "allow" && would === "deny" && differs;
}
