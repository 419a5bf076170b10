import { status } from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createJwtSource, createWorkloadApiClient, type JwtSource } from "../../../src/client/spiffe/index.js";
import { identity, type RunningApi, runApi } from "../../workload-api/running-api.js";
import { nextCall, runScriptedApi, type ScriptedApi } from "./scripted-api.js";

const identities = [identity("agents/billing", undefined, "internal"), identity("agents/planner")];
const BILLING = "spiffe://shop.local/agents/billing";
let running: RunningApi;
let socketPath: string;
const open: { close(): void }[] = [];

beforeAll(async () => {
  running = await runApi({ identities });
  socketPath = `unix://${running.path}`;
});
afterAll(() => running.close());
afterEach(() => {
  for (const one of open.splice(0)) one.close();
});

async function source(): Promise<JwtSource> {
  const made = await createJwtSource({ socketPath });
  open.push(made);
  return made;
}

function client(address = socketPath) {
  const made = createWorkloadApiClient({ socketPath: address });
  open.push(made);
  return made;
}

async function script(more: Parameters<typeof runScriptedApi>[0]): Promise<ScriptedApi> {
  const api = await runScriptedApi(more);
  open.push(api);
  return api;
}

describe("a JWT source", () => {
  it("fetches tokens of the default or a named identity, which it and the server both accept", async () => {
    const held = await source();
    const svid = await held.fetchJwtSvid("payments");
    expect({ ...svid, id: svid.id.toString() }).toMatchObject({
      id: BILLING,
      audience: ["payments"],
      hint: "internal",
    });
    expect(held.validateJwtSvid(svid.token, "payments").id.toString()).toBe(BILLING);
    const validated = await client().validateJwtSvid(svid.token, "payments");
    expect([validated.id.toString(), validated.claims.aud]).toEqual([BILLING, ["payments"]]);
    const named = await held.fetchJwtSvid(["a", "b"], "spiffe://shop.local/agents/planner");
    expect([named.id.name, named.audience]).toEqual(["agents/planner", ["a", "b"]]);
    expect((await client().fetchJwtSvids({ audience: ["a"] })).map(({ id }) => id.name)).toEqual([
      "agents/billing",
      "agents/planner",
    ]);
  });

  it("refuses what is not for it, and who it is not", async () => {
    const held = await source();
    const { token } = await held.fetchJwtSvid("payments");
    expect(() => held.validateJwtSvid(token, "ledger")).toThrow(expect.objectContaining({ code: "jwt-svid-audience" }));
    await expect(client().validateJwtSvid(token, "ledger")).rejects.toMatchObject({
      code: "workload-api-invalid-argument",
    });
    await expect(held.fetchJwtSvid("payments", "spiffe://shop.local/agents/other")).rejects.toMatchObject({
      code: "workload-api-permission-denied",
    });
    await expect(held.fetchJwtSvid("payments", "no id")).rejects.toMatchObject({ code: "spiffe-id-scheme" });
    await expect(held.fetchJwtSvid([])).rejects.toMatchObject({ code: "workload-api-invalid-argument" });
    const [header, , signature] = token.split(".");
    const claims = Buffer.from(JSON.stringify({ sub: BILLING, aud: "ledger", exp: 9e9 })).toString("base64url");
    expect(() => held.validateJwtSvid(`${header}.${claims}.${signature}`, "ledger")).toThrow(
      expect.objectContaining({ code: "jwt-svid-signature" }),
    );
  });

  it("follows new authorities before a token of theirs is seen", async () => {
    const held = await source();
    const changed = nextCall<void>((listener) => held.onUpdate(listener));
    const before = held.bundleFor("shop.local")?.keys.length ?? 0;
    running.authority.rotate();
    await changed;
    expect(held.bundleFor("shop.local")?.keys.length).toBe(before + 1);
    const { token } = await held.fetchJwtSvid("payments");
    expect(held.validateJwtSvid(token, "payments").id.toString()).toBe(BILLING);
  });

  it("trusts nobody any more once the server withdraws its bundles", async () => {
    const { token } = await (await source()).fetchJwtSvid("payments");
    const bundle = JSON.stringify({ keys: (await source()).bundleFor("shop.local")?.keys });
    let withdraw: () => void = () => {};
    const api = await script({
      fetchJwtBundles(stream) {
        stream.write({ bundles: { "spiffe://shop.local": Buffer.from(bundle) } });
        withdraw = () => stream.emit("error", { code: status.PERMISSION_DENIED, details: "withdrawn" });
      },
    });
    const held = await createJwtSource({ socketPath: api.address });
    open.push(held);
    expect(held.validateJwtSvid(token, "payments").id.toString()).toBe(BILLING);
    const gone = nextCall<void>((listener) => held.onUpdate(listener));
    withdraw();
    await gone;
    expect(() => held.validateJwtSvid(token, "payments")).toThrow(
      expect.objectContaining({ code: "jwt-svid-trust-domain-unknown" }),
    );
  });

  it("ends calls and stream when it is closed", async () => {
    const api = await script({ fetchJwtsvid: () => {} });
    const asking = client(api.address);
    const answer = asking.fetchJwtSvids({ audience: ["a"] });
    asking.close();
    await expect(answer).rejects.toMatchObject({ code: "workload-api-closed" });
    await expect(asking.fetchJwtSvids({ audience: ["a"] })).rejects.toMatchObject({ code: "workload-api-closed" });
  });
});

describe("an answer", () => {
  it("that does not come in time, or that nobody waits for, is an error", async () => {
    const api = await script({ fetchJwtsvid: () => {} });
    const asking = client(api.address);
    await expect(asking.fetchJwtSvids({ audience: ["a"] }, { timeoutMs: 50 })).rejects.toMatchObject({
      code: "workload-api-deadline-exceeded",
    });
    const signal = AbortSignal.timeout(50);
    await expect(asking.fetchJwtSvids({ audience: ["a"] }, { signal })).rejects.toMatchObject({
      code: "workload-api-aborted",
    });
  });

  it("is refused when a mandatory field is empty, or when it says something else than was asked", async () => {
    const { token } = await (await source()).fetchJwtSvid("payments");
    const answers = [
      { svids: [] },
      { svids: [{ spiffeId: "", svid: token, hint: "" }] },
      { svids: [{ spiffeId: BILLING, svid: "", hint: "" }] },
      { svids: [{ spiffeId: "spiffe://shop.local/agents/planner", svid: token, hint: "" }] },
      { svids: [{ spiffeId: BILLING, svid: "a.b.c", hint: "" }] },
      { svids: [{ spiffeId: BILLING, svid: token, hint: "" }] },
    ];
    const api = await script({ fetchJwtsvid: (_call, answer) => answer(null, answers.shift() ?? { svids: [] }) });
    const asking = client(api.address);
    const codes: string[] = [];
    for (const audience of ["payments", "payments", "payments", "payments", "payments", "ledger"]) {
      codes.push(await asking.fetchJwtSvids({ audience: [audience] }).catch((thrown) => thrown.code));
    }
    const [incomplete, invalid] = ["workload-api-message-incomplete", "workload-api-message-invalid"];
    expect(codes).toEqual([incomplete, incomplete, incomplete, invalid, invalid, invalid]);
    answers.push({ svids: [{ spiffeId: BILLING, svid: token, hint: "" }] });
    expect(await asking.fetchJwtSvids({ audience: ["payments"] })).toHaveLength(1);
  });

  it("of a server without the profile is said to be that", async () => {
    const unimplemented = { code: status.UNIMPLEMENTED, details: "not here" };
    const api = await script({ fetchJwtBundles: (call) => call.emit("error", unimplemented) });
    await expect(createJwtSource({ socketPath: api.address })).rejects.toMatchObject({
      code: "workload-api-unimplemented",
    });
  });
});
