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

/** Between two pieces of long work: waits for the next turn. Rejects where nobody wants the work any more. */
export type Pause = () => Promise<void>;
