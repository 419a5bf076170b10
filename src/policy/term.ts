import { displayValue } from "./condition-values.js";
import {
  coversIdentity,
  coversName,
  type IdentityPattern,
  matchesIdentity,
  matchesName,
  type NamePattern,
} from "./pattern.js";
import type { RequestFacts } from "./request-facts.js";
import type { TimeWindow } from "./time-window.js";

/**
 * What a rule asks besides who, what and where: a fact that another moment, another user or another launch would change. A request that lacks
 * one is a near miss, as one whose arguments a condition refuses.
 */
export interface Term {
  /** Terms of one kind can be compared: `evidence`, `user`, `subject.properties.role`. */
  readonly kind: string;
  /** As people read it: `user alice`, `time mon,tue 09:00-17:00 UTC`. */
  readonly text: string;
  /** All that it asks for: of one kind, two with the same meaning ask for the same. Texts of different terms may be alike. */
  readonly meaning: string;
  /** Undefined where it holds. */
  unmet(facts: RequestFacts): Unmet | undefined;
  /** True only if whatever meets `other`, which is of the same kind, meets this one too. */
  covers(other: Term): boolean;
  /** What it looked at, for the record; undefined where there is nothing to keep. */
  value(facts: RequestFacts): unknown;
}

export interface Unmet {
  /** `fact-missing`: nobody has said what the rule asks for. */
  readonly outcome: "condition-false" | "fact-missing";
  readonly detail: string;
}

export type Scalar = string | number | boolean | null;
export type PropertyOf = "subject" | "user" | "action" | "resource";

/** `evidence: [launch]`: what the caller's identity rests on. */
export function evidenceTerm(wanted: readonly string[]): Term {
  const text = `evidence ${wanted.join(" or ")}`;
  return valueTerm("evidence", text, "what the caller's identity rests on", wanted, ({ evidence }) => evidence);
}

/** `properties: { role: admin }` of the subject, the delegated user, the action or the resource. */
export function propertyTerm(of: PropertyOf, key: string, wanted: readonly Scalar[]): Term {
  const kind = `${of}.properties.${key}`;
  const text = `${of}.${key} ${wanted.map(scalarText).join(" or ")}`;
  return valueTerm(kind, text, `the property ${key} of the ${of}`, wanted, (facts) => own(facts.propertiesOf(of), key));
}

/** `context: { channel: cli }`: what the enforcement point says of the moment. */
export function contextTerm(key: string, wanted: readonly Scalar[]): Term {
  const text = `context.${key} ${wanted.map(scalarText).join(" or ")}`;
  return valueTerm(`context.${key}`, text, `${key} in the context`, wanted, ({ context }) => own(context, key));
}

/** One of `wanted`, or a list with one of them in it. */
function valueTerm(
  kind: string,
  text: string,
  what: string,
  wanted: readonly Scalar[],
  valueIn: (facts: RequestFacts) => unknown,
): Term & { readonly wanted: readonly Scalar[] } {
  return {
    kind,
    text,
    meaning: JSON.stringify(wanted),
    wanted,
    unmet(facts) {
      const value = valueIn(facts);
      if (value === undefined) return { outcome: "fact-missing", detail: `${text}: nobody said ${what}` };
      const met = Array.isArray(value)
        ? value.some((one) => wanted.includes(one as Scalar))
        : wanted.includes(value as Scalar);
      return met ? undefined : { outcome: "condition-false", detail: `${text}: it is ${displayValue(value)}` };
    },
    covers: (other) => (other as ReturnType<typeof valueTerm>).wanted.every((one) => wanted.includes(one)),
    value: valueIn,
  };
}

/** `user: alice`: on whose behalf the caller acts. */
export function userTerm(wanted: readonly NamePattern[]): Term {
  const text = `user ${wanted.map((one) => one.text).join(" or ")}`;
  const term: Term & { readonly users: readonly NamePattern[] } = {
    kind: "user",
    text,
    meaning: JSON.stringify(wanted.map((one) => one.text)),
    users: wanted,
    unmet({ user }) {
      if (user === undefined) return { outcome: "fact-missing", detail: `${text}: nobody said for which user this is` };
      if (wanted.some((one) => matchesName(one, user.id))) return undefined;
      return { outcome: "condition-false", detail: `${text}: it is ${displayValue(user.id)}` };
    },
    covers: (other) => (other as typeof term).users.every((one) => wanted.some((wider) => coversName(wider, one))),
    value: ({ user }) => user?.id,
  };
  return term;
}

/**
 * `actors: agents/lead`: through whose hands the request came. The stricter reading counts: an allow (`every`) wants all of them to be
 * among the named, anything else (`some`) is about a chain with any of the named in it.
 */
export function actorsTerm(quantity: "every" | "some", wanted: readonly IdentityPattern[]): Term {
  const text = `actors ${wanted.map((one) => one.shown).join(" or ")}`;
  const term: Term & { readonly actors: readonly IdentityPattern[] } = {
    kind: `actors ${quantity}`,
    text,
    meaning: JSON.stringify(wanted.map((one) => one.text)),
    actors: wanted,
    unmet({ actors }) {
      if (actors.length === 0) {
        return { outcome: "fact-missing", detail: `${text}: nobody said through whose hands this came` };
      }
      const isNamed = (actor: RequestFacts["actors"][number]) =>
        actor.identity !== undefined && wanted.some((one) => matchesIdentity(one, actor.identity as never));
      const met = quantity === "every" ? actors.every(isNamed) : actors.some(isNamed);
      if (met) return undefined;
      return {
        outcome: "condition-false",
        detail: `${text}: they are ${actors.map(({ id }) => displayValue(id)).join(", ")}`,
      };
    },
    covers: (other) => (other as typeof term).actors.every((one) => wanted.some((wider) => coversIdentity(wider, one))),
    value: ({ actors }) => (actors.length === 0 ? undefined : actors.map(({ id }) => id)),
  };
  return term;
}

export function timeTerm(window: TimeWindow): Term {
  const text = `time ${window.text}`;
  return {
    kind: "time",
    text,
    meaning: text,
    unmet: ({ now }) =>
      window.contains(now)
        ? undefined
        : { outcome: "condition-false", detail: `${text}: it is ${window.describe(now)}` },
    covers: (other) => other.text === text,
    value: () => undefined,
  };
}

function own(properties: Readonly<Record<string, unknown>>, key: string): unknown {
  return Object.hasOwn(properties, key) ? properties[key] : undefined;
}

/** Text that could be read as something else stands between quotes. */
function scalarText(value: Scalar): string {
  const isPlain = typeof value === "string" && /^[\p{L}_][\p{L}\p{N}_./@:-]*$/u.test(value) && !LITERALS.has(value);
  return isPlain ? value : JSON.stringify(value);
}

const LITERALS: ReadonlySet<string> = new Set(["true", "false", "null"]);
