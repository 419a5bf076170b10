import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeJwt } from "jose";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openDiskKeyStore } from "../../src/identity/disk-key-store.js";
import { createWitAuthority } from "../../src/identity/wit-authority.js";
import { createWitKeeper } from "../../src/identity/wit-keeper.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { createTestClock, createTestTrustDomain, identity, shop } from "./test-trust-domain.js";

const LIFETIME_MS = 600_000;

describe("a WIT authority", () => {
  const now = Date.parse("2026-11-22T12:00:00Z");
  const authority = createWitAuthority({
    trustDomain: shop,
    notBefore: new Date(now - 10_000),
    notAfter: new Date(now + 3_600_000),
  });
  const issue = (id: SpiffeId, at = now) => authority.issue({ id, lifetimeSeconds: 600 }, at);

  it("signs for identities of its own trust domain, while it is valid, and never beyond its end", () => {
    const billing = SpiffeId.of(shop, "agents/billing");
    expect(issue(billing).expiresAt).toEqual(new Date(now + LIFETIME_MS));
    expect(issue(billing, now + 3_500_000).expiresAt).toEqual(authority.notAfter);
    for (const [id, at, code] of [
      [SpiffeId.of(TrustDomain.parse("other.local"), "agents/billing"), now, "identity-foreign"],
      [shop.id, now, "identity-foreign"],
      [billing, now - 20_000, "authority-expired"],
      [billing, now + 3_600_000, "authority-expired"],
    ] as const) {
      expect(() => issue(id, at)).toThrow(expect.objectContaining({ code }));
    }
  });
});

describe("WIT keys on disk", () => {
  let directory: string;
  beforeEach(() => {
    directory = join(mkdtempSync(join(tmpdir(), "agentid-wit-")), "keys");
  });
  afterEach(() => rmSync(join(directory, ".."), { recursive: true }));

  const open = () => openDiskKeyStore({ directory, trustDomain: shop, keychain: undefined });

  async function start() {
    const { authority, audit, keeper } = createTestTrustDomain({ keyStore: await open() });
    keeper.close();
    authority.close();
    return { authority, audit };
  }

  /** As the first version wrote it: without anything of WIT. */
  function forgetWit(): void {
    const path = join(directory, "shop.local.json");
    const withoutWit = (key: string, value: unknown) => (key.startsWith("wit") ? undefined : value);
    writeFileSync(path, JSON.stringify(JSON.parse(readFileSync(path, "utf8"), withoutWit)));
  }

  it("stay the same over a restart", async () => {
    const { authority } = await start();
    expect((await start()).authority.witKeys).toEqual(authority.witKeys);
  });

  it("are made once for a key file of the first version, which keeps its other keys", async () => {
    const { authority: first } = await start();
    const rotated = createTestTrustDomain({ keyStore: await open() });
    rotated.authority.rotate();
    rotated.keeper.close();
    rotated.authority.close();
    forgetWit();
    const { authority: second, audit } = await start();
    expect(new Set(second.x509Authorities)).toEqual(new Set(rotated.authority.x509Authorities));
    expect(new Set(second.jwtKeys)).toEqual(new Set(rotated.authority.jwtKeys));
    // The one that signs no more never signed a WIT-SVID that this version knows of.
    expect(second.witKeys).toHaveLength(1);
    expect([...first.witKeys, ...rotated.authority.witKeys]).not.toContainEqual(second.witKeys[0]);
    expect(audit.entries).toMatchObject([{ kind: "authority.created", fields: { transition: "complete" } }]);
    const third = await start();
    expect(third.authority.witKeys).toEqual(second.witKeys);
    expect(third.audit.entries).toEqual([]);
  });
});

describe("the WIT keeper", () => {
  function createKeeper(names: readonly string[]) {
    const clock = createTestClock();
    const parts = createTestTrustDomain({ clock, identities: names.map((name) => identity(name)) });
    const { authority, registry, audit, problems, issued } = parts;
    const keeper = createWitKeeper({
      ...{ authority, registry, clock, audit, issued },
      lifetimes: () => ({ x509Seconds: LIFETIME_MS / 1000 }),
      random: () => 0.5,
      onProblem: (thrown) => problems.push(thrown),
    });
    return { ...parts, wit: keeper, ids: names.map((name) => SpiffeId.of(shop, name)) };
  }

  it("replaces what somebody listens to at half life, and the rest when it is asked for", () => {
    const { wit, clock, ids } = createKeeper(["agents/billing", "agents/planner"]);
    const [billing, planner] = ids as [SpiffeId, SpiffeId];
    const first = wit.witSvid(billing);
    const other = wit.witSvid(planner);
    const heard: string[] = [];
    const stop = wit.onWitRotation(billing, (svid) => heard.push(svid.tokenId));
    clock.advance(LIFETIME_MS / 2);
    expect(heard).toEqual([wit.witSvid(billing).tokenId]);
    expect(heard).not.toContain(first.tokenId);
    expect(wit.witSvid(planner).tokenId).not.toBe(other.tokenId);
    stop();
    clock.advance(LIFETIME_MS);
    expect(heard).toHaveLength(1);
    expect(decodeJwt(wit.witSvid(billing).token).exp).toBeGreaterThan(clock.now() / 1000);
  });

  it("replaces all at once, a few in each turn, when another authority signs", () => {
    const names = Array.from({ length: 40 }, (_, index) => `agents/a${index}`);
    const { wit, clock, authority, ids } = createKeeper(names);
    const heard = new Set<string>();
    for (const id of ids) {
      wit.witSvid(id);
      wit.onWitRotation(id, (svid) => heard.add(svid.id.toString()));
    }
    authority.rotate();
    clock.advance(0);
    expect(heard.size).toBe(40);
  });

  it("hands out the one at hand while the next cannot be recorded, tries again later, and never hands out an expired one", () => {
    const { wit, clock, audit, problems, ids } = createKeeper(["agents/billing"]);
    const [billing] = ids as [SpiffeId];
    const first = wit.witSvid(billing);
    const heard: string[] = [];
    wit.onWitRotation(billing, (svid) => heard.push(svid.tokenId));
    audit.writable = false;
    clock.advance(LIFETIME_MS / 2);
    expect([wit.witSvid(billing).tokenId, wit.witSvid(billing).tokenId]).toEqual([first.tokenId, first.tokenId]);
    expect(problems).toHaveLength(1);
    audit.writable = true;
    clock.advance(5_000);
    expect(heard).toEqual([wit.witSvid(billing).tokenId]);
    audit.writable = false;
    clock.jump(LIFETIME_MS);
    expect(() => wit.witSvid(billing)).toThrow(expect.objectContaining({ code: "not-ready" }));
  });

  it("gives nothing to whom was revoked, and remembers what it gave before", () => {
    const { wit, clock, revocations, issued, ids } = createKeeper(["agents/billing", "agents/planner"]);
    const [billing, planner] = ids as [SpiffeId, SpiffeId];
    const { tokenId } = wit.witSvid(billing);
    revocations.revoke(billing, undefined, []);
    expect(() => wit.witSvid(billing)).toThrow(expect.objectContaining({ code: "identity-revoked" }));
    expect(wit.witSvid(planner).id).toEqual(planner);
    expect(issued.of(billing.toString(), clock.now())).toMatchObject([{ type: "wit", serial: tokenId }]);
    revocations.undo(billing);
    expect(wit.witSvid(billing).tokenId).not.toBe(tokenId);
  });

  it("never hands out what a distrusted authority signed, not even while it cannot sign anew", () => {
    const { wit, authority, audit, ids } = createKeeper(["agents/billing"]);
    const [billing] = ids as [SpiffeId];
    const first = wit.witSvid(billing);
    const { keyId } = authority.active.x509;
    authority.rotate();
    audit.writable = false;
    expect(wit.witSvid(billing).tokenId).toBe(first.tokenId);
    audit.writable = true;
    authority.taint(keyId);
    audit.writable = false;
    expect(() => wit.witSvid(billing)).toThrow(expect.objectContaining({ code: "not-ready" }));
    audit.writable = true;
    expect(wit.witSvid(billing).tokenId).not.toBe(first.tokenId);
  });

  it("knows no identity that is not configured, and forgets those that are removed", () => {
    const { wit, registry, ids } = createKeeper(["agents/billing"]);
    const [billing] = ids as [SpiffeId];
    const first = wit.witSvid(billing);
    registry.update({ identities: [] }, { identities: {} });
    expect(() => wit.witSvid(billing)).toThrow(expect.objectContaining({ code: "identity-unknown" }));
    registry.update({ identities: [identity("agents/billing")] }, { identities: {} });
    expect(wit.witSvid(billing).tokenId).not.toBe(first.tokenId);
  });
});
