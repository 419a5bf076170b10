import { describe, expect, test } from "vitest";
import { canRace, race, seedFrom } from "./race.js";

const seconds = Number(process.env.AGENTID_RACE_SECONDS ?? 5);
if (!canRace) process.stderr.write("SKIPPED: no PID namespace may be made here, so there is no race\n");

describe.runIf(canRace)("a race of forks, execs, exits, changes of user and reconnects", () => {
  // Never tried again: one wrong answer is one too many.
  test("hands out no identity that is not the one of the process that asked", {
    retry: 0,
    timeout: (seconds + 120) * 1000,
  }, async () => {
    const { wrong, broken, ...result } = await race(seconds, seedFrom(process.env));
    process.stderr.write(
      `${JSON.stringify({ seconds, ...result, wrong: wrong.length, broken: broken.length }, undefined, 2)}\n`,
    );
    for (const answer of wrong) process.stderr.write(`WRONG ${JSON.stringify(answer)}\n`);
    expect(broken).toEqual([]);
    expect(wrong.slice(0, 5)).toEqual([]);
    // Every kind of answer was given, so nothing was right for want of trying.
    expect(Object.keys(result.right)).toEqual(expect.arrayContaining(kinds(result.users.length > 1)));
    expect(result.numbersUsedAgain).toBeGreaterThan(0);
    expect(result.numbersForced).toBeGreaterThan(0);
  });
});

function kinds(severalUsers: boolean): string[] {
  return [
    "given: agents/launched + programs/alpha",
    "given: programs/alpha",
    "given: programs/beta",
    "given: programs/node",
    "refused: nothing follows",
    "refused: exec-after-connect, opener-changed",
    "refused: opener-exited, opener-gone",
    "refused: number-used-again, opener-gone",
    "refused: launched-number-used-again, opener-gone",
    "refused: launched, opener-changed",
    ...(severalUsers
      ? ["given: users/second", "given: programs/alpha + groups/builders", "refused: change-of-user, opener-changed"]
      : []),
  ];
}
