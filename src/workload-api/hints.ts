const MAX_HINT_BYTES = 1024;

/**
 * Hints as they may stand in one response: "the values of non-empty hints MUST be unique" and at most 1024 bytes (WA §5.2.1, §8).
 * The first identity that bears a hint keeps it, a later one goes without; a hint too long is left out.
 */
export function uniqueHints(hints: readonly string[]): readonly string[] {
  const used = new Set<string>();
  return hints.map((hint) => {
    if (hint === "" || used.has(hint) || Buffer.byteLength(hint) > MAX_HINT_BYTES) return "";
    used.add(hint);
    return hint;
  });
}
