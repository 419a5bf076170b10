import type { ConditionInput } from "./condition.js";
import type { Extent } from "./condition-cost.js";
import type { KeysOf } from "./condition-values.js";

/** Beyond this nothing is counted: such an input is not evaluated on the event loop by anything whose cost follows its size. */
const MAX_COUNTED_VALUES = 10_000;
/** The CEL library keeps the type of every nested value that it has compared for ever; few levels are few types. */
const MAX_DEPTH = 8;

/** How large the largest of some variables is, or `large` where it is larger than what is ever evaluated on the event loop. Takes no longer for what is large. */
export function extentOf(
  input: ConditionInput,
  variables: Iterable<string> = Object.keys(input),
  known: Map<string, Extent | "large"> = new Map(),
  keysOf: KeysOf = Object.keys,
): Extent | "large" {
  let values = 1;
  let longest = 0;
  for (const variable of variables) {
    let extent = known.get(variable);
    if (extent === undefined) {
      extent = extentOfValue(input[variable as keyof ConditionInput], keysOf);
      known.set(variable, extent);
    }
    if (extent === "large") return "large";
    values = Math.max(values, extent.values);
    longest = Math.max(longest, extent.longest);
  }
  return { values, longest };
}

function extentOfValue(whole: unknown, keysOf: KeysOf): Extent | "large" {
  let values = 0;
  let longest = 0;
  let level: unknown[] = [whole];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > MAX_DEPTH) return "large";
    const next: unknown[] = [];
    for (const value of level) {
      values += 1;
      if (typeof value === "string") longest = Math.max(longest, value.length);
      else if (Array.isArray(value)) {
        if (value.length > MAX_COUNTED_VALUES) return "large";
        for (const element of value) next.push(element);
      } else if (typeof value === "object" && value !== null) {
        const keys = keysOf(value);
        if (values + 2 * keys.length > MAX_COUNTED_VALUES) return "large";
        for (const key of keys) {
          values += 1;
          longest = Math.max(longest, key.length);
          next.push((value as Record<string, unknown>)[key]);
        }
      }
      if (values + next.length > MAX_COUNTED_VALUES) return "large";
    }
    level = next;
  }
  return { values, longest };
}
