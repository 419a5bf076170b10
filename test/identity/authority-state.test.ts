import { describe, expect, it } from "vitest";
import { type AuthorityEvent, type AuthorityState, authorityStateAfter } from "../../src/identity/authority-state.js";

const STATES: readonly AuthorityState[] = ["prepared", "active", "old", "tainted", "gone"];
const EVENTS: readonly AuthorityEvent[] = ["activate", "supersede", "discard", "taint", "revoke", "expire"];

const ARROWS: readonly (readonly [AuthorityState, AuthorityEvent, AuthorityState])[] = [
  ["prepared", "activate", "active"],
  ["prepared", "discard", "gone"],
  ["prepared", "expire", "gone"],
  ["active", "supersede", "old"],
  ["active", "expire", "gone"],
  ["old", "taint", "tainted"],
  ["old", "revoke", "gone"],
  ["old", "expire", "gone"],
  ["tainted", "revoke", "gone"],
  ["tainted", "expire", "gone"],
];

describe("states of an authority", () => {
  it.each(ARROWS)("%s, %s: %s", (state, event, next) => {
    expect(authorityStateAfter(state, event)).toBe(next);
  });

  const noArrows = STATES.flatMap((state) =>
    EVENTS.filter((event) => !ARROWS.some(([from, by]) => from === state && by === event)).map(
      (event) => [state, event] as const,
    ),
  );

  it.each(noArrows)("%s, %s: refused", (state, event) => {
    expect(() => authorityStateAfter(state, event)).toThrow(expect.objectContaining({ code: "authority-state" }));
  });

  it("knows every pair", () => {
    expect(ARROWS.length + noArrows.length).toBe(STATES.length * EVENTS.length);
  });
});
