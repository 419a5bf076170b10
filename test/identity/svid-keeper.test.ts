import { describe, expect, it } from "vitest";
import { createTrustBundles } from "../../src/identity/bundles.js";
import type { X509Svid } from "../../src/identity/svid-source.js";
import { parseAndValidateJwtSvid } from "../../src/spiffe/jwt-svid.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { verifyX509Svid } from "../../src/spiffe/x509-svid.js";
import { createTestClock, createTestTrustDomain, identity, shop, type TestClock } from "./test-trust-domain.js";

const billing = SpiffeId.of(shop, "agents/billing");
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

type TestTrustDomain = ReturnType<typeof createTestTrustDomain>;

/** Verifies as a peer would, at the moment of the clock. */
function verifyNow({ authority, clock }: TestTrustDomain, svid: X509Svid) {
  const bundles = createTrustBundles(authority);
  return verifyX509Svid(svid.certificates, (td) => bundles.x509Bundle(td)?.authorities, new Date(clock.now()));
}

describe("keeper of SVIDs", () => {
  it("issues on first use, records before handing out, and keeps one key for an identity until it is due", () => {
    const domain = createTestTrustDomain();
    expect(domain.keeper.held).toEqual([]);
    const first = domain.keeper.x509Svid(billing);
    expect(domain.keeper.x509Svid(billing)).toBe(first);
    expect(verifyNow(domain, first).id.equals(billing)).toBe(true);
    const entry = domain.audit.entries.at(-1);
    expect(entry).toMatchObject({ kind: "svid.issued", fields: { spiffeId: String(billing), serial: first.serial } });
    expect(domain.keeper.held.map((one) => one.identity.name)).toEqual(["agents/billing"]);
  });

  it("refuses an identity that is not configured, where a configured one gets its SVID", async () => {
    const { keeper } = createTestTrustDomain();
    expect(() => keeper.x509Svid(SpiffeId.of(shop, "agents/other"))).toThrow(
      expect.objectContaining({ code: "identity-unknown" }),
    );
    await expect(keeper.jwtSvid(SpiffeId.of(shop, "agents/other"), ["a"])).rejects.toThrow(
      expect.objectContaining({ code: "identity-unknown" }),
    );
    expect(keeper.x509Svid(billing).id.equals(billing)).toBe(true);
  });

  it("replaces at half of life and tells the listeners of that identity", async () => {
    const domain = createTestTrustDomain();
    const rotated: X509Svid[] = [];
    const stop = domain.keeper.onRotation(billing, (svid) => rotated.push(svid));
    const first = domain.keeper.x509Svid(billing);
    domain.clock.advance(5 * MINUTE - 1_000);
    expect(rotated).toEqual([]);
    domain.clock.advance(2_000);
    expect(rotated).toHaveLength(1);
    expect(rotated[0]?.serial).not.toBe(first.serial);
    expect(domain.keeper.x509Svid(billing)).toBe(rotated[0]);
    expect(domain.audit.entries.at(-1)?.kind).toBe("svid.rotated");
    stop();
    domain.clock.advance(6 * MINUTE);
    expect(rotated).toHaveLength(1);
  });

  it.each([11 * MINUTE, 25 * HOUR, 400 * 24 * HOUR, -30 * MINUTE, -100 * 24 * HOUR])(
    "hands out a valid SVID and token after the clock jumped by %i ms",
    async (jump) => {
      const domain = createTestTrustDomain();
      const first = domain.keeper.x509Svid(billing);
      domain.clock.jump(jump);
      const next = domain.keeper.x509Svid(billing);
      expect(next.serial).not.toBe(first.serial);
      expect(verifyNow(domain, next).id.equals(billing)).toBe(true);
      const bundles = createTrustBundles(domain.authority);
      const { token } = await domain.keeper.jwtSvid(billing, ["orders"]);
      const now = new Date(domain.clock.now());
      expect(parseAndValidateJwtSvid(token, "orders", (td) => bundles.jwtBundle(td), now).id.equals(billing)).toBe(
        true,
      );
    },
  );

  it("tells listeners within seconds of running time after a suspend that no timer saw", () => {
    const domain = createTestTrustDomain();
    domain.keeper.x509Svid(billing);
    const rotated: X509Svid[] = [];
    domain.keeper.onRotation(billing, (svid) => rotated.push(svid));
    domain.clock.jump(25 * HOUR);
    domain.clock.advance(6_000);
    expect(rotated.length).toBeGreaterThan(0);
    expect(verifyNow(domain, rotated.at(-1) as X509Svid).id.equals(billing)).toBe(true);
  });

  it("replaces every SVID when the authority is rotated, and the old ones stay valid meanwhile", () => {
    const names = Array.from({ length: 50 }, (_, index) => `agents/a${index}`);
    const domain = createTestTrustDomain({ identities: names.map((name) => identity(name)) });
    const before = names.map((name) => domain.keeper.x509Svid(SpiffeId.of(shop, name)));
    domain.authority.rotate();
    for (const svid of before) verifyNow(domain, svid);
    domain.clock.advance(1_000);
    const after = domain.keeper.held.map((one) => one.svid);
    expect(after).toHaveLength(50);
    expect(after.filter((svid) => before.includes(svid))).toEqual([]);
  });

  it("replaces many a few at a time, those that somebody listens to first, and finds one that is due among many that are not", () => {
    const count = 1_200;
    const names = Array.from({ length: count }, (_, index) => `agents/a${index}`);
    const turns = createTestClock();
    const replaced: string[][] = [];
    const clock: TestClock = {
      ...turns,
      after: (delayMs, callback) =>
        turns.after(delayMs, () => {
          replaced.push([]);
          callback();
        }),
    };
    const domain = createTestTrustDomain({ identities: names.map((name) => identity(name)), clock });
    for (const name of names) domain.keeper.x509Svid(SpiffeId.of(shop, name));
    const last = SpiffeId.of(shop, names.at(-1) ?? "");
    domain.keeper.onRotation(last, () => {});
    domain.keeper.onChange(({ change, identity: { name } }) => change === "rotated" && replaced.at(-1)?.push(name));

    domain.authority.rotate();
    clock.advance(1_000);
    expect(replaced.flat()[0]).toBe(names.at(-1));
    expect(replaced.flat().sort()).toEqual([...names].sort());
    expect(Math.max(...replaced.map((ofTurn) => ofTurn.length))).toBeLessThanOrEqual(16);

    // All are replaced together at half of life; one that was replaced later than the others is due by itself.
    clock.advance(2 * MINUTE);
    replaced.length = 0;
    const middle = names[count / 2] ?? "";
    domain.keeper.rotate(SpiffeId.of(shop, middle));
    clock.advance(4 * MINUTE);
    expect(replaced.flat()).toHaveLength(count - 1);
    clock.advance(1.5 * MINUTE);
    expect(replaced.flat().at(-1)).toBe(middle);
    expect(replaced.flat()).toHaveLength(count);
    expect(domain.problems).toEqual([]);
  });

  it("keeps the valid SVID while the record cannot be written, and denies once it has expired", async () => {
    const domain = createTestTrustDomain();
    const first = domain.keeper.x509Svid(billing);
    domain.audit.writable = false;
    domain.clock.advance(6 * MINUTE);
    expect(domain.keeper.x509Svid(billing)).toBe(first);
    expect(domain.problems.length).toBeGreaterThan(0);
    domain.clock.advance(5 * MINUTE);
    expect(() => domain.keeper.x509Svid(billing)).toThrow(expect.objectContaining({ code: "not-ready" }));
    await expect(domain.keeper.jwtSvid(billing, ["orders"])).rejects.toThrow(
      expect.objectContaining({ code: "not-ready" }),
    );
    domain.audit.writable = true;
    verifyNow(domain, domain.keeper.x509Svid(billing));
  });

  it("follows the configuration: a removed identity is dropped, changed DNS names give a new certificate", () => {
    const domain = createTestTrustDomain();
    const changes: string[] = [];
    domain.keeper.onChange(({ change, identity: { name } }) => changes.push(`${change} ${name}`));
    const first = domain.keeper.x509Svid(billing);
    domain.keeper.x509Svid(SpiffeId.of(shop, "agents/planner"));
    domain.registry.update(
      { identities: [identity("agents/billing", { dnsNames: ["billing.local"] })] },
      { identities: {} },
    );
    const next = domain.keeper.x509Svid(billing);
    expect(next.serial).not.toBe(first.serial);
    expect(verifyNow(domain, next).leaf.subjectAltName).toContain("DNS:billing.local");
    expect(() => domain.keeper.x509Svid(SpiffeId.of(shop, "agents/planner"))).toThrow();
    expect(changes).toEqual([
      "issued agents/billing",
      "issued agents/planner",
      "removed agents/planner",
      "rotated agents/billing",
    ]);
  });

  it("rotates one identity or all of them by command", async () => {
    const domain = createTestTrustDomain();
    const first = domain.keeper.x509Svid(billing);
    expect(domain.keeper.rotate(billing)).toBe("agents/billing");
    expect(domain.keeper.x509Svid(billing).serial).not.toBe(first.serial);
    expect(await domain.keeper.rotateAll()).toEqual(["agents/billing"]);
  });

  it("rotates all by command a few in one turn, so that others have their turns in between, and leaves out what is gone by then", async () => {
    const identities = Array.from({ length: 100 }, (_, index) => identity(`agents/agent-${index}`));
    const { keeper, registry, clock, audit } = createTestTrustDomain({ identities });
    for (const { id } of identities) keeper.x509Svid(id);
    const replaced = () => audit.entries.filter(({ kind }) => kind === "svid.rotated").length;
    let done = false;
    const rotating = keeper.rotateAll().finally(() => {
      done = true;
    });
    const seen = [replaced()];
    // The last of them goes while the others are replaced.
    registry.update({ identities: identities.slice(0, -1) }, { identities: {} });
    while (!done) {
      // Somebody else's turn, then the next one of the rotation.
      await new Promise((resolve) => setImmediate(resolve));
      clock.advance(1);
      seen.push(replaced());
    }
    const steps = seen.map((count, turn) => count - (seen[turn - 1] ?? 0));
    expect(Math.max(...steps)).toBeLessThanOrEqual(16);
    expect(steps.filter((step) => step > 0).length).toBeGreaterThanOrEqual(6);
    expect(await rotating).toEqual(identities.slice(0, -1).map(({ name }) => name));
    expect(replaced()).toBe(99);
  });

  it("JR-1 JR-2 JR-5 a token holds all requested audiences and the subject; none asked for is refused", async () => {
    const domain = createTestTrustDomain();
    const bundles = createTrustBundles(domain.authority);
    const { token, expiresAt } = await domain.keeper.jwtSvid(billing, ["orders", "payments"]);
    expect(expiresAt.getTime() - domain.clock.now()).toBe(300_000);
    const valid = parseAndValidateJwtSvid(
      token,
      "payments",
      (td) => bundles.jwtBundle(td),
      new Date(domain.clock.now()),
    );
    expect(valid.claims).toMatchObject({ sub: String(billing), aud: ["orders", "payments"] });
    expect(domain.audit.entries.at(-1)).toMatchObject({
      kind: "svid.issued",
      fields: { type: "jwt", audience: ["orders", "payments"] },
    });
    await expect(domain.keeper.jwtSvid(billing, [])).rejects.toThrow(
      expect.objectContaining({ code: "audience-missing" }),
    );
  });
});
