import { displayText } from "../control-api/display-text.js";

const MAX_REASON = 2_000;

/**
 * Why it was decided so, for people: reasons name tools, paths and identities as callers have written them, and what is too large for an entry of the
 * record could not be recorded.
 */
export function shownReason(text: string): string {
  return displayText(text, MAX_REASON);
}
