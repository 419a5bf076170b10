import { describe, expect, it } from "vitest";
import { verifies } from "../requirements/verifies.js";
import { streams } from "../soak/calls.js";
import { wrongAnswers } from "../soak/soak.js";
import { soakDaemon } from "../soak/soaked-daemon.js";

describe("agentid dev under 2,000 opened and cancelled streams and every kind of bad call", () => {
  it(`${verifies("ST-8", "EP-4", "EP-5", "EP-11", "JR-1", "JR-4")} answers each exactly and holds no more than before`, async () => {
    const report = await soakDaemon(2000);
    expect(wrongAnswers(report)).toEqual([]);
    // Every kind was asked, the good ones among them.
    expect(report.answers.filter(({ call }) => call.answer === "opened")).toHaveLength(streams.length);
    expect(report.answers.length).toBeGreaterThan(35);
    expect(report.remains).toEqual([]);
  });
});
