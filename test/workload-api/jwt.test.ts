import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { type ServiceError, status } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TrustDomain } from "../../src/spiffe/spiffe-id.js";
import type { JWTSVIDResponse, ValidateJWTSVIDResponse } from "../../src/workload-api/generated/workload.js";
import { fetchJwtSvid, type JwtDependencies } from "../../src/workload-api/jwt.js";
import { verifies } from "../requirements/verifies.js";
import { receive } from "./received.js";
import { identity, type RunningApi, runApi, secure } from "./running-api.js";

const foreign = TrustDomain.parse("partner.example");
const foreignKey = keyPair();

let running: RunningApi;
let nobody: RunningApi;
beforeAll(async () => {
  const change: NonNullable<Parameters<typeof runApi>[0]["change"]> = (d) => ({
    ...d,
    // Federation has no source yet; its place in the answers is held by a bundle source that knows a second trust domain.
    jwtBundles: {
      trustDomains: [...d.jwtBundles.trustDomains, foreign],
      jwtBundle: (domain) => (domain.equals(foreign) ? { keys: [foreignKey.jwk] } : d.jwtBundles.jwtBundle(domain)),
      onBundleChange: (listener) => d.jwtBundles.onBundleChange(listener),
    },
  });
  running = await runApi({
    identities: [
      identity("agents/billing", undefined, "internal"),
      identity("agents/analyst"),
      identity("agents/somebody-else", { uid: 4_000_000_000 }),
    ],
    change,
  });
  nobody = await runApi({ identities: [identity("agents/somebody-else", { uid: 4_000_000_000 })], change });
});
afterAll(() => Promise.all([running.close(), nobody.close()]));

type Outcome<Response> = { response: Response; code: status; details: string };

function outcome<Response>(resolve: (outcome: Outcome<Response>) => void) {
  return (error: ServiceError | null, response: Response) =>
    resolve({ response, code: error?.code ?? status.OK, details: error?.details ?? "" });
}

function fetchTokens(audience: string[], spiffeId = "", api = running): Promise<Outcome<JWTSVIDResponse>> {
  return new Promise((resolve) => {
    api.client().fetchJwtsvid({ audience, spiffeId }, secure(), outcome(resolve));
  });
}

function validate(svid: string, audience: string, api = running): Promise<Outcome<ValidateJWTSVIDResponse>> {
  return new Promise((resolve) => {
    api.client().validateJwtsvid({ svid, audience }, secure(), outcome(resolve));
  });
}

async function tokenFor(audience: string): Promise<string> {
  return (await fetchTokens([audience])).response.svids[0]?.svid ?? "";
}

function claimsOf(token: string): { sub: string; aud: string[]; exp: number } {
  return JSON.parse(String(Buffer.from(token.split(".")[1] ?? "", "base64url")));
}

describe("FetchJWTSVID", () => {
  it(`${verifies("JR-1")} demands an audience`, async () => {
    expect((await fetchTokens([])).code).toBe(status.INVALID_ARGUMENT);
    expect((await fetchTokens(["a", ""])).code).toBe(status.INVALID_ARGUMENT);
    expect((await fetchTokens(["a"])).code).toBe(status.OK);
  });

  it(`${verifies("JR-2", "JR-3", "JR-5", "JR-6", "WR-5")} gives a compact token for each identity, with all audiences`, async () => {
    const { response } = await fetchTokens(["payments", "ledger"]);
    expect(response.svids.map(({ spiffeId, hint }) => [spiffeId, hint])).toEqual([
      ["spiffe://shop.local/agents/billing", "internal"],
      ["spiffe://shop.local/agents/analyst", ""],
    ]);
    for (const { spiffeId, svid } of response.svids) {
      expect(svid).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/);
      expect(claimsOf(svid)).toMatchObject({ sub: spiffeId, aud: ["payments", "ledger"] });
    }
  });

  it(`${verifies("JR-4")} gives exactly the one asked for, and only to whom it belongs`, async () => {
    const analyst = await fetchTokens(["a"], "spiffe://shop.local/agents/analyst");
    expect(analyst.response.svids.map(({ spiffeId }) => spiffeId)).toEqual(["spiffe://shop.local/agents/analyst"]);
    const other = await fetchTokens(["a"], "spiffe://shop.local/agents/somebody-else");
    expect(other.code).toBe(status.PERMISSION_DENIED);
    expect(other.details).toContain(`agentid attest ${process.pid}`);
    expect((await fetchTokens(["a"], "spiffe://shop.local/unknown")).code).toBe(status.PERMISSION_DENIED);
    expect((await fetchTokens(["a"], "https://shop.local/agents/analyst")).code).toBe(status.INVALID_ARGUMENT);
  });

  it(`${verifies("EP-10")} refuses a caller without an identity`, async () => {
    expect((await fetchTokens(["a"], "", nobody)).code).toBe(status.PERMISSION_DENIED);
    expect((await fetchTokens(["a"])).code).toBe(status.OK);
  });

  it("records each token before it leaves, and gives none that it cannot record", async () => {
    await fetchTokens(["payments"], "spiffe://shop.local/agents/analyst");
    expect(running.record.entries.at(-1)).toMatchObject({
      kind: "svid.delivered",
      fields: {
        type: "jwt",
        spiffeId: "spiffe://shop.local/agents/analyst",
        audience: ["payments"],
        pid: process.pid,
        uid: process.getuid?.(),
        exeSha256: expect.stringMatching(/^[0-9a-f]{64}$/),
        evidence: "kernel",
      },
    });
    running.record.writable = false;
    const refused = await fetchTokens(["payments"]);
    running.record.writable = true;
    expect([refused.code, refused.response]).toEqual([status.UNAVAILABLE, undefined]);
  });

  it("hands a token out again, to every process with its identity, and records each hand-out as what it is", async () => {
    const before = running.record.entries.length;
    const [first, second] = [await tokenFor("again"), await tokenFor("again")];
    expect(second).toBe(first);
    const entries = running.record.entries.slice(before).filter(({ fields }) => fields.identity === "agents/billing");
    expect(entries.map(({ kind, fields }) => [kind, fields.again ?? false])).toEqual([
      ["svid.issued", false],
      ["svid.delivered", false],
      ["svid.delivered", true],
    ]);
    const notAfter = new Date(claimsOf(first).exp * 1_000).toISOString();
    expect(entries.at(-1)?.fields).toMatchObject({ type: "jwt", audience: ["again"], notAfter, pid: process.pid });
    running.record.writable = false;
    const refused = await fetchTokens(["again"]);
    running.record.writable = true;
    expect([refused.code, refused.response]).toEqual([status.UNAVAILABLE, undefined]);
    expect(await tokenFor("again")).toBe(first);
  });

  it("signs and records nothing for a call that was cancelled while its caller was looked at", async () => {
    const before = running.record.entries.length;
    const answered = (cancelled: boolean) =>
      new Promise<status | undefined>((resolve) => {
        const entitlement = { identity: identity("agents/billing"), evidence: "kernel", launchedBy: [] } as const;
        const handler = fetchJwtSvid({
          ...{ jwtIssuer: running.keeper, clock: { now: Date.now } },
          authorization: {
            identifyCaller: async () => ({}),
            async entitledInTurn() {
              Object.assign(call, { cancelled });
              return [entitlement];
            },
            recordDeliveryInTurn: async () => void running.record.append("svid.delivered", {}),
          },
        } as unknown as JwtDependencies);
        const call = { request: { audience: ["cancelled"], spiffeId: "" }, cancelled: false } as unknown as Parameters<
          typeof handler
        >[0];
        handler(call, (error) => resolve(error === null ? status.OK : (error.code as status)));
      });
    expect(await answered(true)).toBe(status.CANCELLED);
    expect(running.record.entries).toHaveLength(before);
    expect(await answered(false)).toBe(status.OK);
    expect(running.record.entries).toHaveLength(before + 2);
  });

  it("does not hand out a token whose identity is withdrawn while that is recorded", async () => {
    let delivered = () => {};
    const api = await runApi({
      identities: [identity("agents/billing")],
      change: (d) => ({
        ...d,
        audit: {
          append: (...entry) => d.audit.append(...entry),
          async appendInTurn(...entry) {
            const receipt = await d.audit.appendInTurn(...entry);
            delivered();
            return receipt;
          },
        },
      }),
    });
    const kept = await fetchTokens(["a"], "", api);
    delivered = () => api.configure([]);
    const withdrawn = await fetchTokens(["a"], "", api);
    await api.close();
    expect([kept.code, kept.response.svids.length]).toEqual([status.OK, 1]);
    expect([withdrawn.code, withdrawn.response]).toEqual([status.PERMISSION_DENIED, undefined]);
    expect(api.record.entries.slice(-2).map(({ kind }) => kind)).toEqual(["svid.delivered", "svid.refused"]);
  });
});

describe("FetchJWTBundles", () => {
  it(`${verifies("JR-7", "JR-8", "JR-9")} gives plain JWK Sets of public JWT keys, ours among them`, async () => {
    const stream = receive(running.client().fetchJwtBundles({}, secure()));
    const { bundles } = await stream.next();
    stream.cancel();
    expect(Object.keys(bundles)).toEqual(["spiffe://shop.local", "spiffe://partner.example"]);
    const ours = JSON.parse(String(bundles["spiffe://shop.local"]));
    expect(Object.keys(ours)).toEqual(["keys"]);
    expect(ours.keys).toHaveLength(1);
    for (const key of ours.keys) {
      expect(key).toMatchObject({ kty: "EC", crv: "P-256", use: "jwt-svid", kid: expect.stringMatching(/.+/) });
      expect(key).not.toHaveProperty("d");
    }
  });

  it("refuses a caller without an identity", async () => {
    const stream = receive(nobody.client().fetchJwtBundles({}, secure()));
    expect((await stream.ended).code).toBe(status.PERMISSION_DENIED);
  });
});

describe("ValidateJWTSVID", () => {
  it(`${verifies("JR-10")} demands a token and an audience`, async () => {
    const token = await tokenFor("a");
    expect((await validate(token, "")).code).toBe(status.INVALID_ARGUMENT);
    expect((await validate("", "a")).code).toBe(status.INVALID_ARGUMENT);
    expect((await validate(token, "a")).code).toBe(status.OK);
  });

  it(`${verifies("JR-12", "JR-13")} answers who it is, with the claims, aud as a list`, async () => {
    const { response } = await validate(await tokenFor("a"), "a");
    expect(response.spiffeId).toBe("spiffe://shop.local/agents/billing");
    expect(response.claims).toMatchObject({ sub: response.spiffeId, aud: ["a"], exp: expect.any(Number) });
    const claims = { sub: "spiffe://partner.example/x", aud: "a", exp: inAMinute() };
    const answer = await validate(compact({ alg: "ES256" }, claims), "a");
    expect(answer.response.claims).toMatchObject({ aud: ["a"] });
  });

  it(`${verifies("JR-14")} works for a caller without an identity`, async () => {
    const sub = "spiffe://partner.example/agents/x";
    const token = compact({ alg: "ES256" }, { sub, aud: ["a"], exp: inAMinute() });
    expect((await fetchTokens(["a"], "", nobody)).code).toBe(status.PERMISSION_DENIED);
    expect((await validate(token, "a", nobody)).response.spiffeId).toBe(sub);
  });

  it(`${verifies("JR-15")} takes the bundle of the token's own trust domain and no other`, async () => {
    const issue = (sub: string) => compact({ alg: "ES256" }, { sub, aud: ["a"], exp: inAMinute() });
    expect((await validate(issue("spiffe://partner.example/x"), "a")).code).toBe(status.OK);
    expect((await validate(issue("spiffe://shop.local/agents/billing"), "a")).code).toBe(status.INVALID_ARGUMENT);
    expect((await validate(issue("spiffe://unknown.example/x"), "a")).code).toBe(status.INVALID_ARGUMENT);
  });

  it(`${verifies("JR-11")} refuses each kind of bad token as InvalidArgument, by name`, async () => {
    const now = Math.floor(Date.now() / 1000);
    const claims = { sub: "spiffe://partner.example/x", aud: ["a"], exp: now + 60 };
    const header = { alg: "ES256", typ: "JWT" };
    const good = compact(header, claims);
    const [head = "", body = "", signature = ""] = good.split(".");
    const vectors: Record<string, string> = {
      "somebody else's signature": compact(header, claims, keyPair().privateKey),
      "another audience": compact(header, { ...claims, aud: ["b"] }),
      "no audience": compact(header, { sub: claims.sub, exp: claims.exp }),
      expired: compact(header, { ...claims, exp: now - 1 }),
      "no exp": compact(header, { sub: claims.sub, aud: claims.aud }),
      "nbf in the future": compact(header, { ...claims, nbf: now + 60 }),
      none: `${encode({ alg: "none" })}.${body}.`,
      "a symmetric algorithm": compact({ ...header, alg: "HS256" }, claims),
      EdDSA: compact({ ...header, alg: "EdDSA" }, claims),
      "another typ": compact({ ...header, typ: "at+jwt" }, claims),
      "an unknown crit": compact({ ...header, crit: ["x"], x: 1 }, claims),
      "sub that is no SPIFFE ID": compact(header, { ...claims, sub: "mallory" }),
      "a trust domain without a bundle": compact(header, { ...claims, sub: "spiffe://unknown/x" }),
      "JSON serialization": JSON.stringify({ protected: head, payload: body, signature }),
      "no token": "x.y",
    };
    expect((await validate(good, "a")).code).toBe(status.OK);
    for (const [name, token] of Object.entries(vectors)) {
      expect({ name, code: (await validate(token, "a")).code }).toEqual({ name, code: status.INVALID_ARGUMENT });
    }
  });
});

function encode(part: unknown): string {
  return Buffer.from(JSON.stringify(part)).toString("base64url");
}

function inAMinute(): number {
  return Math.floor(Date.now() / 1000) + 60;
}

function keyPair() {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return { privateKey, jwk: { ...publicKey.export({ format: "jwk" }), kty: "EC", kid: "k", use: "jwt-svid" } };
}

/** A token signed with ES256, whatever its header says. */
function compact(header: object, claims: object, key: KeyObject = foreignKey.privateKey): string {
  const input = `${encode(header)}.${encode(claims)}`;
  const signature = sign("sha256", Buffer.from(input), { key, dsaEncoding: "ieee-p1363" });
  return `${input}.${signature.toString("base64url")}`;
}
