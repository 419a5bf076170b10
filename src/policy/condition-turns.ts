import { nextTurn } from "../platform/turns.js";
import type { ConditionInput, ConditionOutcome } from "./condition.js";
import type { Extent } from "./condition-cost.js";

/** What the conditions of one decision have taken of the event loop's time, in steps, and what they need not do twice. */
export interface Turns {
  /** How large the variables are that have been looked at. */
  readonly extents: Map<string, Extent | "large">;
  /** The keys of `map`: of a large one they are listed once for all conditions, since that takes about 0.3 µs a key. */
  keysOf(map: object): readonly string[];
  /** What `record` makes of `value`, asked once. */
  recorded(value: object, record: (value: object) => unknown): unknown;
  /** Evaluates now while the turn has room for so many `steps`, else in a later turn of the event loop. */
  run(steps: number, evaluate: () => ConditionOutcome): ConditionOutcome | Promise<ConditionOutcome>;
}

const MANY_KEYS = 256;

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
  #keys: Map<object, readonly string[]> | undefined;
  #recorded: Map<object, unknown> | undefined;
  #spent = 0;
  /** The last evaluation that waits for its turn. */
  #waiting: Promise<unknown> | undefined;

  constructor(stepsAtOnce: number) {
    this.#stepsAtOnce = stepsAtOnce;
  }

  readonly keysOf = (map: object): readonly string[] => {
    const known = this.#keys?.get(map);
    if (known !== undefined) return known;
    const keys = Object.keys(map);
    if (keys.length < MANY_KEYS) return keys;
    this.#keys ??= new Map();
    this.#keys.set(map, keys);
    return keys;
  };

  recorded(value: object, record: (value: object) => unknown): unknown {
    this.#recorded ??= new Map();
    if (!this.#recorded.has(value)) this.#recorded.set(value, record(value));
    return this.#recorded.get(value);
  }

  run(steps: number, evaluate: () => ConditionOutcome): ConditionOutcome | Promise<ConditionOutcome> {
    if (this.#waiting === undefined && this.#spent + steps <= this.#stepsAtOnce) {
      this.#spent += steps;
      return evaluate();
    }
    const later = (this.#waiting ?? Promise.resolve()).then(async () => {
      if (this.#spent + steps > this.#stepsAtOnce) {
        await nextTurn();
        this.#spent = 0;
      }
      this.#spent += steps;
      return evaluate();
    });
    this.#waiting = later;
    return later;
  }
}
