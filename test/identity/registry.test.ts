import { describe, expect, it } from "vitest";
import type { Caller, CallerLaunch } from "../../src/attestation/caller.js";
import type { ProcessFacts } from "../../src/attestation/process-facts.js";
import type { IdentityConfig, Lock, RequiredFacts } from "../../src/config/config.js";
import { createIdentityRegistry } from "../../src/identity/registry.js";
import { callerLaunch, identity, launchConfig } from "./test-trust-domain.js";

const DIGEST = "ab".repeat(32);
const noLock: Lock = { identities: {} };
const launch = launchConfig({ argv: ["python", "agent.py"], workingDirectory: "/srv" });

const facts: ProcessFacts = {
  pid: 42,
  startTime: 1n,
  execGeneration: "1",
  uid: 1000,
  user: "dev",
  gid: 1000,
  group: "dev",
  supplementaryGids: [27, 999],
  supplementaryGroups: ["sudo", "docker"],
  exePath: "/usr/bin/node",
  exeSha256: DIGEST,
  evidence: "kernel",
  missing: {},
  commandLine: ["node"],
};

function caller(changes: Partial<ProcessFacts> = {}, launched?: string | CallerLaunch): Caller {
  const launch = typeof launched === "string" ? callerLaunch(launched) : launched;
  return { facts: { ...facts, ...changes }, launch, recheck: () => undefined, close: () => undefined };
}

function follow(identities: readonly IdentityConfig[], who: Caller, lock = noLock) {
  const { granted, missed } = createIdentityRegistry({ identities }, lock).entitlementsOf(who);
  return {
    granted: granted.map((one) => `${one.identity.name} by ${one.evidence}`),
    missed: missed.map((one) => `${one.identity.name}: ${one.failed}: ${one.detail}`),
  };
}

const withFacts = (required: RequiredFacts, more: Partial<IdentityConfig> = {}) =>
  identity("agents/a", { facts: required, ...more });

describe("which identities follow", () => {
  const each: [string, RequiredFacts, Partial<ProcessFacts>, string][] = [
    ["uid", { uid: 1000 }, { uid: 1001 }, "unix:uid:1000: wanted unix:uid:1000, found unix:uid:1001"],
    ["user", { user: "dev" }, { user: "eve" }, "unix:user:dev: wanted unix:user:dev, found unix:user:eve"],
    ["gid", { gid: 1000 }, { gid: 0 }, "unix:gid:1000: wanted unix:gid:1000, found unix:gid:0"],
    ["group", { group: "dev" }, { group: undefined }, "unix:group:dev: wanted unix:group:dev, found none"],
    [
      "supplementaryGid",
      { supplementaryGid: 999 },
      { supplementaryGids: [1, 99] },
      "unix:supplementary_gid:999: wanted unix:supplementary_gid:999, found unix:supplementary_gid:1, unix:supplementary_gid:99",
    ],
    [
      "supplementaryGroup",
      { supplementaryGroup: "docker" },
      { supplementaryGroups: [] },
      "unix:supplementary_group:docker: wanted unix:supplementary_group:docker, found none",
    ],
    [
      "exePath",
      { exePath: "/usr/bin/node" },
      { exePath: "/usr/bin/node (deleted)" },
      "unix:path:/usr/bin/node: wanted unix:path:/usr/bin/node, found unix:path:/usr/bin/node (deleted)",
    ],
    [
      "exeSha256",
      { exeSha256: DIGEST },
      { exeSha256: undefined, missing: { exeSha256: "the process belongs to another user" } },
      `unix:sha256:${DIGEST}: wanted unix:sha256:${DIGEST}, found none: the process belongs to another user`,
    ],
  ];
  it.each(each)("%s must hold", (_name, required, other, failure) => {
    expect(follow([withFacts(required)], caller())).toEqual({ granted: ["agents/a by kernel"], missed: [] });
    expect(follow([withFacts(required)], caller(other))).toEqual({ granted: [], missed: [`agents/a: ${failure}`] });
  });

  it("all facts must hold, and the first that does not is named", () => {
    const both = withFacts({ exePath: "/usr/bin/node", uid: 1000 });
    expect(follow([both], caller()).granted).toEqual(["agents/a by kernel"]);
    expect(follow([both], caller({ uid: 7, exePath: "/tmp/x" })).missed[0]).toContain("unix:uid:1000");
    expect(follow([both], caller({ exePath: "/tmp/x" })).missed[0]).toContain("unix:path:/usr/bin/node");
  });

  it("a pinned digest is the lock's, and nothing pinned is nobody", () => {
    const pinned = withFacts({ exeSha256: "pinned" });
    const lock: Lock = { identities: { "agents/a": { exe: { path: "/usr/bin/node", sha256: DIGEST }, files: {} } } };
    expect(follow([pinned], caller(), lock).granted).toEqual(["agents/a by kernel"]);
    expect(follow([pinned], caller({ exeSha256: "cd".repeat(32) }), lock).missed[0]).toContain(`unix:sha256:${DIGEST}`);
    expect(follow([pinned], caller()).missed).toEqual([
      "agents/a: unix:sha256:pinned: agentid.lock pins no executable for it",
    ]);
    const named = identity("constructor", { facts: { exeSha256: "pinned" } });
    expect(follow([named], caller()).granted).toEqual([]);
  });

  it("a launched identity follows only for its own launch, and with facts only if they hold too", () => {
    const launched = identity("agents/a", { launch });
    expect(follow([launched], caller({}, "agents/a")).granted).toEqual(["agents/a by launch"]);
    expect(follow([launched], caller({}, "agents/b")).missed[0]).toContain(
      "launch: only `agentid run agents/a` gives it; this process was launched as agents/b",
    );
    expect(follow([launched], caller()).missed[0]).toContain("was not launched by agentid");
    const both = withFacts({ uid: 1000 }, { launch });
    expect(follow([both], caller({}, "agents/a")).granted).toEqual(["agents/a by launch"]);
    expect(follow([both], caller({ uid: 7 }, "agents/a")).missed[0]).toContain("unix:uid:1000");
    expect(follow([both], caller()).missed[0]).toContain("agents/a: launch");
  });

  it("evidence is as strong as the weakest thing it rests on", () => {
    const weak = { evidence: "weak" } as const;
    expect(follow([withFacts({ uid: 1000 })], caller(weak)).granted).toEqual(["agents/a by weak"]);
    expect(follow([withFacts({ uid: 1000 }, { launch })], caller(weak, "agents/a")).granted).toEqual([
      "agents/a by weak",
    ]);
    expect(follow([identity("agents/a", { launch })], caller(weak, "agents/a")).granted).toEqual([
      "agents/a by launch",
    ]);
  });

  it("a service's identity follows for no process unless it asks for facts, and an entry that asks for nothing for nobody", () => {
    const service = identity("mcp/payments", { service: "payments" });
    expect(follow([service], caller()).missed).toEqual([
      "mcp/payments: service: the relay speaks as it for the service payments; no process gets it",
    ]);
    expect(
      follow([identity("mcp/payments", { service: "payments", facts: { uid: 1000 } })], caller()).granted,
    ).toHaveLength(1);
    expect(follow([identity("agents/nothing")], caller()).granted).toEqual([]);
  });

  it("XR-8 the order is that of the configuration", () => {
    const names = ["z", "a", "m", "b"];
    const identities = names.map((name) => identity(name, { facts: { uid: 1000 } }));
    expect(follow(identities, caller()).granted).toEqual(names.map((name) => `${name} by kernel`));
  });
});

describe("registry that follows the configuration", () => {
  it("finds by name and by SPIFFE ID, and nothing else", () => {
    const registry = createIdentityRegistry({ identities: [identity("agents/a")] }, noLock);
    expect(registry.find("agents/a")).toBe(registry.identities[0]);
    expect(registry.find("spiffe://shop.local/agents/a")).toBe(registry.identities[0]);
    for (const other of ["a", "spiffe://other.local/agents/a", "", "constructor"])
      expect(registry.find(other)).toBeUndefined();
  });

  it("tells listeners of each change, of the lock too, and of nothing that changes nothing", () => {
    const registry = createIdentityRegistry({ identities: [withFacts({ exeSha256: "pinned" })] }, noLock);
    let changes = 0;
    const stop = registry.onChange(() => changes++);
    registry.update({ identities: [withFacts({ exeSha256: "pinned" })] }, noLock);
    expect(changes).toBe(0);
    registry.update(
      { identities: [withFacts({ exeSha256: "pinned" })] },
      { identities: { "agents/a": { exe: { path: "/usr/bin/node", sha256: DIGEST }, files: {} } } },
    );
    expect(changes).toBe(1);
    expect(registry.entitlementsOf(caller()).granted).toHaveLength(1);
    registry.update({ identities: [] }, noLock);
    expect(changes).toBe(2);
    expect(registry.find("agents/a")).toBeUndefined();
    stop();
    registry.update({ identities: [identity("agents/b")] }, noLock);
    expect(changes).toBe(2);
  });
});
