/**
 * What every run of the tests generates is the same, so that a red one can be repeated and a green one stays green. `npm run fuzz` generates other
 * and more input each time; what it finds becomes a case of its own.
 */
import fc from "fast-check";

const fuzz = process.env.AGENTID_FUZZ_FACTOR;
fc.configureGlobal(fuzz === undefined ? { seed: 20_260_101 } : { numRuns: runs(100) });

/** How many inputs a property is tried with, where fast-check's hundred is not the right number. */
export function runs(usual: number): number {
  return usual * Number(fuzz ?? 1);
}
