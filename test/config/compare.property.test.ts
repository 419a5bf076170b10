import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compareConfigs } from "../../src/config/compare.js";
import { compareLocks } from "../../src/config/compare-locks.js";
import type { Config, IdentityConfig, LaunchConfig, Lock, RequiredFacts } from "../../src/config/config.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { runs } from "../properties.js";
import { parse } from "./project.js";

/** A process as far as a configuration can tell two of them apart. */
interface Process {
  readonly facts: Required<Pick<RequiredFacts, "uid" | "gid" | "exePath" | "exeSha256">>;
  readonly launched:
    | { readonly as: string; readonly launch: LaunchConfig; readonly parent: boolean; readonly instance: boolean }
    | undefined;
}

const EMPTY = parse("trustDomain: a\nreload: confirm\n");
const RUNS = 300;

const uid = fc.constantFrom(1, 2);
const path = fc.constantFrom("/a", "/b");
const names = fc.constantFrom("x", "y", "z");
const launch: fc.Arbitrary<LaunchConfig> = fc.record({
  argv: fc.constantFrom(["a"], ["a", "b"], ["a b"]),
  workingDirectory: fc.constantFrom("/shop", "/shop/b"),
  keepEnv: fc.subarray(["K", "L"]),
  children: fc.boolean(),
  instances: fc.boolean(),
  subagents: fc.subarray(["x", "y"]),
  sandbox: fc.option(fc.record({ read: fc.subarray(["/r", "/s"]), write: fc.subarray(["/v", "/w"]) }), {
    nil: undefined,
  }),
});

const facts: fc.Arbitrary<RequiredFacts> = fc.record(
  { uid, gid: uid, exePath: path, exeSha256: fc.constantFrom("pinned", "0") },
  { requiredKeys: [] },
);

const identities: fc.Arbitrary<readonly IdentityConfig[]> = fc.uniqueArray(
  fc.record({ name: names, facts, launch: fc.option(launch, { nil: undefined }) }).map((entry) => ({
    ...entry,
    id: SpiffeId.of(EMPTY.trustDomain, entry.name),
    service: undefined,
    dnsNames: [],
    hint: "",
  })),
  { selector: (identity) => identity.name },
);

const config: fc.Arbitrary<Config> = identities.map((some) => ({ ...EMPTY, identities: some }));

const process: fc.Arbitrary<Process> = fc.record({
  facts: fc.record({ uid, gid: uid, exePath: path, exeSha256: fc.constantFrom("pinned", "0") }),
  launched: fc.option(fc.record({ as: names, launch, parent: fc.boolean(), instance: fc.boolean() }), {
    nil: undefined,
  }),
});

/** Which identities a process has, first the one it calls as: what the registry decides, in its plainest form. */
function entitled(config: Config, { facts, launched }: Process): readonly string[] {
  return config.identities
    .filter((identity) => identity.launch !== undefined || Object.keys(identity.facts).length > 0)
    .filter((identity) =>
      Object.entries(identity.facts).every(([fact, wanted]) => facts[fact as keyof typeof facts] === wanted),
    )
    .filter(
      ({ name, launch }) =>
        launch === undefined ||
        (launched?.as === name &&
          JSON.stringify([launch.argv, launch.workingDirectory]) ===
            JSON.stringify([launched.launch.argv, launched.launch.workingDirectory]) &&
          (launch.children || !launched.parent) &&
          (launch.instances || !launched.instance) &&
          launched.launch.keepEnv.every((variable) => launch.keepEnv.includes(variable)) &&
          opensNoMore(launched.launch.sandbox, launch.sandbox)),
    )
    .flatMap(({ name, launch }) => [
      name,
      ...(launch?.subagents ?? []).map((subagent) => `${name} launches ${subagent}`),
    ]);
}

/** Whether a process that was launched in this sandbox, or none, is shut in as far as the entry asks. */
function opensNoMore(is: LaunchConfig["sandbox"], wanted: LaunchConfig["sandbox"]): boolean {
  if (wanted === undefined) return true;
  return (
    is !== undefined && (["read", "write"] as const).every((way) => is[way].every((path) => wanted[way].includes(path)))
  );
}

describe("a widening is never missed", () => {
  it("whoever gets an identity only after the save was let in by a save that says WIDENED", () => {
    let widenings = 0;
    fc.assert(
      fc.property(config, config, fc.array(process, { minLength: 1, maxLength: 20 }), (old, next, processes) => {
        const gained = processes.some((one) => entitled(next, one).some((name) => !entitled(old, one).includes(name)));
        if (!gained) return;
        widenings += 1;
        expect(compareConfigs(old, next).widened).toBe(true);
      }),
      { numRuns: runs(RUNS) },
    );
    expect(widenings).toBeGreaterThan(RUNS / 10);
  });

  it("a save that only removes identities or adds conditions never waits", () => {
    fc.assert(
      fc.property(config, fc.infiniteStream(fc.boolean()), uid, (old, coin, gid) => {
        const next = old.identities
          .filter(() => coin.next().value)
          .map((identity) =>
            identity.facts.gid === undefined && Object.keys(identity.facts).length > 0
              ? { ...identity, facts: { ...identity.facts, gid } }
              : identity,
          );
        expect(compareConfigs(old, { ...old, identities: next }).widened).toBe(false);
      }),
      { numRuns: runs(RUNS) },
    );
  });

  it("locks: whatever may run only after the save was let in by a save that says WIDENED", () => {
    const digest = fc.constantFrom("0", "1");
    const locks: fc.Arbitrary<Lock> = fc.record({
      identities: fc.dictionary(
        names,
        fc.record({
          exe: fc.record({ path, sha256: digest }),
          files: fc.dictionary(fc.constantFrom("f", "g"), digest),
        }),
      ),
    });
    const run = fc.record({ name: names, path, sha256: digest, f: digest, g: digest });
    type Run = { name: string; path: string; sha256: string; f: string; g: string };
    const mayRun = (lock: Lock, one: Run): boolean => {
      const entry = lock.identities[one.name];
      return (
        entry !== undefined &&
        entry.exe.path === one.path &&
        entry.exe.sha256 === one.sha256 &&
        Object.entries(entry.files).every(([file, pinned]) => one[file as "f" | "g"] === pinned)
      );
    };
    fc.assert(
      fc.property(locks, locks, fc.array(run, { minLength: 1, maxLength: 20 }), (old, next, runs) => {
        if (runs.some((one) => mayRun(next, one) && !mayRun(old, one)))
          expect(compareLocks(old, next).widened).toBe(true);
      }),
      { numRuns: runs(RUNS) },
    );
  });
});
