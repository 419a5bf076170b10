import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createKeptJwtSvids, type KeptJwtSvidsOptions } from "../../src/identity/kept-jwt-svids.js";
import { parseAndValidateJwtSvid } from "../../src/spiffe/jwt-svid.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { runs } from "../properties.js";
import { createTestTrustDomain, identity, shop } from "./test-trust-domain.js";

const billing = SpiffeId.of(shop, "agents/billing");
const planner = SpiffeId.of(shop, "agents/planner");
const SECOND = 1_000;
const HALF_LIFE = 150 * SECOND;

type Domain = ReturnType<typeof createTestTrustDomain>;

async function tokenOf({ keeper }: Domain, audiences: readonly string[] = ["orders"], id = billing): Promise<string> {
  return (await keeper.jwtSvid(id, audiences)).token;
}

function validated({ bundles, clock }: Domain, token: string, audience: string) {
  return parseAndValidateJwtSvid(token, audience, (td) => bundles.jwtBundle(td), new Date(clock.now()));
}

function issues({ audit }: Domain): number {
  return audit.entries.filter(({ kind, fields }) => kind === "svid.issued" && fields.type === "jwt").length;
}

/** The tokens of the test trust domain, made of parts that the test changes. */
function keptOf(domain: Domain, parts: Partial<KeptJwtSvidsOptions> = {}) {
  const { authority, registry, clock, audit } = domain;
  const options = { authority, registry, clock, audit, lifetimes: () => ({ jwtSeconds: 300 }), ...parts };
  const kept = createKeptJwtSvids(options);
  const whose = registry.find("agents/billing") ?? identity("agents/billing");
  return { ...kept, token: (audiences = ["orders"]) => kept.of(whose, audiences, []).svid.token };
}

describe("a JWT-SVID", () => {
  it("is handed out again until half of its life is over, and says each time whether it was", async () => {
    const domain = createTestTrustDomain();
    const handed: [string, boolean][] = [];
    const fetch = () =>
      domain.keeper.jwtSvid(billing, ["orders"], [], async ({ token }, again) => void handed.push([token, again]));
    await fetch();
    domain.clock.jump(HALF_LIFE - 1);
    await fetch();
    domain.clock.jump(1);
    await fetch();
    const [first, second, third] = handed.map(([token]) => token);
    expect(handed.map(([, again]) => again)).toEqual([false, true, false]);
    expect(second).toBe(first);
    expect(third).not.toBe(first);
    expect(issues(domain)).toBe(2);
  });

  it("is not handed out for other audiences, in another order, or whose text reads alike, nor for another identity or other launchers", async () => {
    const domain = createTestTrustDomain();
    const lists = [["a", "b"], ["b", "a"], ["a"], ["a,b"], ["a\nb"], ['a","b'], ["a b"], ["a", "b", "b"], [" a"]];
    const tokens: string[] = [];
    for (const list of lists) tokens.push(await tokenOf(domain, list));
    tokens.push(await tokenOf(domain, ["a", "b"], planner));
    const lead = "spiffe://shop.local/agents/lead";
    for (const chain of [[lead], [lead, lead]]) {
      tokens.push((await domain.keeper.jwtSvid(billing, ["a"], chain)).token);
      expect(domain.audit.entries.at(-1)?.fields.launchedBy).toEqual(chain);
      expect((await domain.keeper.jwtSvid(billing, ["a"], chain)).token).toBe(tokens.at(-1));
    }
    expect(new Set(tokens).size).toBe(tokens.length);
    for (const [index, list] of lists.entries()) {
      expect(await tokenOf(domain, list)).toBe(tokens[index]);
      expect(validated(domain, tokens[index] ?? "", list[0] ?? "").audience).toEqual(list);
    }
  });

  it("is signed anew by the authority that signs next, and again after the old one was tainted", async () => {
    const domain = createTestTrustDomain();
    const { authority } = domain;
    const before = await tokenOf(domain);
    const old = authority.active.keyId;
    authority.prepare();
    expect(await tokenOf(domain)).toBe(before);
    authority.activate({ hurried: true });
    const after = await tokenOf(domain);
    expect(after).not.toBe(before);
    authority.taint(old);
    authority.revoke(old);
    expect(await tokenOf(domain)).toBe(after);
    expect(validated(domain, after, "orders").id.equals(billing)).toBe(true);
    expect(() => validated(domain, before, "orders")).toThrow();
  });

  it("is not handed out while its identity is revoked, nor afterwards", async () => {
    const domain = createTestTrustDomain();
    const before = await tokenOf(domain);
    expect(await tokenOf(domain)).toBe(before);
    domain.revocations.revoke(billing, undefined, []);
    await expect(tokenOf(domain)).rejects.toThrow(expect.objectContaining({ code: "identity-revoked" }));
    domain.revocations.undo(billing);
    expect(await tokenOf(domain)).not.toBe(before);
  });

  it("is signed anew when the configuration has changed, with the new hint", async () => {
    const domain = createTestTrustDomain();
    const before = await tokenOf(domain);
    domain.registry.update({ identities: [identity("agents/billing", { hint: "new" })] }, { identities: {} });
    const { token, hint } = await domain.keeper.jwtSvid(billing, ["orders"]);
    expect([token === before, hint]).toEqual([false, "new"]);
    domain.registry.update({ identities: [] }, { identities: {} });
    await expect(tokenOf(domain)).rejects.toThrow(expect.objectContaining({ code: "identity-unknown" }));
  });

  it("is signed anew with another lifetime or another issuer", () => {
    const domain = createTestTrustDomain();
    let jwtSeconds = 300;
    let issuer: string | undefined;
    const kept = keptOf(domain, { lifetimes: () => ({ jwtSeconds }), jwtIssuer: () => issuer });
    const first = kept.token();
    expect(kept.token()).toBe(first);
    jwtSeconds = 60;
    const short = kept.token();
    const { claims } = validated(domain, short, "orders");
    expect(Number(claims.exp) - Number(claims.iat)).toBe(60);
    issuer = "https://oidc.shop.local";
    expect(validated(domain, kept.token(), "orders").claims.iss).toBe(issuer);
    kept.close();
  });

  it("is signed anew once a launch as its identity has ended, and only those of that identity", async () => {
    const domain = createTestTrustDomain();
    const [own, other] = [await tokenOf(domain), await tokenOf(domain, ["orders"], planner)];
    domain.keeper.forgetJwtSvids("agents/billing");
    expect(await tokenOf(domain)).not.toBe(own);
    expect(await tokenOf(domain, ["orders"], planner)).toBe(other);
  });

  it.each([-1, -1_000, -HALF_LIFE, -86_400 * SECOND, HALF_LIFE, 86_400 * SECOND])(
    "is signed anew where the clock, after a jump of %i ms, is not between its issue and the half of its life",
    async (jump) => {
      const domain = createTestTrustDomain();
      const before = await tokenOf(domain);
      domain.clock.jump(jump);
      const after = await tokenOf(domain);
      expect(after).not.toBe(before);
      expect(validated(domain, after, "orders").id.equals(billing)).toBe(true);
    },
  );

  it("is kept up to a number and a length; the oldest goes first", () => {
    const domain = createTestTrustDomain();
    const kept = keptOf(domain);
    const tokens = Array.from({ length: 1_000 }, (_, index) => kept.token([`a${index}`]));
    expect([kept.token(["a0"]), kept.token(["a999"])]).toEqual([tokens[0], tokens[999]]);
    kept.token(["one more"]);
    expect([kept.token(["a1"]), kept.token(["a999"])]).toEqual([tokens[1], tokens[999]]);
    expect(kept.token(["a0"])).not.toBe(tokens[0]);
    const long = ["x".repeat(4_096)];
    expect(kept.token(long)).not.toBe(kept.token(long));
    const shorter = ["x".repeat(2_048)];
    expect(kept.token(shorter)).toBe(kept.token(shorter));
    kept.close();
  });

  it("that could not be recorded is handed to nobody, also not to who asked meanwhile, and not again", async () => {
    const domain = createTestTrustDomain();
    const outcomes: { resolve: () => void; reject: (thrown: unknown) => void }[] = [];
    const held = keptOf(domain, {
      audit: {
        appendInTurn: () =>
          new Promise((resolve, reject) => {
            outcomes.push({ resolve: () => resolve({ sequence: 0, hash: "" }), reject });
          }),
      },
    });
    const whose = identity("agents/billing");
    const [first, meanwhile] = [held.of(whose, ["orders"], []), held.of(whose, ["orders"], [])];
    expect([first.again, meanwhile.again, meanwhile.svid.token]).toEqual([false, true, first.svid.token]);
    outcomes[0]?.reject(new Error("the disk is full"));
    for (const { recorded } of [first, meanwhile]) {
      await expect(recorded).rejects.toThrow(expect.objectContaining({ code: "not-ready" }));
    }
    const next = held.of(whose, ["orders"], []);
    expect(next.svid.token).not.toBe(first.svid.token);
    outcomes[1]?.resolve();
    await next.recorded;
    expect(held.of(whose, ["orders"], [])).toEqual({ svid: next.svid, again: true, recorded: undefined });
    held.close();
  });

  it("whatever happens, is valid for at least half of its life, of the authority that signs, and signed after all that ended the last one", async () => {
    const happening = fc.oneof(
      { weight: 4, arbitrary: fc.record({ kind: fc.constant("fetch" as const), list: fc.nat(2), who: fc.boolean() }) },
      fc.record({ kind: fc.constant("advance" as const), ms: fc.integer({ min: 0, max: 400 * SECOND }) }),
      fc.record({ kind: fc.constant("jump" as const), ms: fc.integer({ min: -400 * SECOND, max: 400 * SECOND }) }),
      fc.record({ kind: fc.constantFrom("rotate" as const, "revoke" as const, "configure" as const, "end" as const) }),
    );
    const audiences = [["orders"], ["ledger", "orders"], ["orders", "ledger"]] as const;
    await fc.assert(
      fc.asyncProperty(fc.array(happening, { maxLength: 12 }), async (happenings) => {
        const domain = createTestTrustDomain();
        const dead = new Set<string>();
        const seen = new Set<string>();
        const bury = () => seen.forEach((token) => void dead.add(token));
        let revision = 0;
        for (const one of happenings) {
          if (one.kind === "advance") domain.clock.advance(one.ms);
          else if (one.kind === "jump") domain.clock.jump(one.ms);
          else if (one.kind === "fetch") {
            const [id, list] = [one.who ? billing : planner, audiences[one.list] ?? []];
            const token = await tokenOf(domain, list, id);
            expect(dead.has(token)).toBe(false);
            seen.add(token);
            const { claims, audience } = validated(domain, token, "orders");
            expect([claims.sub, audience]).toEqual([String(id), list]);
            expect(Number(claims.exp) * SECOND - domain.clock.now()).toBeGreaterThanOrEqual(HALF_LIFE - SECOND);
            const header = JSON.parse(String(Buffer.from(token.split(".")[0] ?? "", "base64url")));
            expect(header.kid).toBe(domain.authority.active.jwt.keyId);
          } else {
            bury();
            if (one.kind === "rotate") domain.authority.rotate();
            else if (one.kind === "configure") {
              const hint = `hint ${++revision}`;
              const identities = ["agents/billing", "agents/planner"].map((name) => identity(name, { hint }));
              domain.registry.update({ identities }, { identities: {} });
            } else if (one.kind === "revoke") {
              domain.revocations.revoke(billing, undefined, []);
              domain.revocations.undo(billing);
            } else for (const name of ["agents/billing", "agents/planner"]) domain.keeper.forgetJwtSvids(name);
          }
        }
        domain.keeper.close();
        domain.authority.close();
      }),
      { numRuns: runs(100) },
    );
  });
});
