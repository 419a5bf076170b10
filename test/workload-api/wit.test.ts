import { status } from "@grpc/grpc-js";
import { calculateJwkThumbprint, createLocalJWKSet, importJWK, jwtVerify, SignJWT } from "jose";
import { afterEach, describe, expect, it } from "vitest";
import { TrustDomain } from "../../src/spiffe/spiffe-id.js";
import type { WITSVID } from "../../src/workload-api/generated/workload.js";
import { verifies } from "../requirements/verifies.js";
import { createManualClock } from "./manual-clock.js";
import { receive } from "./received.js";
import { identity, type RunningApi, type RunOptions, runApi, secure, trustDomain } from "./running-api.js";

let running: RunningApi | undefined;
afterEach(async () => {
  await running?.close();
  running = undefined;
});

const billing = identity("agents/billing", undefined, "internal");
const analyst = identity("agents/analyst");
const somebodyElse = identity("agents/somebody-else", { uid: 4_000_000_000 });

async function start(options: Partial<RunOptions> = {}): Promise<RunningApi> {
  running = await runApi({ identities: [billing, analyst, somebodyElse], ...options });
  return running;
}

function follow(api: RunningApi, spiffeId = "") {
  return receive(api.client().fetchWitsvid({ spiffeId }, secure()));
}

async function keysOf(api: RunningApi) {
  const stream = receive(api.client().fetchWitBundles({}, secure()));
  const { bundles } = await stream.next();
  stream.cancel();
  return JSON.parse(bundles[`spiffe://${trustDomain}`] ?? "null") as {
    keys: { kty: string; kid: string; use: string }[];
  };
}

/** jose verifies the token with our bundle: an outside judge of algorithm, signature, `typ` and lifetime. */
async function verified(api: RunningApi, { witSvid }: WITSVID, currentDate = new Date()) {
  // jose takes a key whose `use` is not `sig` for one that does not sign.
  const keys = (await keysOf(api)).keys.map(({ use: _, ...key }) => key);
  return jwtVerify(witSvid, createLocalJWKSet({ keys }), {
    algorithms: ["ES256"],
    typ: "wit+jwt",
    currentDate,
    requiredClaims: ["sub", "exp", "cnf"],
  });
}

describe("FetchWITSVID (Incubating)", () => {
  it(`${verifies("WR-2")} gives a token for each identity, default first, with its hint`, async () => {
    const stream = follow(await start());
    const { svids } = await stream.next();
    stream.cancel();
    expect(svids.map(({ spiffeId, hint }) => [spiffeId, hint])).toEqual([
      ["spiffe://shop.local/agents/billing", "internal"],
      ["spiffe://shop.local/agents/analyst", ""],
    ]);
  });

  it(`${verifies("WR-2")} gives exactly the one named, to whom it belongs`, async () => {
    const api = await start();
    const stream = follow(api, "spiffe://shop.local/agents/analyst");
    const { svids } = await stream.next();
    stream.cancel();
    expect(svids.map(({ spiffeId }) => spiffeId)).toEqual(["spiffe://shop.local/agents/analyst"]);
    for (const [id, code] of [
      ["spiffe://shop.local/agents/somebody-else", status.PERMISSION_DENIED],
      ["https://shop.local/agents/analyst", status.INVALID_ARGUMENT],
    ] as const) {
      expect((await follow(api, id).ended).code).toBe(code);
    }
    api.configure([somebodyElse]);
    expect((await follow(api).ended).code).toBe(status.PERMISSION_DENIED);
    expect((await receive(api.client().fetchWitBundles({}, secure())).ended).code).toBe(status.PERMISSION_DENIED);
  });

  it(`${verifies("WR-3", "WR-4")} holds what the standard asks for, and the key proves possession`, async () => {
    const api = await start();
    const stream = follow(api);
    const [svid] = (await stream.next()).svids;
    stream.cancel();
    if (svid === undefined) throw new Error("no WIT-SVID");
    const { payload, protectedHeader } = await verified(api, svid);
    expect(protectedHeader).toEqual({ alg: "ES256", typ: "wit+jwt", kid: expect.stringMatching(/^[\w-]{43}$/) });
    expect(payload.sub).toBe(svid.spiffeId);
    expect(payload).not.toHaveProperty("aud");
    expect(payload).not.toHaveProperty("iss");
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBe(600);

    const { jwk } = payload.cnf as { jwk: Record<string, string> };
    const privateKey = JSON.parse(svid.witSvidKey) as Record<string, string>;
    expect(jwk).toMatchObject({ kty: "EC", crv: "P-256", alg: "ES256" });
    expect(jwk).not.toHaveProperty("d");
    expect(privateKey).toMatchObject({ ...jwk, d: expect.any(String) });
    expect(await calculateJwkThumbprint(privateKey)).toBe(await calculateJwkThumbprint(jwk));
    const proof = await new SignJWT({}).setProtectedHeader({ alg: "ES256" }).sign(await importJWK(privateKey));
    await expect(jwtVerify(proof, await importJWK(jwk))).resolves.toBeDefined();
  });

  it(`${verifies("WR-3")} gives each identity a key of its own`, async () => {
    const stream = follow(await start());
    const { svids } = await stream.next();
    stream.cancel();
    expect(new Set(svids.map(({ witSvidKey }) => JSON.parse(witSvidKey).x)).size).toBe(2);
  });

  it(`${verifies("WR-2")} sends the next one at half life, and after a change of the authority, with another key`, async () => {
    const clock = createManualClock();
    const api = await start({ identities: [billing], clock });
    const stream = follow(api);
    const [first] = (await stream.next()).svids;
    clock.advance(600_000 * 0.56);
    const [second] = (await stream.next()).svids;
    api.authority.rotate();
    clock.advance(0);
    const [third] = (await stream.next()).svids;
    stream.cancel();
    const all = [first, second, third].filter((svid) => svid !== undefined);
    expect(new Set(all.map(({ witSvidKey }) => witSvidKey)).size).toBe(3);
    const kids = new Set<unknown>();
    for (const svid of all) kids.add((await verified(api, svid, new Date(clock.now()))).protectedHeader.kid);
    expect(kids.size).toBe(2);
  });

  it(`${verifies("ST-5", "ST-6", "ST-8")} omits an identity that was removed, ends with the last one, and holds nothing afterwards`, async () => {
    const clock = createManualClock();
    const api = await start({ clock });
    const stream = follow(api);
    expect((await stream.next()).svids).toHaveLength(2);
    api.configure([analyst]);
    expect((await stream.next()).svids.map(({ spiffeId }) => spiffeId)).toEqual(["spiffe://shop.local/agents/analyst"]);
    api.configure([somebodyElse]);
    expect((await stream.ended).code).toBe(status.PERMISSION_DENIED);
    expect(api.api.open.streams).toBe(0);
  });

  it("records each token before it leaves, by its jti and without it, and gives none that it cannot record", async () => {
    const api = await start({ identities: [billing] });
    const stream = follow(api);
    const [svid] = (await stream.next()).svids;
    stream.cancel();
    if (svid === undefined) throw new Error("no WIT-SVID");
    const { payload } = await verified(api, svid);
    const fields = { type: "wit", tokenId: payload.jti, spiffeId: svid.spiffeId };
    const wits = api.record.entries.filter((entry) => entry.fields.type === "wit");
    expect(wits).toMatchObject([
      { kind: "svid.issued", fields },
      { kind: "svid.delivered", fields: { ...fields, pid: process.pid } },
    ]);
    expect(JSON.stringify(api.record.entries)).not.toContain(svid.witSvid.split(".")[2]);
    expect(JSON.stringify(api.record.entries)).not.toContain(JSON.parse(svid.witSvidKey).d);
    api.record.writable = false;
    expect((await follow(api).ended).code).toBe(status.UNAVAILABLE);
  });
});

describe("FetchWITBundles (Incubating)", () => {
  it(`${verifies("WR-4")} gives JWK Sets of public WIT keys with a kid each, and again when the authority changes`, async () => {
    const api = await start();
    const stream = receive(api.client().fetchWitBundles({}, secure()));
    const before = JSON.parse((await stream.next()).bundles["spiffe://shop.local"] ?? "");
    api.authority.rotate();
    const after = JSON.parse((await stream.next()).bundles["spiffe://shop.local"] ?? "");
    stream.cancel();
    expect([before.keys.length, after.keys.length]).toEqual([1, 2]);
    expect(new Set(after.keys.map(({ kid }: { kid: string }) => kid)).size).toBe(2);
    for (const key of after.keys) {
      expect(key).toMatchObject({ kty: "EC", crv: "P-256", use: "wit-svid", alg: "ES256" });
      expect(key).not.toHaveProperty("d");
    }
    const jwt = receive(api.client().fetchJwtBundles({}, secure()));
    const jwtKids = JSON.parse(String((await jwt.next()).bundles["spiffe://shop.local"])).keys;
    jwt.cancel();
    expect(jwtKids.map(({ kid }: { kid: string }) => kid)).not.toContain(after.keys[0].kid);
  });

  it(`${verifies("WR-4")} leaves out what has no kid or shares it with another key, of a foreign bundle too`, async () => {
    const domain = TrustDomain.parse("partner.example");
    const keys = [
      { kty: "EC", kid: "twice" },
      { kty: "RSA", kid: "twice" },
      { kty: "EC" },
      { kty: "EC", kid: "alone" },
    ];
    const api = await start({
      change: (d) => ({
        ...d,
        jwtBundles: {
          trustDomains: [trustDomain, domain],
          refusalOfToken: () => undefined,
          jwtBundle: (wanted) => d.jwtBundles.jwtBundle(wanted),
          onBundleChange: (listener) => d.jwtBundles.onBundleChange(listener),
        },
        witBundles: {
          witBundle: (wanted) => (wanted.equals(domain) ? { keys } : d.witBundles.witBundle(wanted)),
          onBundleChange: (listener) => d.witBundles.onBundleChange(listener),
        },
      }),
    });
    const stream = receive(api.client().fetchWitBundles({}, secure()));
    const { bundles } = await stream.next();
    stream.cancel();
    expect(JSON.parse(bundles["spiffe://partner.example"] ?? "")).toEqual({ keys: [{ kty: "EC", kid: "alone" }] });
  });
});
