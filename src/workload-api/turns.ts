/** How long one turn of the event loop may be spent on waiting work before everything else has its turn. */
const TURN_MS = 8;

const waiting: (() => void)[] = [];
let next = 0;
let scheduled = false;

/**
 * Runs `work` in a coming turn of the event loop, after what waits already. What `setImmediate` collects runs in one turn, however much it is: a change
 * that a thousand streams are told of would keep everybody else waiting until the last of them has its message. `work` must not throw.
 */
export function inTurn(work: () => void): void {
  waiting.push(work);
  if (scheduled) return;
  scheduled = true;
  setImmediate(takeTurn);
}

function takeTurn(): void {
  const end = performance.now() + TURN_MS;
  do waiting[next++]?.();
  while (next < waiting.length && performance.now() < end);
  if (next < waiting.length) {
    setImmediate(takeTurn);
    return;
  }
  waiting.length = 0;
  next = 0;
  scheduled = false;
}
