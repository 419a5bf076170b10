import type { IdentifiedCaller } from "./authorization.js";
import type { Connection } from "./connections.js";

/** What a look found, or throws what it threw. */
type Outcome<Found> = () => Found;

/**
 * One look at a caller for all calls of its connection that ask for one before it is made, which is when `soon` calls back: so for each of them it is made
 * after they have asked, never before. Rejects never.
 */
export function createSharedLooks<Found>(
  soon: (make: () => void) => void,
  look: (who: IdentifiedCaller) => Found,
): { of(who: IdentifiedCaller): Promise<Outcome<Found>> } {
  const coming = new WeakMap<Connection, Promise<Outcome<Found>>>();

  function outcomeOf(who: IdentifiedCaller): Outcome<Found> {
    coming.delete(who.connection);
    try {
      const found = look(who);
      return () => found;
    } catch (thrown) {
      return () => {
        throw thrown;
      };
    }
  }

  return {
    of(who) {
      let next = coming.get(who.connection);
      if (next === undefined) {
        next = new Promise((resolve) => soon(() => resolve(outcomeOf(who))));
        coming.set(who.connection, next);
      }
      return next;
    },
  };
}
