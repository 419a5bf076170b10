import type { IdentifiedCaller } from "./authorization.js";
import type { Connection } from "./connections.js";

type Look<Found> = (who: IdentifiedCaller) => Found;

/** What a look found, or throws what it threw. */
type Outcome<Found> = () => Found;

/**
 * One look at a caller for all calls of its connection that ask in one turn of the event loop, at the turn's end: so it is made after each of them has come,
 * never before. Rejects never.
 */
export function createComingLooks<Found>(look: Look<Found>): { of(who: IdentifiedCaller): Promise<Outcome<Found>> } {
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
        next = new Promise((resolve) => setImmediate(() => resolve(outcomeOf(who))));
        coming.set(who.connection, next);
      }
      return next;
    },
  };
}

/** One look at a caller for all who ask until the current tick ends, or until `forget`. */
export function createLastLooks<Found>(look: Look<Found>): { of(who: IdentifiedCaller): Found; forget(): void } {
  const last = new Map<Connection, Found>();
  let ends = false;
  const forget = () => last.clear();

  return {
    of(who) {
      const before = last.get(who.connection);
      if (before !== undefined) return before;
      const found = look(who);
      last.set(who.connection, found);
      if (!ends) {
        ends = true;
        process.nextTick(() => {
          ends = false;
          forget();
        });
      }
      return found;
    },
    forget,
  };
}
