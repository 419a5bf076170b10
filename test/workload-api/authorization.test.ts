import { describe, expect, it } from "vitest";
import type { Caller, CallerLaunch } from "../../src/attestation/caller.js";
import type { ProcessFacts } from "../../src/attestation/process-facts.js";
import type { AuditFields } from "../../src/audit/audit-log.js";
import type { Entitlement } from "../../src/identity/entitlement.js";
import { createAuthorization } from "../../src/workload-api/authorization.js";
import type { Connection } from "../../src/workload-api/connections.js";
import { identity } from "./running-api.js";

const own = identity("agents/billing");
const facts: ProcessFacts = {
  ...{ pid: 42, startTime: 1n, execGeneration: "1:2", uid: 1000, user: "u", gid: 1000, group: "g" },
  ...{ supplementaryGids: [], supplementaryGroups: [], exePath: "/bin/agent", exeSha256: "ab", cgroup: undefined },
  ...{ evidence: "kernel", weakness: undefined, missing: {}, commandLine: ["agent"] },
};
const what: AuditFields = { type: "jwt", audience: ["orders"], notAfter: "2026-11-22T12:05:00.000Z", again: true };
const launched = (name: string, instance?: string): CallerLaunch => ({
  ...{ name, instance, launchedBy: [], evidence: "launch", pid: 42 },
});

/** A record that keeps the very objects, and a caller of whom the test says what is known. */
function start() {
  const recorded: AuditFields[] = [];
  const known: { facts: ProcessFacts; launch: CallerLaunch | undefined; granted: Entitlement } = {
    facts,
    launch: undefined,
    granted: { identity: own, evidence: "kernel", launchedBy: [] },
  };
  const authorization = createAuthorization({
    connections: { accept() {}, find: () => undefined, size: 0, allClosed: async () => {}, destroy() {} },
    registry: { entitlementsOf: () => ({ granted: [known.granted], missed: [] }) },
    audit: {
      append: () => ({ sequence: 0, hash: "" }),
      async appendInTurn(_kind, fields) {
        recorded.push(fields as AuditFields);
        return { sequence: 0, hash: "" };
      },
    },
    observer: undefined,
  });
  const caller: Caller = {
    get facts() {
      return known.facts;
    },
    get launch() {
      return known.launch;
    },
    recheck() {},
    close() {},
  };
  const connection: Connection = {
    ...{ caller: Promise.resolve(caller), attested: caller },
    ...{ spoke() {}, firstTime: () => false, retire() {} },
  };
  return {
    /** What the record got for a hand-out of `said` as things stand. */
    async deliver(changes: Partial<typeof known> = {}, said = what): Promise<AuditFields> {
      Object.assign(known, changes);
      const who = { caller, connection };
      const [granted] = await authorization.entitledInTurn(who, "FetchJWTSVID", undefined);
      if (granted === undefined) throw new Error("no identity");
      // As the registry does: another object for the same thing.
      await authorization.recordDeliveryInTurn(who, "FetchJWTSVID", { ...granted }, said);
      return recorded.at(-1) ?? {};
    },
  };
}

describe("what the record says of a hand-out", () => {
  it("is one object as long as all of it is the same, so that it is brought into form once", async () => {
    const { deliver } = start();
    const first = await deliver();
    expect(first).toMatchObject({
      ...what,
      identity: "agents/billing",
      evidence: "kernel",
      pid: 42,
      exe: "/bin/agent",
    });
    expect(await deliver()).toBe(first);
    expect(await deliver({ granted: { identity: own, evidence: "kernel", launchedBy: [] } })).toBe(first);
  });

  it.each<[string, Parameters<ReturnType<typeof start>["deliver"]>, AuditFields]>([
    ["another token", [{}, { ...what, audience: ["ledger"] }], { audience: ["ledger"] }],
    ["another launch", [{ launch: launched("agents/lead", "two") }], { launch: "agents/lead/two" }],
    ["another evidence", [{ granted: { identity: own, evidence: "weak", launchedBy: [] } }], { evidence: "weak" }],
    [
      "another launcher",
      [{ granted: { identity: own, evidence: "kernel", launchedBy: ["spiffe://shop.local/agents/b"] } }],
      { launchedBy: ["spiffe://shop.local/agents/b"] },
    ],
    ["other facts", [{ facts: { ...facts, exePath: "/bin/other" } }], { exe: "/bin/other" }],
    [
      "another identity",
      [{ granted: { identity: identity("agents/planner"), evidence: "kernel", launchedBy: [] } }],
      { identity: "agents/planner" },
    ],
  ])("says what is so at that moment: %s", async (_, changes, expected) => {
    const { deliver } = start();
    const granted = { identity: own, evidence: "kernel", launchedBy: ["spiffe://shop.local/agents/a"] } as const;
    const before = await deliver({ launch: launched("agents/lead", "one"), granted });
    expect(await deliver()).toBe(before);
    const after = await deliver(...changes);
    expect(after).not.toBe(before);
    expect(after).toMatchObject(expected);
  });
});
