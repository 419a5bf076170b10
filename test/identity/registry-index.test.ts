import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Caller } from "../../src/attestation/caller.js";
import type { ProcessFacts } from "../../src/attestation/process-facts.js";
import type { IdentityConfig, RequiredFacts } from "../../src/config/config.js";
import { createIdentityRegistry } from "../../src/identity/registry.js";
import { runs } from "../properties.js";
import { callerLaunch, identity, launchConfig } from "./test-trust-domain.js";

const numbers = fc.integer({ min: 0, max: 2 });
const names = fc.constantFrom("a", "b");

const required: fc.Arbitrary<RequiredFacts> = fc
  .record({ uid: numbers, user: names, gid: numbers, supplementaryGid: numbers, exePath: names }, { requiredKeys: [] })
  .map((facts) => facts as RequiredFacts);

const identities = fc.array(fc.record({ facts: required, launched: fc.boolean() }), { maxLength: 20 }).map((all) =>
  all.map(({ facts, launched }, index) =>
    identity(`agents/a${index}`, {
      facts,
      launch: launched ? launchConfig({ argv: ["python"] }) : undefined,
    }),
  ),
);

const callers = fc
  .record({
    uid: numbers,
    user: names,
    gid: numbers,
    supplementaryGids: fc.uniqueArray(numbers),
    exePath: fc.option(names, { nil: undefined }),
    launch: fc.option(
      fc.integer({ min: 0, max: 20 }).map((index) => callerLaunch(`agents/a${index}`)),
      { nil: undefined },
    ),
  })
  .map(({ launch, ...some }): Caller => {
    const rest = { pid: 1, startTime: 1n, execGeneration: "1", group: undefined, supplementaryGroups: [] };
    const facts: ProcessFacts = {
      ...{ ...rest, exeSha256: undefined, evidence: "kernel", missing: {}, commandLine: [] },
      ...some,
    };
    return { facts, launch, recheck: () => undefined, close: () => undefined };
  });

/** What the entry says, read one thing after the other. */
function follows({ name, facts, launch }: IdentityConfig, caller: Caller): boolean {
  const { uid, user, gid, supplementaryGids, exePath } = caller.facts;
  const holds = [
    facts.uid === undefined || facts.uid === uid,
    facts.user === undefined || facts.user === user,
    facts.gid === undefined || facts.gid === gid,
    facts.supplementaryGid === undefined || supplementaryGids.includes(facts.supplementaryGid),
    facts.exePath === undefined || facts.exePath === exePath,
    launch === undefined ? Object.keys(facts).length > 0 : caller.launch?.name === name,
  ];
  return holds.every(Boolean);
}

describe("index of the registry", () => {
  it("finds exactly what a look at every entry finds, in the order of the configuration", () => {
    let granted = 0;
    fc.assert(
      fc.property(identities, callers, (all, caller) => {
        const found = createIdentityRegistry({ identities: all }, { identities: {} }).entitlementsOf(caller);
        const wanted = all.filter((one) => follows(one, caller));
        expect(found.granted.map((one) => one.identity)).toEqual(wanted);
        expect(found.missed.map((one) => one.identity)).toEqual(all.filter((one) => !wanted.includes(one)));
        granted += wanted.length;
      }),
      { numRuns: runs(2_000) },
    );
    expect(granted).toBeGreaterThan(50);
  });
});
