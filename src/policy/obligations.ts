import type { Obligation } from "./access-request.js";

/** Each once. Two that differ in anything are two: what must be done is never lost because it is called the same. */
export function distinctObligations(obligations: readonly Obligation[]): readonly Obligation[] {
  if (obligations.length < 2) return obligations;
  return [
    ...new Map(obligations.map((each) => [JSON.stringify([each.id, each.type, each.properties]), each])).values(),
  ];
}
