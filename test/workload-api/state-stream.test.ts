import { describe, expect, it } from "vitest";
import { nextStreamState, type StreamEvent, type StreamState } from "../../src/workload-api/state-stream.js";

const arrows: [StreamState, StreamEvent, StreamState][] = [
  ["due", "wrote", "writing"],
  ["due", "same", "quiet"],
  ["due", "end", "ended"],
  ["writing", "taken", "quiet"],
  ["writing", "changed", "outdated"],
  ["writing", "end", "ended"],
  ["outdated", "taken", "due"],
  ["outdated", "end", "ended"],
  ["quiet", "changed", "due"],
  ["quiet", "end", "ended"],
];

describe("the state of a stream", () => {
  it.each(arrows)("%s, %s: %s", (state, event, next) => {
    expect(nextStreamState(state, event)).toBe(next);
  });

  it("stays for every other event", () => {
    const states: StreamState[] = ["quiet", "due", "writing", "outdated", "ended"];
    const events: StreamEvent[] = ["changed", "wrote", "same", "taken", "end"];
    for (const state of states) {
      for (const event of events) {
        if (arrows.some(([from, by]) => from === state && by === event)) continue;
        expect([state, event, nextStreamState(state, event)]).toEqual([state, event, state]);
      }
    }
  });
});
