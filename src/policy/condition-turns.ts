import { setImmediate } from "node:timers/promises";
import type { ConditionInput, ConditionOutcome } from "./condition.js";
import type { Extent } from "./condition-cost.js";

/** What the conditions of one decision have taken of the event loop's time, in steps. */
interface Turns {
  /** How large the variables are that have been looked at. */
  readonly extents: Map<string, Extent | "large">;
  /** Evaluates now while the turn has room for so many `steps`, else in a later turn of the event loop. */
  run(steps: number, evaluate: () => ConditionOutcome): ConditionOutcome | Promise<ConditionOutcome>;
}

/** On the input itself: a map beside it would cost each decision a microsecond, most of it to collect what was in it. */
const TURNS = Symbol("turns");

/** All conditions of a decision have one input, and share the turn that it is made in. */
export function turnsOf(input: ConditionInput & { [TURNS]?: Turns }, stepsAtOnce: number): Turns {
  input[TURNS] ??= new TurnsOfDecision(stepsAtOnce);
  return input[TURNS];
}

class TurnsOfDecision implements Turns {
  readonly extents = new Map<string, Extent | "large">();
  readonly #stepsAtOnce: number;
  #spent = 0;
  /** The last evaluation that waits for its turn. */
  #waiting: Promise<unknown> | undefined;

  constructor(stepsAtOnce: number) {
    this.#stepsAtOnce = stepsAtOnce;
  }

  run(steps: number, evaluate: () => ConditionOutcome): ConditionOutcome | Promise<ConditionOutcome> {
    if (this.#waiting === undefined && this.#spent + steps <= this.#stepsAtOnce) {
      this.#spent += steps;
      return evaluate();
    }
    const later = (this.#waiting ?? Promise.resolve()).then(async () => {
      if (this.#spent + steps > this.#stepsAtOnce) {
        await setImmediate();
        this.#spent = 0;
      }
      this.#spent += steps;
      return evaluate();
    });
    this.#waiting = later;
    return later;
  }
}
