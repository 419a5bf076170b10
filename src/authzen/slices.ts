import { nextTurn, type Pause } from "../platform/turns.js";

/** How long work may hold the event loop before others have their turn. */
const SLICE_MS = 2;

/** Returns what to await between two steps of a long piece of work: nothing, or the turn of everybody else. */
export function createSlices(pause: Pause = nextTurn): () => Promise<void> | undefined {
  let begun = performance.now();
  return () => {
    if (performance.now() - begun < SLICE_MS) return undefined;
    return pause().then(() => {
      begun = performance.now();
    });
  };
}
