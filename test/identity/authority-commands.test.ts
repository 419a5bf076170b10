import { describe, expect, it } from "vitest";
import type { KeyStore, StoredAuthorities } from "../../src/identity/key-store.js";
import { parseAndValidateJwtSvid } from "../../src/spiffe/jwt-svid.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { verifyX509Svid } from "../../src/spiffe/x509-svid.js";
import { createTestClock, createTestTrustDomain, shop } from "./test-trust-domain.js";

const billing = SpiffeId.of(shop, "agents/billing");
const SECOND = 1_000;
const coded = (code: string) => expect.objectContaining({ code });

type Domain = ReturnType<typeof createTestTrustDomain>;

function states({ authority }: Domain): readonly string[] {
  return authority.generations.map(({ state }) => state);
}

function verifies({ bundles, clock }: Domain, certificates: readonly Buffer[]): boolean {
  try {
    verifyX509Svid(certificates, (td) => bundles.x509Bundle(td)?.authorities, new Date(clock.now()));
    return true;
  } catch {
    return false;
  }
}

function tokenVerifies({ bundles, clock }: Domain, token: string): boolean {
  try {
    parseAndValidateJwtSvid(token, "orders", (td) => bundles.jwtBundle(td), new Date(clock.now()));
    return true;
  } catch {
    return false;
  }
}

function keptStore(): KeyStore {
  let kept: StoredAuthorities | undefined;
  return {
    protection: "none",
    load: () => kept,
    save(authorities) {
      kept = structuredClone(authorities);
    },
  };
}

describe("authorities by command", () => {
  it("prepare, activate, taint, revoke: the bundle has each key before it signs and until it is revoked", async () => {
    const domain = createTestTrustDomain();
    const { authority, keeper, clock } = domain;
    const before = keeper.x509Svid(billing);
    const { token } = await keeper.jwtSvid(billing, ["orders"]);
    const [first] = authority.generations;
    expect(states(domain)).toEqual(["active"]);

    const prepared = authority.prepare();
    expect(states(domain)).toEqual(["active", "prepared"]);
    expect(authority.x509Authorities).toHaveLength(2);
    expect(authority.prepare().keyId).toBe(prepared.keyId);
    // The first still signs.
    expect((await keeper.jwtSvid(billing, ["orders"])).token).toBe(token);
    expect(tokenVerifies(domain, (await keeper.jwtSvid(billing, ["orders", "another"])).token)).toBe(true);
    expect(authority.active.keyId).toBe(first?.keyId);

    clock.advance(5 * SECOND);
    expect(authority.activate().keyId).toBe(prepared.keyId);
    expect(states(domain)).toEqual(["active", "old"]);
    expect(verifies(domain, before.certificates)).toBe(true);
    expect(tokenVerifies(domain, token)).toBe(true);

    authority.taint(first?.keyId ?? "");
    expect(states(domain)).toEqual(["active", "tainted"]);
    clock.advance(SECOND);
    expect(keeper.x509Svid(billing).serial).not.toBe(before.serial);
    // Still in the bundle: peers that have not fetched theirs anew go on.
    expect(verifies(domain, before.certificates)).toBe(true);

    authority.revoke(first?.keyId ?? "");
    expect(states(domain)).toEqual(["active"]);
    expect(verifies(domain, before.certificates)).toBe(false);
    expect(tokenVerifies(domain, token)).toBe(false);
    expect(verifies(domain, keeper.x509Svid(billing).certificates)).toBe(true);
    const kinds = domain.audit.entries.map(({ kind }) => kind).filter((kind) => kind.startsWith("authority"));
    expect(kinds).toEqual([
      "authority.created",
      "authority.created",
      "authority.rotated",
      "authority.tainted",
      "authority.revoked",
    ]);
  });

  it("only a prepared one is activated, and not before verifiers have had it for 5 s, unless a person says so", () => {
    const { authority, clock } = createTestTrustDomain();
    expect(() => authority.activate()).toThrow(coded("authority-state"));
    authority.prepare();
    clock.advance(4 * SECOND);
    expect(() => authority.activate()).toThrow(coded("authority-too-fresh"));
    clock.advance(SECOND);
    expect(authority.activate().state).toBe("active");
    authority.prepare();
    expect(authority.activate({ hurried: true }).state).toBe("active");
  });

  it("the active one and the prepared one are neither tainted nor revoked; the old one is", () => {
    const domain = createTestTrustDomain();
    const { authority } = domain;
    const first = authority.active.keyId;
    expect(() => authority.taint(first)).toThrow(coded("authority-state"));
    expect(() => authority.revoke(first)).toThrow(coded("authority-state"));
    const prepared = authority.prepare().keyId;
    expect(() => authority.taint(prepared)).toThrow(coded("authority-state"));
    expect(() => authority.revoke(prepared)).toThrow(coded("authority-state"));
    authority.activate({ hurried: true });
    authority.taint(first);
    expect(() => authority.taint(first)).toThrow(coded("authority-state"));
    authority.revoke(first);
    expect(() => authority.revoke(first)).toThrow(coded("authority-unknown"));
  });

  it("is named by the beginning of any of its key ids, if it is the only one", () => {
    const { authority } = createTestTrustDomain();
    const { keyId, jwtPublicKey, witPublicKey } = authority.active;
    authority.prepare();
    authority.activate({ hurried: true });
    expect(() => authority.taint("")).toThrow(coded("authority-unknown"));
    expect(() => authority.taint("no such key")).toThrow(coded("authority-unknown"));
    expect(authority.taint(keyId.slice(0, 16)).jwtKeyId).toBe(jwtPublicKey.kid);
    expect(authority.revoke(witPublicKey?.kid?.slice(0, 16) ?? "").keyId).toBe(keyId);
  });

  it("hands out nothing of a tainted authority, even while no replacement can be made", () => {
    const domain = createTestTrustDomain();
    const { authority, keeper, audit, clock } = domain;
    const before = keeper.x509Svid(billing);
    authority.prepare();
    // The new authority signs, but what it would sign cannot be recorded: the old SVID stays while the old authority is believed.
    authority.activate({ hurried: true });
    audit.writable = false;
    expect(keeper.x509Svid(billing)).toBe(before);
    audit.writable = true;
    authority.taint(before === undefined ? "" : (authority.generations[1]?.keyId ?? ""));
    audit.writable = false;
    expect(() => keeper.x509Svid(billing)).toThrow(coded("not-ready"));
    audit.writable = true;
    clock.advance(SECOND);
    expect(keeper.x509Svid(billing).serial).not.toBe(before.serial);
  });

  it("replaces every held SVID at once, and tells listeners", () => {
    const domain = createTestTrustDomain();
    const told: string[] = [];
    domain.keeper.x509Svid(billing);
    domain.keeper.onRotation(billing, ({ serial }) => told.push(serial));
    domain.authority.prepare();
    domain.authority.activate({ hurried: true });
    domain.clock.advance(0);
    expect(told).toHaveLength(1);
  });

  it("taint and revoke survive a restart", () => {
    const keyStore = keptStore();
    const clock = createTestClock();
    const one = createTestTrustDomain({ keyStore, clock });
    const first = one.authority.active.keyId;
    one.authority.prepare();
    one.authority.activate({ hurried: true });
    one.authority.taint(first);
    one.authority.close();
    const two = createTestTrustDomain({ keyStore, clock });
    expect(states(two)).toEqual(["active", "tainted"]);
    expect(two.authority.vouches(first)).toBe(false);
    two.authority.revoke(first);
    two.authority.close();
    expect(states(createTestTrustDomain({ keyStore, clock }))).toEqual(["active"]);
  });

  it("changes nothing that cannot be recorded", () => {
    const domain = createTestTrustDomain();
    const first = domain.authority.active.keyId;
    domain.audit.writable = false;
    expect(() => domain.authority.prepare()).toThrow(coded("audit-unwritable"));
    domain.audit.writable = true;
    domain.authority.prepare();
    domain.authority.activate({ hurried: true });
    domain.audit.writable = false;
    expect(() => domain.authority.taint(first)).toThrow(coded("audit-unwritable"));
    expect(() => domain.authority.revoke(first)).toThrow(coded("audit-unwritable"));
    expect(states(domain)).toEqual(["active", "old"]);
  });
});
