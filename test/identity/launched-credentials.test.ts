import { decodeJwt } from "jose";
import { describe, expect, it } from "vitest";
import type { LiveInstances } from "../../src/identity/instances.js";
import { launchClaims, launchOfClaims } from "../../src/spiffe/launch-claims.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { createTestTrustDomain, identity, launchConfig, shop } from "./test-trust-domain.js";

const lead = "spiffe://shop.local/agents/lead";
const one = SpiffeId.of(shop, "agents/a/one");
const two = SpiffeId.of(shop, "agents/a/two");
const plain = SpiffeId.of(shop, "agents/a");

/** A trust domain in which the instances of `agents/a` live as the test says: by name, which launch it is. */
function withInstances() {
  const living = new Map([["one", "launch-1"]]);
  const live: LiveInstances = {
    hasInstance: (_, instance) => living.has(instance),
    launchOfInstance: (_, instance) => living.get(instance),
    get instances() {
      return [...living.keys()].map((instance) => ({ name: "agents/a", instance }));
    },
  };
  const identities = [
    identity("agents/a", { launch: launchConfig({ instances: true }) }),
    identity("agents/lead", { launch: launchConfig({ subagents: ["agents/a"] }) }),
  ];
  const domain = createTestTrustDomain({ identities, live });
  /** As the daemon does when it hears that a launch has ended. */
  const end = (id: SpiffeId) => {
    living.delete(id.name.split("/").at(-1) ?? "");
    domain.launched.end(id);
    domain.registry.launchesChanged();
  };
  const published = () =>
    domain.revocations
      .revokedBy(domain.authority.active.keyId)
      .map(({ serial }) => BigInt(`0x${serial.toString("hex")}`));
  return { ...domain, living, end, published };
}
const numberOf = ({ serial }: { serial: string }) => BigInt(`0x${serial}`);
const claimsOf = ({ token }: { token: string }) => decodeJwt(token);

describe("what an instance was issued", () => {
  it("is refused when it has ended, and stays so when its name is used again; what the next one is issued is good", async () => {
    const { keeper, witKeeper, bundles, living, end, clock } = withInstances();
    const [svid, token, wit] = [keeper.x509Svid(one), await keeper.jwtSvid(one, ["orders"]), witKeeper.witSvid(one)];
    const refusals = () => [
      bundles.refusalOf(one, svid.certificates),
      bundles.refusalOfToken(one, claimsOf(token)),
      bundles.refusalOfToken(one, claimsOf(wit)),
    ];
    expect(refusals()).toEqual([undefined, undefined, undefined]);
    end(one);
    for (const refusal of refusals()) expect(refusal).toContain("has ended");
    living.set("one", "launch-2");
    for (const refusal of refusals()) expect(refusal).toContain("an earlier launch");
    const [next, nextToken, nextWit] = [
      keeper.x509Svid(one),
      await keeper.jwtSvid(one, ["orders"]),
      witKeeper.witSvid(one),
    ];
    expect([next.serial === svid.serial, nextWit.tokenId === wit.tokenId]).toEqual([false, false]);
    expect([
      bundles.refusalOf(one, next.certificates),
      bundles.refusalOfToken(one, claimsOf(nextToken)),
      bundles.refusalOfToken(one, claimsOf(nextWit)),
    ]).toEqual([undefined, undefined, undefined]);
    clock.advance(1_000);
    expect(refusals()[0]).toContain("serial number");
  });

  it("is unknown to a daemon that did not issue it", () => {
    const [before, after] = [withInstances(), withInstances()];
    const { certificates } = before.keeper.x509Svid(one);
    expect(before.launched.refusalOf(one, certificates)).toBeUndefined();
    expect(after.launched.refusalOf(one, certificates)).toContain("an earlier launch");
    // Who is no instance is known by the bundle alone.
    expect(after.launched.refusalOf(plain, before.keeper.x509Svid(plain).certificates)).toBeUndefined();
  });

  it("is named in the revocation list until it expires, in one change for those that end together", () => {
    const { keeper, revocations, end, living, clock, published } = withInstances();
    living.set("two", "launch-2").set("three", "launch-3");
    const three = SpiffeId.of(shop, "agents/a/three");
    const [first, second, third] = [one, two, three].map((id) => keeper.x509Svid(id));
    if (first === undefined || second === undefined || third === undefined) throw new Error("no SVIDs");
    let changes = 0;
    revocations.onChange(() => (changes += 1));
    end(one);
    end(two);
    expect(published()).toEqual([]);
    clock.advance(200);
    expect(changes).toBe(1);
    expect(published().sort()).toEqual([numberOf(first), numberOf(second)].sort());
    expect(published()).not.toContain(numberOf(third));
    clock.advance(600_000);
    expect(published()).toEqual([]);
  });

  it("is revoked when the daemon stops, before anything is closed", () => {
    const { keeper, launched, published } = withInstances();
    const svid = keeper.x509Svid(one);
    launched.close([one]);
    expect(published()).toEqual([numberOf(svid)]);
  });
});

describe("what a token says of its holder's launch", () => {
  it("are the agents above it, as in the certificate, and nothing for whom nobody launched", async () => {
    const { keeper, witKeeper, bundles, revocations, audit } = withInstances();
    const [own, below] = [await keeper.jwtSvid(plain, ["orders"]), await keeper.jwtSvid(plain, ["orders"], [lead])];
    const [ownWit, belowWit] = [witKeeper.witSvid(plain), witKeeper.witSvid(plain, [lead])];
    expect([own, ownWit].map((each) => launchOfClaims(claimsOf(each)))).toEqual(
      [1, 2].map(() => ({ launchedBy: [], launch: undefined })),
    );
    for (const each of [below, belowWit]) expect(launchOfClaims(claimsOf(each)).launchedBy).toEqual([lead]);
    expect(Object.keys(claimsOf(own)).sort()).toEqual(["aud", "exp", "iat", "sub"]);
    expect(audit.entries.filter(({ fields }) => fields.launchedBy !== undefined)).toHaveLength(2);
    revocations.revoke(SpiffeId.parse(lead), undefined, []);
    expect(bundles.refusalOfToken(plain, claimsOf(own))).toBeUndefined();
    expect(bundles.refusalOfToken(plain, claimsOf(below))).toContain("agents/lead, which launched it, is revoked");
  });

  it("is read as agentid writes it, or the token is refused; what others write is theirs", () => {
    const written = { launchedBy: [lead, `${lead}/x`], launch: "l" };
    expect(launchOfClaims(launchClaims(written))).toEqual(written);
    expect(launchClaims({ launchedBy: [], launch: undefined })).toEqual({});
    const { launched } = withInstances();
    const wrong = [
      ...[lead, [7], ["nobody"], { 0: lead }, null].map((value) => ({ "agentid:launched_by": value })),
      { "agentid:launch": 7 },
    ];
    const foreign = SpiffeId.of(TrustDomain.parse("elsewhere.local"), "x");
    for (const claims of wrong) {
      expect(() => launched.refusalOfToken(plain, claims)).toThrow(
        expect.objectContaining({ code: "jwt-svid-malformed" }),
      );
      expect(launched.refusalOfToken(foreign, claims)).toBeUndefined();
    }
  });
});
