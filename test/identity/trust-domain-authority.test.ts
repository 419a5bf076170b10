import { describe, expect, it } from "vitest";
import { createTrustBundles } from "../../src/identity/bundles.js";
import { createMemoryKeyStore, type KeyStore, type StoredAuthorities } from "../../src/identity/key-store.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { verifyX509Svid } from "../../src/spiffe/x509-svid.js";
import { createTestClock, createTestTrustDomain, shop } from "./test-trust-domain.js";

const HOUR = 3_600_000;
const billing = SpiffeId.of(shop, "agents/billing");

/** A store that outlives the authority, as a disk does, and can fail, as a disk does. */
function createKeptStore(): KeyStore & { stored: StoredAuthorities | undefined; writable: boolean } {
  return {
    protection: "none",
    stored: undefined,
    writable: true,
    load() {
      return this.stored;
    },
    save(authorities) {
      if (!this.writable) throw new Error("disk full");
      this.stored = structuredClone(authorities);
    },
  };
}

describe("authority of the trust domain", () => {
  it("prepares at half of life, activates with a sixth left, and keeps the old one in the bundle until it ends", () => {
    const { authority, clock, audit } = createTestTrustDomain();
    const first = authority.active;
    const events: string[] = [];
    authority.onBundleChange(() => events.push(`bundle of ${authority.x509Authorities.length}`));
    authority.onActivation(() => events.push("signer"));
    expect(authority.rotateAt.getTime()).toBe(clock.now() + 20 * HOUR);
    clock.advance(12 * HOUR + 1000);
    expect(events).toEqual(["bundle of 2"]);
    expect(authority.active).toBe(first);
    const next = authority.prepared;
    expect(authority.x509Authorities).toContain(next?.x509.certificate);
    expect(authority.jwtKeys).toContain(next?.jwt.publicJwk);
    clock.advance(8 * HOUR);
    expect(events).toEqual(["bundle of 2", "signer"]);
    expect(authority.active).toBe(next);
    expect(authority.x509Authorities).toContain(first.x509.certificate);
    clock.advance(4 * HOUR);
    expect(events).toEqual(["bundle of 2", "signer", "bundle of 3", "bundle of 2"]);
    expect(authority.x509Authorities).not.toContain(first.x509.certificate);
    expect(
      audit.entries.filter(({ kind }) => kind.startsWith("authority")).map(({ fields }) => fields.transition),
    ).toEqual(["create", "prepare", "activate", "prepare", "retire"]);
  });

  it("XS-10 an SVID verifies against every bundle published from its issue to its end", () => {
    const domain = createTestTrustDomain();
    const bundles = createTrustBundles(domain.authority);
    const handedOut = [];
    for (let minute = 0; minute < 30 * 60; minute += 7) {
      domain.clock.advance(7 * 60_000);
      handedOut.push(domain.keeper.x509Svid(billing));
      const now = new Date(domain.clock.now());
      const valid = handedOut.slice(-3).filter((svid) => svid.notAfter > now);
      expect(valid.length).toBeGreaterThan(0);
      for (const { certificates } of valid)
        verifyX509Svid(certificates, (td) => bundles.x509Bundle(td)?.authorities, now);
    }
    expect(new Set(handedOut.map(({ serial }) => serial)).size).toBeGreaterThan(250);
  });

  it("rotates by command: verifiers hear of the new authority before it signs, and an already prepared one is used", () => {
    const { authority, clock } = createTestTrustDomain();
    const first = authority.active;
    const events: string[] = [];
    authority.onBundleChange(() => events.push(authority.active === first ? "bundle, first signs" : "bundle"));
    authority.onActivation((active) => events.push(active === first ? "first" : "signer"));
    authority.rotate();
    expect(events).toEqual(["bundle, first signs", "signer"]);
    expect(authority.x509Authorities).toHaveLength(2);
    clock.advance(13 * HOUR);
    const prepared = authority.prepared;
    expect(prepared).toBeDefined();
    authority.rotate();
    expect(authority.active).toBe(prepared);
    expect(authority.x509Authorities).toHaveLength(3);
  });

  it("is the same after a restart, and keeps no private key of an old authority", () => {
    const keyStore = createKeptStore();
    const clock = createTestClock();
    const one = createTestTrustDomain({ keyStore, clock }).authority;
    const first = one.active;
    one.rotate();
    one.close();
    const two = createTestTrustDomain({ keyStore, clock }).authority;
    const hex = (authorities: readonly Buffer[]) => authorities.map((der) => der.toString("hex")).sort();
    expect(hex(two.x509Authorities)).toEqual(hex(one.x509Authorities));
    expect(new Set(two.jwtKeys.map(({ kid }) => kid))).toEqual(new Set(one.jwtKeys.map(({ kid }) => kid)));
    expect(two.active.x509.keyId).toBe(one.active.x509.keyId);
    const kept = JSON.stringify(keyStore.stored);
    expect(kept).toContain(two.active.x509.privateKeyPkcs8.toString("base64"));
    expect(kept).not.toContain(first.x509.privateKeyPkcs8.toString("base64"));
    expect(kept).not.toContain(first.jwt.privateKeyPkcs8.toString("base64"));
  });

  it("replaces an authority that expired while nothing ran", () => {
    const keyStore = createKeptStore();
    const clock = createTestClock();
    const one = createTestTrustDomain({ keyStore, clock }).authority;
    const { keyId } = one.active.x509;
    one.close();
    clock.jump(30 * HOUR);
    const two = createTestTrustDomain({ keyStore, clock }).authority;
    expect(two.active.x509.keyId).not.toBe(keyId);
    expect(two.x509Authorities).toEqual([two.active.x509.certificate]);
  });

  it.each([1, 13, 21, 25, 24 * 400, -1, -24 * 400])(
    "signs with a valid authority after a suspend or a jump of %i h",
    (hours) => {
      const { authority, clock } = createTestTrustDomain();
      clock.jump(hours * HOUR);
      const { notBefore, notAfter, x509 } = authority.active;
      expect(notBefore.getTime()).toBeLessThanOrEqual(clock.now());
      expect(notAfter.getTime()).toBeGreaterThan(clock.now());
      expect(authority.x509Authorities).toContain(x509.certificate);
    },
  );

  it("goes on with the active authority while the next one cannot be saved or recorded, and refuses once it has ended", () => {
    for (const fail of ["store", "record"] as const) {
      const keyStore = createKeptStore();
      const domain = createTestTrustDomain({ keyStore });
      const { authority, clock, audit, problems } = domain;
      const first = authority.active;
      const works = (yes: boolean) => {
        if (fail === "store") keyStore.writable = yes;
        else audit.writable = yes;
      };
      works(false);
      clock.jump(21 * HOUR);
      clock.advance(20_000);
      expect(authority.active).toBe(first);
      expect(authority.x509Authorities).toHaveLength(1);
      expect(problems.length).toBeGreaterThan(0);
      expect(() => authority.rotate()).toThrow();
      expect(authority.active).toBe(first);
      clock.jump(3 * HOUR);
      expect(() => authority.active).toThrow(expect.objectContaining({ code: "authority-expired" }));
      works(true);
      expect(authority.active).not.toBe(first);
    }
  });

  it("tells every listener although one throws, and none that has unsubscribed", () => {
    const { authority, problems } = createTestTrustDomain();
    const heard: string[] = [];
    authority.onBundleChange(() => {
      throw new Error("a stream that broke");
    });
    authority.onBundleChange(() => heard.push("second"));
    const stop = authority.onBundleChange(() => heard.push("third"));
    stop();
    authority.rotate();
    expect(heard).toEqual(["second"]);
    expect(problems).toHaveLength(1);
  });

  it("XR-10 XR-11 JR-7 bundles are of our own trust domain only, and the same object until they change", () => {
    const { authority } = createTestTrustDomain();
    const bundles = createTrustBundles(authority);
    const before = { x509: bundles.x509Bundle(shop), jwt: bundles.jwtBundle(shop) };
    expect(bundles.x509Bundle(shop)).toBe(before.x509);
    expect(bundles.jwtBundle(shop)).toBe(before.jwt);
    expect(bundles.x509Bundle(TrustDomain.parse("other.local"))).toBeUndefined();
    expect(bundles.jwtBundle(TrustDomain.parse("other.local"))).toBeUndefined();
    authority.rotate();
    expect(bundles.x509Bundle(shop)?.authorities).toHaveLength(2);
    expect(bundles.jwtBundle(shop)?.keys).toHaveLength(2);
    expect(before.x509?.authorities).toHaveLength(1);
  });

  it("keeps nothing in memory mode", () => {
    const keyStore = createMemoryKeyStore();
    const one = createTestTrustDomain({ keyStore }).authority;
    const two = createTestTrustDomain({ keyStore }).authority;
    expect(two.active.x509.keyId).not.toBe(one.active.x509.keyId);
  });
});
