/** Those who wait for their turn, in the order in which they asked. */
const waiting: (() => void)[] = [];

/**
 * Resolves in a turn of the event loop that no other long work of this process has: whatever is cut into pieces asks for a turn before the next one, so
 * that the pieces of several come one after the other, and between two of them everything short has its own.
 */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    waiting.push(resolve);
    if (waiting.length === 1) setImmediate(giveTurn);
  });
}

function giveTurn(): void {
  const resolve = waiting.shift();
  if (waiting.length > 0) setImmediate(giveTurn);
  resolve?.();
}

/** So many bytes that came are worked on at once in one turn. */
const BYTES_AT_ONCE = 16 * 1024;
/** What is no longer than this is not counted. */
const BYTES_UNCOUNTED = 2 * 1024;
let worked = 0;

/**
 * Whether something short may be worked on in this turn of the event loop, as nearly all is; else it waits for one of its own. What several callers send
 * arrives in one turn, and each may cost as much as a piece of long work.
 */
export function hasRoomInTurn(bytes: number): boolean {
  if (bytes <= BYTES_UNCOUNTED) return true;
  if (worked > 0 && worked + bytes > BYTES_AT_ONCE) return false;
  if (worked === 0) {
    setImmediate(() => {
      worked = 0;
    });
  }
  worked += bytes;
  return true;
}

/** Between two pieces of long work: waits for the next turn. Rejects where nobody wants the work any more. */
export type Pause = () => Promise<void>;
