/** `args.amount <= 1000`: a term of a condition that compares one value with a literal. */
export interface Comparison {
  /** As written: `args.amount`. */
  readonly path: string;
  readonly operator: "<" | "<=" | ">" | ">=" | "==";
  /** As written: `1000`, `"EUR"`. */
  readonly literal: string;
}

const COMPARISON = /^(?<path>[\w.[\]"]+)\s*(?<operator><=|>=|==|<|>)\s*(?<literal>-?\d[\w.]*|"[^"\\]*"|true|false)$/;

/** The comparison that `term` is, or undefined where it is anything else. */
export function comparisonOf(term: string): Comparison | undefined {
  const groups = COMPARISON.exec(term.trim())?.groups;
  return groups === undefined ? undefined : (groups as unknown as Comparison);
}

/** The numbers that some comparisons of one value leave. */
interface Span {
  readonly from: number;
  readonly fromIsIn: boolean;
  readonly to: number;
  readonly toIsIn: boolean;
}

const ALL: Span = { from: Number.NEGATIVE_INFINITY, fromIsIn: true, to: Number.POSITIVE_INFINITY, toIsIn: true };

/** Two of `terms` that no value fulfils together, or undefined where none can be shown. */
export function contradictionIn(terms: readonly string[]): readonly [string, string] | undefined {
  const comparisons = terms.flatMap((term) => {
    const comparison = comparisonOf(term);
    return comparison === undefined ? [] : [{ term: term.trim(), comparison }];
  });
  for (const [index, one] of comparisons.entries()) {
    const other = comparisons.slice(index + 1).find((each) => excludes(one.comparison, each.comparison));
    if (other !== undefined) return [one.term, other.term];
  }
  return undefined;
}

/** Does `inner` hold only where `outer` holds, as far as literals tell? */
export function impliesComparison(inner: Comparison, outer: Comparison): boolean {
  if (inner.path !== outer.path) return false;
  if (inner.operator === outer.operator && inner.literal === outer.literal) return true;
  const [small, large] = [spanOf(inner), spanOf(outer)];
  if (small === undefined || large === undefined) return false;
  const above = small.from > large.from || (small.from === large.from && (large.fromIsIn || !small.fromIsIn));
  const below = small.to < large.to || (small.to === large.to && (large.toIsIn || !small.toIsIn));
  return above && below;
}

function excludes(one: Comparison, other: Comparison): boolean {
  if (one.path !== other.path) return false;
  const [a, b] = [spanOf(one), spanOf(other)];
  if (a === undefined || b === undefined) {
    return one.operator === "==" && other.operator === "==" && one.literal !== other.literal;
  }
  return isEmpty(both(a, b));
}

/** What is in one and in the other. */
function both(a: Span, b: Span): Span {
  const from = Math.max(a.from, b.from);
  const to = Math.min(a.to, b.to);
  return {
    ...{ from, fromIsIn: (a.from < from || a.fromIsIn) && (b.from < from || b.fromIsIn) },
    ...{ to, toIsIn: (a.to > to || a.toIsIn) && (b.to > to || b.toIsIn) },
  };
}

function isEmpty({ from, to, fromIsIn, toIsIn }: Span): boolean {
  return from > to || (from === to && !(fromIsIn && toIsIn));
}

function spanOf({ operator, literal }: Comparison): Span | undefined {
  if (!/^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(literal)) return undefined;
  const value = Number(literal);
  if (operator === "==") return { from: value, fromIsIn: true, to: value, toIsIn: true };
  if (operator === "<" || operator === "<=") return { ...ALL, to: value, toIsIn: operator === "<=" };
  return { ...ALL, from: value, fromIsIn: operator === ">=" };
}
