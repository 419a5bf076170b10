import { describe, expect, it } from "vitest";
import {
  type AuthoritySlots,
  type AuthorityTransition,
  applyTransition,
  dueTransition,
  NOT_BEFORE_CUSHION_MS,
  nextTransitionAt,
  type Validity,
} from "../../src/identity/authority-schedule.js";

const HOUR = 3_600_000;
const LIFE = 24 * HOUR;
const T0 = Date.parse("2026-11-22T00:00:00Z");

interface Named extends Validity {
  readonly name: string;
}
type Slots = AuthoritySlots<Named, Named>;

function made(name: string, at: number): Named {
  return { name, notBefore: new Date(at - NOT_BEFORE_CUSHION_MS), notAfter: new Date(at + LIFE) };
}

function names({ active, prepared, old }: Slots): string {
  return [active.name, prepared?.name ?? "-", old.map((one) => one.name).join("+") || "-"].join(" ");
}

const steady: Slots = { active: made("A", T0), prepared: undefined, old: [] };
const prepared: Slots = { ...steady, prepared: made("B", T0 + 12 * HOUR) };
const activated: Slots = { active: made("B", T0 + 12.5 * HOUR), prepared: undefined, old: [made("A", T0)] };

const arrows: [string, Slots, number, AuthorityTransition | undefined, string][] = [
  ["steady stays until half of life", steady, T0 + 12 * HOUR - 1, undefined, "A - -"],
  ["steady → prepared at half of life", steady, T0 + 12 * HOUR, "prepare", "A new -"],
  ["prepared stays until a sixth is left", prepared, T0 + 20 * HOUR - 1, undefined, "A B -"],
  ["prepared → steady at a sixth, the former active one is old", prepared, T0 + 20 * HOUR, "activate", "B - A"],
  ["old stays until its end", activated, T0 + LIFE - 1, undefined, "B - A"],
  ["old → gone at its end", activated, T0 + LIFE, "retire", "B - -"],
  ["steady → replaced after its end", steady, T0 + LIFE, "replace", "new - -"],
  ["prepared takes over after the active one's end", prepared, T0 + LIFE, "activate", "B - -"],
  ["both have ended → replaced", prepared, T0 + 3 * LIFE, "replace", "new - -"],
  ["both have ended, with old → all replaced", activated, T0 + 3 * LIFE, "replace", "new - -"],
  ["clock before the active one's begin → replaced, which drops it", steady, T0 - HOUR, "replace", "new - -"],
  ["clock back to the time of an old one, which stays", activated, T0 + HOUR, "replace", "new - A"],
  [
    "clock back within the active one's life: a prepared one of the future is prepared anew when due",
    { ...prepared, prepared: made("B", T0 + 40 * HOUR) },
    T0 + 13 * HOUR,
    "prepare",
    "A new -",
  ],
];

describe("schedule of authorities: a test for each arrow", () => {
  it.each(arrows)("%s", (_name, slots, now, transition, expected) => {
    expect(dueTransition(slots, now)).toBe(transition);
    const life = { create: () => made("new", now), retire: (authority: Named) => authority };
    const after = transition === undefined ? slots : applyTransition(slots, transition, now, life);
    expect(names(after)).toBe(expected);
  });

  it("an activation with nothing prepared changes nothing", () => {
    const life = { create: () => made("new", T0), retire: (authority: Named) => authority };
    expect(applyTransition(steady, "activate", T0, life)).toBe(steady);
  });

  it("the next time is that of the next arrow, and something is due then", () => {
    for (const slots of [steady, prepared, activated]) {
      const at = nextTransitionAt(slots);
      expect(dueTransition(slots, at - 1)).toBeUndefined();
      expect(dueTransition(slots, at)).toBeDefined();
    }
  });

  it("whatever times the clock shows, catching up ends with a valid signer that nothing more is due for", () => {
    let slots: Slots = steady;
    let count = 0;
    const jumps = [1, 13, 9, 100, -50, -200, 12, 8, 4, 4, 24, -1, 11, 400, -399].map((hours) => hours * HOUR);
    let now = T0;
    for (const jump of jumps) {
      now += jump;
      for (let step = 0; ; step++) {
        const due = dueTransition(slots, now);
        if (due === undefined) break;
        expect(step).toBeLessThan(5);
        slots = applyTransition(slots, due, now, { create: () => made(String(count++), now), retire: (one) => one });
      }
      expect(slots.active.notBefore.getTime()).toBeLessThanOrEqual(now);
      expect(slots.active.notAfter.getTime()).toBeGreaterThan(now);
      expect(slots.old.every((one) => one.notAfter.getTime() > now)).toBe(true);
    }
  });
});
