import { X509Certificate } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { CallerLaunch } from "../../src/attestation/caller.js";
import type { ProcessFacts } from "../../src/attestation/process-facts.js";
import type { IdentityConfig } from "../../src/config/config.js";
import type { LiveInstances } from "../../src/identity/instances.js";
import { createIdentityRegistry } from "../../src/identity/registry.js";
import { launchChainOf } from "../../src/spiffe/launch-chain.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { verifyX509Svid } from "../../src/spiffe/x509-svid.js";
import { callerLaunch, createTestTrustDomain, identity, launchConfig, shop } from "./test-trust-domain.js";

const facts: ProcessFacts = {
  ...{ pid: 42, startTime: 1n, execGeneration: "1", uid: 1000, user: "dev", gid: 1000, group: "dev" },
  ...{ supplementaryGids: [], supplementaryGroups: [], exePath: "/usr/bin/node", exeSha256: "ab".repeat(32) },
  ...{ evidence: "kernel", missing: {}, commandLine: ["node"] },
};
const caller = (launch?: CallerLaunch) => ({ facts, launch, recheck: () => undefined, close: () => undefined });
const id = (name: string) => SpiffeId.of(shop, name);
const lead = "spiffe://shop.local/agents/lead";

/** A registry whose revocations and living instances the test changes. */
function registryOf(...identities: IdentityConfig[]) {
  const revoked = new Set<string>();
  const living = new Set<string>();
  const live: LiveInstances = {
    hasInstance: (name, instance) => living.has(`${name}/${instance}`),
    launchOfInstance: (name, instance) => (living.has(`${name}/${instance}`) ? "launch" : undefined),
    get instances() {
      return [...living].map((each) => ({
        name: each.slice(0, each.lastIndexOf("/")),
        instance: each.slice(each.lastIndexOf("/") + 1),
      }));
    },
  };
  const revocations = { isRevoked: (one: SpiffeId) => revoked.has(one.name), onChange: () => () => undefined };
  const registry = createIdentityRegistry({ identities }, { identities: {} }, undefined, revocations, live);
  const follow = (launch: CallerLaunch) => {
    const { granted, missed } = registry.entitlementsOf(caller(launch));
    return {
      granted: granted.map((one) => `${one.identity.id} by ${one.evidence}`),
      missed: missed.map((one) => `${one.identity.name}: ${one.failed}: ${one.detail}`),
      entitlements: granted,
    };
  };
  return { registry, revoked, living, follow };
}

describe("children", () => {
  it("have the identity only where the entry says so, and as weak as that is", () => {
    const launch = callerLaunch("agents/a", { evidence: "parent", pid: 7 });
    const children = identity("agents/a", { launch: launchConfig({ children: true }) });
    expect(registryOf(children).follow(launch).granted).toEqual(["spiffe://shop.local/agents/a by parent"]);
    const without = registryOf(identity("agents/a", { launch: launchConfig() })).follow(launch);
    expect(without.granted).toEqual([]);
    expect(without.missed).toEqual([
      "agents/a: children: process 7 was launched as agents/a, this one descends from it, and the entry has no `children`",
    ]);
    const itself = registryOf(children).follow(callerLaunch("agents/a"));
    expect(itself.granted).toEqual(["spiffe://shop.local/agents/a by launch"]);
  });
});

describe("instances", () => {
  const entry = identity("agents/a", {
    launch: launchConfig({ instances: true }),
    hint: "h",
    dnsNames: ["a.localhost"],
  });

  it("are found while they live, under their own ID, with all that the entry says", () => {
    const { registry, living } = registryOf(entry, identity("agents/b", { launch: launchConfig() }));
    expect(registry.find("agents/a/one")).toBeUndefined();
    living.add("agents/a/one").add("agents/b/one");
    const one = registry.find("agents/a/one");
    expect(one).toMatchObject({ name: "agents/a/one", hint: "h", dnsNames: ["a.localhost"] });
    expect(registry.find("spiffe://shop.local/agents/a/one")).toBe(one);
    expect(registry.find("agents/b/one")).toBeUndefined();
    expect(registry.instances().map(({ name }) => name)).toEqual(["agents/a/one"]);
    expect([registry.instances("agents/a").length, registry.instances("agents/b").length]).toEqual([1, 0]);
    expect(registry.identities.map(({ name }) => name)).toEqual(["agents/a", "agents/b"]);
  });

  it("follow for their own launch, instead of the entry's", () => {
    const { follow } = registryOf(entry);
    expect(follow(callerLaunch("agents/a", { instance: "one" })).granted).toEqual([
      "spiffe://shop.local/agents/a/one by launch",
    ]);
    const closed = registryOf(identity("agents/a", { launch: launchConfig() }));
    expect(closed.follow(callerLaunch("agents/a", { instance: "one" })).granted).toEqual([]);
    expect(closed.follow(callerLaunch("agents/a")).granted).toHaveLength(1);
  });

  it("are revoked alone or with their entry, and refused once they have ended", () => {
    const { registry, revoked, living, follow } = registryOf(entry);
    living.add("agents/a/one").add("agents/a/two");
    const granted = () =>
      ["one", "two"].map((instance) => follow(callerLaunch("agents/a", { instance })).granted.length);
    expect([granted(), registry.refusalOf(id("agents/a/one"), [])]).toEqual([[1, 1], undefined]);
    revoked.add("agents/a/one");
    expect([granted(), registry.isRevoked(id("agents/a/one"))]).toEqual([[0, 1], true]);
    revoked.clear();
    revoked.add("agents/a");
    expect(granted()).toEqual([0, 0]);
    expect(registry.refusalOf(id("agents/a/two"), [])).toContain("revoked");
    revoked.clear();
    living.delete("agents/a/two");
    expect(registry.refusalOf(id("agents/a/two"), [])).toContain("has ended");
    expect(registry.refusalOf(id("agents/a/one"), [])).toBeUndefined();
    expect(registry.refusalOf(id("agents/a"), [])).toBeUndefined();
  });
});

describe("sub-agents", () => {
  const identities = [
    identity("agents/lead", { launch: launchConfig({ subagents: ["agents/a"] }) }),
    identity("agents/a", { launch: launchConfig() }),
    identity("agents/user", { facts: { uid: 1000 } }),
  ];
  const below = callerLaunch("agents/a", { launchedBy: [lead] });

  it("carry the agents above them with every identity that they have", () => {
    const { follow } = registryOf(...identities);
    const { granted, entitlements } = follow(below);
    expect(granted).toEqual(["spiffe://shop.local/agents/a by launch", "spiffe://shop.local/agents/user by kernel"]);
    expect(entitlements.map(({ launchedBy }) => launchedBy)).toEqual([[lead], [lead]]);
    expect(follow(callerLaunch("agents/a")).entitlements.map(({ launchedBy }) => launchedBy)).toEqual([[], []]);
  });

  it("have nothing while an agent above them is revoked, or is no longer configured", () => {
    const { registry, revoked, follow } = registryOf(...identities);
    expect(follow(below).granted).toHaveLength(2);
    revoked.add("agents/lead");
    expect(follow(below).granted).toEqual([]);
    expect(follow(below).missed).toContain(`agents/a: parent: ${lead}, which launched it, is revoked`);
    expect(registry.refusalOf(id("agents/a"), [lead])).toContain("revoked");
    expect(follow(callerLaunch("agents/a")).granted).toHaveLength(2);
    revoked.clear();
    registry.update({ identities: identities.slice(1) }, { identities: {} });
    expect(follow(below).granted).toEqual([]);
    expect(registry.refusalOf(id("agents/a"), [lead])).toContain("no longer configured");
    expect(registry.refusalOf(id("agents/a"), [])).toBeUndefined();
  });

  it("have an SVID of their own that names the agents above, and is good for everybody else too", () => {
    const domain = createTestTrustDomain();
    const billing = id("agents/billing");
    const chain = [lead, "spiffe://shop.local/agents/root/i-1"];
    const [plain, chained] = [domain.keeper.x509Svid(billing), domain.keeper.x509Svid(billing, chain)];
    expect([domain.keeper.x509Svid(billing), domain.keeper.x509Svid(billing, chain)]).toEqual([plain, chained]);
    const [own, theirs] = [plain, chained].map((svid) => svid.certificates[0] ?? Buffer.alloc(0));
    expect([launchChainOf(own ?? Buffer.alloc(0)), launchChainOf(theirs ?? Buffer.alloc(0))]).toEqual([[], chain]);
    expect(new X509Certificate(theirs ?? "").subject).toBe(`description=${chain[0]}\ndescription=${chain[1]}`);
    for (const { certificates } of [plain, chained]) {
      const verified = verifyX509Svid(
        certificates,
        (td) => domain.bundles.x509Bundle(td)?.authorities,
        new Date(domain.clock.now()),
      );
      expect(verified.id.equals(billing)).toBe(true);
    }
    expect(domain.audit.entries.at(-1)?.fields).toMatchObject({ serial: chained.serial, launchedBy: chain });
    expect(domain.keeper.rotate(billing)).toBe("agents/billing");
    expect(domain.keeper.x509Svid(billing, chain).serial).not.toBe(chained.serial);
    expect(launchChainOf(domain.keeper.x509Svid(billing, chain).certificates[0] ?? Buffer.alloc(0))).toEqual(chain);
  });

  it("leave no SVID behind that is made again and again for nobody", async () => {
    const domain = createTestTrustDomain();
    domain.keeper.x509Svid(id("agents/billing"));
    domain.keeper.x509Svid(id("agents/billing"), [lead]);
    domain.keeper.x509Svid(id("agents/planner"), [lead]);
    domain.keeper.onRotation(id("agents/planner"), () => undefined);
    expect(domain.keeper.held).toHaveLength(3);
    domain.clock.advance(400_000);
    expect(domain.keeper.held.map(({ identity: { name } }) => name)).toEqual(["agents/billing", "agents/planner"]);
    // Somebody listens to the identity, but the launch whose SVID this was is over: nobody takes it any more.
    domain.clock.advance(400_000);
    expect(domain.keeper.held.map(({ identity: { name } }) => name)).toEqual(["agents/billing"]);
  });

  it("are replaced as long as a listener takes them", async () => {
    const domain = createTestTrustDomain();
    const planner = id("agents/planner");
    const serials = new Set([domain.keeper.x509Svid(planner, [lead]).serial]);
    domain.keeper.onRotation(planner, () => void serials.add(domain.keeper.x509Svid(planner, [lead]).serial));
    for (let half = 0; half < 5; half++) domain.clock.advance(400_000);
    expect(serials.size).toBeGreaterThanOrEqual(5);
    expect(domain.keeper.held).toHaveLength(1);
  });
});
