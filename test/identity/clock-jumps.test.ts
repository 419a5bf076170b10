import { describe, expect, it } from "vitest";
import type { X509Svid } from "../../src/identity/svid-source.js";
import { watchClock } from "../../src/platform/clock-watch.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { verifyX509Svid } from "../../src/spiffe/x509-svid.js";
import { createTestClock, createTestTrustDomain, identity, shop } from "./test-trust-domain.js";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

describe("watch of the clock", () => {
  it.each([30 * MINUTE, 400 * DAY, -MINUTE, -3 * DAY])(
    "tells of a jump of %i ms within a second of running time, once",
    (by) => {
      const clock = createTestClock();
      const jumps: number[] = [];
      const stop = watchClock({ clock, monotonic: () => clock.monotonic(), onJump: (ms) => jumps.push(ms) });
      clock.advance(HOUR);
      expect(jumps).toEqual([]);
      clock.jump(by);
      clock.advance(1_000);
      expect(jumps).toEqual([by]);
      clock.advance(MINUTE);
      expect(jumps).toEqual([by]);
      expect(clock.pending).toBe(1);
      stop();
      expect(clock.pending).toBe(0);
    },
  );

  it("takes slewing for no jump", () => {
    const clock = createTestClock();
    const jumps: number[] = [];
    watchClock({ clock, monotonic: () => clock.monotonic(), onJump: (ms) => jumps.push(ms) });
    for (let second = 0; second < 600; second++) {
      clock.jump(1);
      clock.advance(1_000);
    }
    expect(jumps).toEqual([]);
  });
});

/** As the daemon wires it. */
function running(names: readonly string[]) {
  const domain = createTestTrustDomain({ identities: names.map((name) => identity(name)) });
  const { clock, authority, keeper, revocations } = domain;
  watchClock({
    clock,
    monotonic: () => clock.monotonic(),
    onJump: () => {
      for (const one of [authority, revocations, keeper]) one.wake();
    },
  });
  return domain;
}

describe("after a suspend or a clock that was set", () => {
  const names = Array.from({ length: 100 }, (_, index) => `agents/a${index}`);
  const ids = names.map((name) => SpiffeId.of(shop, name));

  it.each([
    ["10 minutes of sleep", 10 * MINUTE],
    ["a night", 9 * HOUR],
    ["longer than the authority lives", 30 * HOUR],
    ["a year", 365 * DAY],
    ["back by a minute", -MINUTE],
    ["back by 30 minutes", -30 * MINUTE],
    ["back by days", -3 * DAY],
  ])("%s: within two seconds of running time every listener has a valid SVID, and no timers pile up", (_what, by) => {
    const domain = running(names);
    const { clock, keeper, bundles } = domain;
    const newest = new Map<string, X509Svid>();
    for (const id of ids) {
      newest.set(id.toString(), keeper.x509Svid(id));
      keeper.onRotation(id, (svid) => newest.set(svid.id.toString(), svid));
    }
    clock.advance(MINUTE);
    const timers = clock.pending;
    clock.jump(by);
    clock.advance(2_000);
    const now = new Date(clock.now());
    for (const { certificates, id } of newest.values()) {
      const verified = verifyX509Svid(certificates, (td) => bundles.x509Bundle(td)?.authorities, now);
      expect(verified.id.equals(id)).toBe(true);
    }
    expect(clock.pending).toBeLessThanOrEqual(timers);
    expect(domain.problems).toEqual([]);
    // And it goes on as before: half of a life later, each is replaced again.
    const then = new Map([...newest].map(([key, { serial }]) => [key, serial]));
    clock.advance(11 * MINUTE);
    for (const [key, { serial }] of newest) expect(serial).not.toBe(then.get(key));
  });

  it("what failed under a time that is gone does not wait for that time", () => {
    const domain = running(names.slice(0, 2));
    const { clock, keeper, audit } = domain;
    const [id] = ids;
    if (id === undefined) throw new Error("no id");
    keeper.x509Svid(id);
    audit.writable = false;
    clock.advance(6 * MINUTE);
    expect(domain.problems.length).toBeGreaterThan(0);
    audit.writable = true;
    const told: string[] = [];
    keeper.onRotation(id, ({ serial }) => told.push(serial));
    // The retry was planned for a moment that is now three days away.
    clock.jump(-3 * DAY);
    clock.advance(2_000);
    expect(told.length).toBeGreaterThan(0);
  });
});
