/** What a reload changes, and whether anything is permitted afterwards that was not before (D13). What cannot be shown narrower is wider. */
export interface Comparison {
  readonly widened: boolean;
  /** One line each, `+ identities.agents/billing: launch python3 agents/billing.py`; empty when nothing differs. */
  readonly changes: readonly string[];
}

/** One difference; `widens` marks it in the text, so that people see which line waits for them. */
export interface Change {
  readonly line: string;
  readonly widens: boolean;
}

type Shown = string | number | undefined;

/** No change, or one line with what was and what is. */
export function differing(at: string, old: Shown, next: Shown, widens: boolean): readonly Change[] {
  if (old === next) return [];
  if (old === undefined) return [{ line: `+ ${at}: ${next}`, widens }];
  if (next === undefined) return [{ line: `- ${at}: ${old}`, widens }];
  return [{ line: `~ ${at}: ${old} → ${next}`, widens }];
}

/** Names as a change shows them. */
export function listText(items: readonly string[]): string {
  return JSON.stringify(items);
}

export function summary(changes: readonly Change[]): Comparison {
  return {
    widened: changes.some((change) => change.widens),
    changes: changes.map((change) => change.line),
  };
}

/** Sorted. */
export function keysOfBoth(one: object, other: object): readonly string[] {
  return [...new Set([...Object.keys(one), ...Object.keys(other)])].sort();
}

export function ownOf<Value>(record: Readonly<Record<string, Value>>, key: string): Value | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}
