import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { IssuedCredential } from "../../src/identity/issued-credentials.js";
import type { KeyStore, StoredAuthorities } from "../../src/identity/key-store.js";
import { openRevocationStore } from "../../src/identity/revocation-store.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { verifies } from "../requirements/verifies.js";
import { createTestClock, createTestTrustDomain, identity, shop } from "./test-trust-domain.js";

const base = mkdtempSync(join(tmpdir(), "agentid-revocations-"));
afterAll(() => rmSync(base, { recursive: true }));

const billing = SpiffeId.of(shop, "agents/billing");
const planner = SpiffeId.of(shop, "agents/planner");
const other = SpiffeId.of(shop, "agents/other");
const HOUR = 3_600_000;
const coded = (code: string) => expect.objectContaining({ code });

/** What survives a restart, without a disk. */
function keptInMemory(): KeyStore {
  let kept: StoredAuthorities | undefined;
  return {
    protection: "none",
    load: () => kept,
    save(authorities) {
      kept = structuredClone(authorities);
    },
  };
}

type Domain = ReturnType<typeof createTestTrustDomain>;

/** As the daemon does it. */
function revoke({ revocations, issued, clock }: Domain, id: SpiffeId, until?: Date | "restart") {
  const live = issued.of(id.toString(), clock.now());
  revocations.revoke(
    id,
    until,
    live.flatMap(({ type, serial, authority, notAfter }: IssuedCredential) =>
      type === "x509" && serial !== undefined ? [{ serial, authority, notAfter }] : [],
    ),
  );
  return live;
}

function openssl(...args: string[]): string {
  return execFileSync("openssl", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

function file(name: string, bytes: Buffer | string): string {
  const path = join(base, name);
  writeFileSync(path, bytes);
  return path;
}

const pem = (der: Buffer) => new X509Certificate(der).toString();

/** What openssl says of `leaf` under `root` and the revocation lists; it exits with an error if one is revoked. */
function opensslVerify(root: Buffer, leaf: Buffer, lists: readonly Buffer[], at: number): string {
  const crls = lists.map((der, index) => openssl("crl", "-inform", "DER", "-in", file(`crl-${index}.der`, der)));
  try {
    return openssl(
      ...["verify", "-x509_strict", "-crl_check", "-attime", String(Math.floor(at / 1000))],
      ...[
        "-CAfile",
        file("root.pem", pem(root)),
        "-CRLfile",
        file("crls.pem", crls.join("")),
        file("leaf.pem", pem(leaf)),
      ],
    );
  } catch (thrown) {
    return String((thrown as { stderr: unknown }).stderr);
  }
}

describe("revocation of an identity", () => {
  it("issues nothing to it and drops what is held; others go on; undone, it gets new credentials", async () => {
    const { keeper, registry, revocations } = createTestTrustDomain();
    const before = keeper.x509Svid(billing);
    const changes: string[] = [];
    keeper.onChange(({ change, identity }) => changes.push(`${change} ${identity.name}`));
    registry.onChange(() => changes.push("registry"));
    revocations.revoke(billing, undefined, []);
    expect(changes.sort()).toEqual(["registry", "removed agents/billing"]);
    expect(() => keeper.x509Svid(billing)).toThrow(coded("identity-revoked"));
    await expect(keeper.jwtSvid(billing, ["orders"])).rejects.toThrow(coded("identity-revoked"));
    expect(keeper.x509Svid(planner).id.equals(planner)).toBe(true);
    revocations.undo(billing);
    expect(keeper.x509Svid(billing).serial).not.toBe(before.serial);
    expect((await keeper.jwtSvid(billing, ["orders"])).id.equals(billing)).toBe(true);
    expect(() => revocations.undo(billing)).toThrow(coded("not-revoked"));
  });

  it("nobody is believed to be it, and its certificates stay revoked after it was undone", () => {
    const domain = createTestTrustDomain();
    const { keeper, revocations, bundles, clock } = domain;
    const earlier = keeper.x509Svid(billing);
    keeper.rotate(billing);
    const held = keeper.x509Svid(billing);
    expect(bundles.refusalOf(billing, held.certificates)).toBeUndefined();
    expect(revoke(domain, billing).filter(({ type }) => type === "x509")).toHaveLength(2);
    expect(bundles.refusalOf(billing, held.certificates)).toContain("is revoked");
    expect(bundles.refusalOf(planner, keeper.x509Svid(planner).certificates)).toBeUndefined();
    revocations.undo(billing);
    // Replaced before, but not expired: as good for a thief as the newest one.
    expect(bundles.refusalOf(billing, earlier.certificates)).toContain(earlier.serial.replace(/^0+/, ""));
    expect(bundles.refusalOf(billing, held.certificates)).toContain(held.serial.replace(/^0+/, ""));
    expect(bundles.refusalOf(billing, keeper.x509Svid(billing).certificates)).toBeUndefined();
    clock.advance(HOUR);
    expect(revocations.revokedBy(domain.authority.active.keyId)).toEqual([]);
  });

  it("ends when its time is over, also if the clock jumps there; until the restart, with the restart", () => {
    const directory = join(base, "ends");
    const clock = createTestClock();
    const revocationStore = openRevocationStore(directory);
    const one = createTestTrustDomain({ clock, revocationStore });
    const changes: string[] = [];
    one.revocations.onChange((change) => changes.push(`${change?.change} ${change?.id.name}`));
    one.revocations.revoke(billing, new Date(clock.now() + HOUR), []);
    one.revocations.revoke(planner, "restart", []);
    clock.advance(HOUR - 1_000);
    expect(one.registry.isRevoked(billing)).toBe(true);
    clock.jump(HOUR);
    one.revocations.wake();
    expect(one.registry.isRevoked(billing)).toBe(false);
    expect(one.registry.isRevoked(planner)).toBe(true);
    expect(changes).toEqual(["revoked agents/billing", "revoked agents/planner", "expired agents/billing"]);
    const two = createTestTrustDomain({ clock, revocationStore: openRevocationStore(directory) });
    expect(two.revocations.list).toEqual([]);
  });

  it("survives a restart, with the serial numbers, in a file for the owner alone", () => {
    const directory = join(base, "kept");
    const clock = createTestClock();
    const one = createTestTrustDomain({ clock, revocationStore: openRevocationStore(directory) });
    const { certificates } = one.keeper.x509Svid(billing);
    revoke(one, billing);
    const path = join(directory, "revocations.json");
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const two = createTestTrustDomain({ clock, revocationStore: openRevocationStore(directory) });
    expect(two.revocations.list.map(({ id }) => id.toString())).toEqual([billing.toString()]);
    expect(() => two.keeper.x509Svid(billing)).toThrow(coded("identity-revoked"));
    two.revocations.undo(billing);
    expect(two.bundles.refusalOf(billing, certificates)).toContain("serial number");
    const three = createTestTrustDomain({ clock, revocationStore: openRevocationStore(directory) });
    expect(three.registry.isRevoked(billing)).toBe(false);
  });

  it("does not start from a list that is damaged or that others could have written", () => {
    const directory = join(base, "damaged");
    const store = openRevocationStore(directory);
    const path = join(directory, "revocations.json");
    store.save({ identities: [], certificates: [] });
    const good = readFileSync(path, "utf8");
    for (const bad of [
      "",
      "{",
      '{"version":1}',
      good.replace("[]", '[{"id":"no id","since":"2026-01-01T00:00:00Z"}]'),
    ]) {
      writeFileSync(path, bad);
      expect(() => openRevocationStore(directory).load()).toThrow(coded("revocations-corrupt"));
    }
    writeFileSync(path, good);
    expect(openRevocationStore(directory).load().identities).toEqual([]);
    chmodSync(path, 0o644);
    expect(() => openRevocationStore(directory).load()).toThrow(coded("key-store-mode"));
  });

  it("is in force although it cannot be kept; what cannot be kept is not given back", () => {
    const clock = createTestClock();
    let writable = false;
    const revocationStore = {
      load: () => ({ identities: [], certificates: [] }),
      save() {
        if (!writable) throw new Error("disk full");
      },
    };
    const domain = createTestTrustDomain({ clock, revocationStore });
    expect(() => domain.revocations.revoke(billing, undefined, [])).toThrow("disk full");
    expect(domain.registry.isRevoked(billing)).toBe(true);
    expect(() => domain.revocations.undo(billing)).toThrow("disk full");
    expect(domain.registry.isRevoked(billing)).toBe(true);
    writable = true;
    domain.revocations.undo(billing);
    expect(domain.registry.isRevoked(billing)).toBe(false);
  });
});

describe("revocation list", () => {
  it(`${verifies("XR-13")} is DER signed by the authority, and openssl refuses exactly what it lists`, () => {
    const domain = createTestTrustDomain({ clock: createTestClock(Date.now()) });
    const { keeper, bundles, authority, clock } = domain;
    const root = authority.active.x509Certificate;
    const [bad] = keeper.x509Svid(billing).certificates;
    const [good] = keeper.x509Svid(planner).certificates;
    if (bad === undefined || good === undefined) throw new Error("no certificate");
    expect(opensslVerify(root, bad, bundles.revocationLists(), clock.now())).toContain("OK");
    const before = bundles.revocationLists();
    expect(bundles.revocationLists()).toBe(before);
    let told = 0;
    bundles.onBundleChange(() => {
      told += 1;
    });
    revoke(domain, billing);
    expect(told).toBe(1);
    const lists = bundles.revocationLists();
    expect(lists).not.toBe(before);
    expect(opensslVerify(root, bad, lists, clock.now())).toContain("certificate revoked");
    expect(opensslVerify(root, good, lists, clock.now())).toContain("OK");
    const [list] = lists;
    const text = openssl(
      ...["crl", "-inform", "DER", "-in", file("list.der", list ?? Buffer.alloc(0)), "-noout", "-text"],
      ...["-CAfile", file("root.pem", pem(root))],
    );
    expect(text).toContain("Version 2");
    expect(text).toContain("CRL Number");
    expect(text.match(/Serial Number:/g)).toHaveLength(1);
  });

  it(`${verifies("XR-13")} there is one of each authority whose SVIDs are about; numbers grow`, () => {
    const domain = createTestTrustDomain({ clock: createTestClock(Date.now()) });
    const { keeper, bundles, authority, clock } = domain;
    const first = authority.active.x509Certificate;
    const [bad] = keeper.x509Svid(billing).certificates;
    authority.rotate();
    const [good] = keeper.x509Svid(planner).certificates;
    revoke(domain, billing);
    const lists = bundles.revocationLists();
    expect(lists).toHaveLength(2);
    expect(opensslVerify(first, bad ?? Buffer.alloc(0), lists, clock.now())).toContain("certificate revoked");
    expect(opensslVerify(authority.active.x509Certificate, good ?? Buffer.alloc(0), lists, clock.now())).toContain(
      "OK",
    );
    const numberOf = (der: Buffer) => {
      const text = openssl("crl", "-inform", "DER", "-in", file("n.der", der), "-noout", "-crlnumber");
      return BigInt(text.trim().replace("crlNumber=", ""));
    };
    const [one] = authority.revocationLists();
    const [two] = authority.revocationLists();
    expect(numberOf(two ?? Buffer.alloc(0))).toBeGreaterThan(numberOf(one ?? Buffer.alloc(0)));
  });

  it(`${verifies("XR-13")} after a restart there is still one of each authority in the bundle: of old ones, whose keys are gone, the last`, () => {
    const clock = createTestClock(Date.now());
    const revocationStore = openRevocationStore(join(base, "restarted"));
    const keyStore = keptInMemory();
    const identities = ["billing", "planner", "other"].map((name) => identity(`agents/${name}`));
    const one = createTestTrustDomain({ clock, keyStore, revocationStore, identities });
    const first = one.authority.active.x509Certificate;
    const [before] = one.keeper.x509Svid(billing).certificates;
    const [after] = one.keeper.x509Svid(planner).certificates;
    const [good] = one.keeper.x509Svid(other).certificates;
    // One is revoked while its authority signs, one when it is old already.
    revoke(one, billing);
    one.authority.rotate();
    revoke(one, planner);
    one.authority.close();
    one.revocations.close();
    const two = createTestTrustDomain({ clock, keyStore, revocationStore, identities });
    const lists = two.bundles.revocationLists();
    expect(lists).toHaveLength(two.authority.x509Authorities.length);
    const verdict = (leaf: Buffer = Buffer.alloc(0)) => opensslVerify(first, leaf, lists, clock.now());
    expect(verdict(before)).toContain("certificate revoked");
    expect(verdict(after)).toContain("certificate revoked");
    expect(verdict(good)).toContain("OK");
    // The last one is current until its authority ends, and gone with it.
    const ends = lists.map((der, index) => {
      const said = openssl("crl", "-inform", "DER", "-in", file(`end-${index}.der`, der), "-noout", "-nextupdate");
      return Date.parse(said.trim().replace("nextUpdate=", ""));
    });
    expect(ends).toEqual([two.authority.active.notAfter, new X509Certificate(first).validToDate].map(Number));
    clock.advance(25 * HOUR);
    expect(two.bundles.revocationLists()).toHaveLength(1);
  });
});
