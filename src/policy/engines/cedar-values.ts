import type { CedarValueJson } from "@cedar-policy/cedar-wasm/nodejs";
import { CodedError } from "../../coded-error.js";

/** What a request may hold besides its policies: Cedar's cost grows with it, and the event loop waits. */
const MAX_DEPTH = 32;
/** What would be an entity or a call of a function inside a value, were it taken as Cedar's JSON. */
const ESCAPES: readonly string[] = ["__entity", "__extn", "__expr"];

/** What values cost to hand over, as characters of a text do: measured in test/bench/engines.ts. */
const VALUE_UNITS = 16;
const MEMBER_UNITS = 48;

/** How much a request holds; one for all of its values. */
export class Budget {
  readonly #units: number;
  #left: number;

  constructor(units: number) {
    this.#units = units;
    this.#left = units;
  }

  get used(): number {
    return this.#units - this.#left;
  }

  /** Throws CodedError `cedar-value`. */
  take(units: number): void {
    this.#left -= units;
    if (this.#left < 0) throw new CodedError("cedar-value", "the request is too large for Cedar to judge at once");
  }
}

/**
 * A value from outside as Cedar takes it. Throws CodedError `cedar-value` with the place: what Cedar does not have (fractions, null), what JavaScript
 * has lost already (whole numbers beyond 2^53), and what Cedar would take for more than a value.
 */
function cedarValue(value: unknown, at: string, budget: Budget, depth = 0): CedarValueJson {
  if (depth > MAX_DEPTH) throw refusal(at, "is nested too deeply");
  switch (typeof value) {
    case "string":
      budget.take(value.length + VALUE_UNITS);
      if (!value.isWellFormed()) throw refusal(at, "is not well-formed Unicode");
      return value;
    case "boolean":
      budget.take(VALUE_UNITS);
      return value;
    case "number":
      budget.take(VALUE_UNITS);
      if (!Number.isInteger(value)) throw refusal(at, `is ${value}, and Cedar has whole numbers only`);
      if (!Number.isSafeInteger(value)) throw refusal(at, "is a number beyond 2^53, which is not exact");
      // Cedar has no −0.
      return value + 0;
    case "object":
      if (value === null) throw refusal(at, "is null, which Cedar does not have");
      if (Array.isArray(value)) {
        budget.take(VALUE_UNITS);
        return value.map((item: unknown, index) => cedarValue(item, `${at}[${index}]`, budget, depth + 1));
      }
      return cedarRecord(value as Readonly<Record<string, unknown>>, at, budget, depth);
    default:
      throw refusal(at, `is no value of JSON`);
  }
}

/** Members that are undefined are absent. */
export function cedarRecord(
  value: Readonly<Record<string, unknown>>,
  at: string,
  budget: Budget,
  depth = 0,
): Record<string, CedarValueJson> {
  budget.take(VALUE_UNITS);
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return Object.fromEntries(
    members.map(([key, member]) => {
      budget.take(key.length + MEMBER_UNITS);
      if (ESCAPES.includes(key)) throw refusal(at, `holds ${key}, which would be more than a value`);
      if (!key.isWellFormed()) throw refusal(at, "holds a name that is not well-formed Unicode");
      return [key, cedarValue(member, at === "" ? key : `${at}.${key}`, budget, depth + 1)];
    }),
  );
}

function refusal(at: string, what: string): CodedError {
  return new CodedError("cedar-value", `${at} ${what}`);
}
