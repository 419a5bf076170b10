import { mkdtempSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createWorkloadApiClient, createX509Source, type X509Source } from "../../../src/client/spiffe/index.js";
import { codeOf } from "../../../src/coded-error.js";
import type { X509SVIDResponse } from "../../../src/workload-api/generated/workload.js";
import { verifies } from "../../requirements/verifies.js";
import { createManualClock } from "../../workload-api/manual-clock.js";
import { receive } from "../../workload-api/received.js";
import { identity, type RunningApi, runApi, secure } from "../../workload-api/running-api.js";
import { failWith, nextCall, runScriptedApi, type ScriptedApi } from "./scripted-api.js";

const identities = [
  identity("agents/billing", undefined, "internal"),
  identity("agents/planner", undefined, "external"),
];
const sources: X509Source[] = [];
const scripted: ScriptedApi[] = [];
let running: RunningApi;
/** What a real server says, for scripted ones to repeat and spoil. */
let message: X509SVIDResponse;

beforeAll(async () => {
  running = await runApi({ identities });
  const stream = receive(running.client().fetchX509Svid({}, secure()));
  message = await stream.next();
  stream.cancel();
});
afterAll(() => running.close());
afterEach(() => {
  for (const source of sources.splice(0)) source.close();
  for (const api of scripted.splice(0)) api.close();
});

async function source(options: Parameters<typeof createX509Source>[0]): Promise<X509Source> {
  const made = await createX509Source(options);
  sources.push(made);
  return made;
}

async function script(): Promise<ScriptedApi> {
  const api = await runScriptedApi();
  scripted.push(api);
  return api;
}

const updated = (of: X509Source) => nextCall<void>((listener) => of.onUpdate(listener));
const troubled = (of: X509Source) => nextCall<Error>((listener) => of.onProblem(listener));

describe("an X.509 source", () => {
  it("holds the identities of this workload, in the server's order, and its bundles", async () => {
    const held = await source({ socketPath: `unix://${running.path}` });
    expect(held.svids.map(({ id, hint }) => `${id} ${hint}`)).toEqual([
      "spiffe://shop.local/agents/billing internal",
      "spiffe://shop.local/agents/planner external",
    ]);
    expect(held.svid().id.name).toBe("agents/billing");
    expect(held.bundleFor("shop.local")).toHaveLength(1);
    expect(held.bundleFor("elsewhere.example")).toBeUndefined();
    const picky = { socketPath: `unix://${running.path}`, picker: byHint("external") };
    expect((await source(picky)).svid().id.name).toBe("agents/planner");
    const nobody = await source({ ...picky, picker: byHint("none") });
    expect(() => nobody.svid()).toThrow(expect.objectContaining({ code: "svid-not-picked" }));
  });

  it("follows rotations of SVIDs and of the authority", async () => {
    const held = await source({ socketPath: `unix://${running.path}` });
    const before = held.svid().serial;
    const first = updated(held);
    await running.keeper.rotateAll();
    await first;
    expect(held.svid().serial).not.toBe(before);
    expect(held.bundleFor("shop.local")).toHaveLength(1);
    const second = updated(held);
    running.authority.rotate();
    await second;
    expect(held.bundleFor("shop.local")?.length).toBeGreaterThan(1);
  });

  it(`${verifies("EP-15", "ST-12")} survives a restart of the server, of which it gets new SVIDs and bundles`, async () => {
    const directory = mkdtempSync(join(tmpdir(), "agentid-ln-"));
    const link = join(directory, "api.sock");
    const first = await runApi({ identities });
    symlinkSync(first.path, link);
    const held = await source({ socketPath: `unix://${link}` });
    const { serial } = held.svid();
    const lost = troubled(held);
    await first.close();
    expect(codeOf(await lost)).toBe("workload-api-unavailable");
    expect(held.svid().serial).toBe(serial);

    const second = await runApi({ identities: [identity("agents/reborn")] });
    const back = updated(held);
    symlinkSync(second.path, `${link}.new`);
    renameSync(`${link}.new`, link);
    await back;
    expect(held.svid().id.name).toBe("agents/reborn");
    expect(held.problem).toBeUndefined();
    held.close();
    await second.close();
    rmSync(directory, { recursive: true });
  });

  it("ceases to use SVIDs that are withdrawn, and has them again when they are granted again", async () => {
    const own = await runApi({ identities });
    const held = await source({ socketPath: `unix://${own.path}` });
    const gone = updated(held);
    own.configure([identity("agents/billing", { uid: 4_000_000_000 })]);
    await gone;
    expect(() => held.svid()).toThrow(expect.objectContaining({ code: "svid-withdrawn" }));
    expect(held.svids).toEqual([]);
    const back = updated(held);
    own.configure(identities);
    await back;
    expect(held.svid().id.name).toBe("agents/billing");
    held.close();
    await own.close();
  });

  it("says that an SVID has expired instead of presenting it", async () => {
    const clock = createManualClock();
    const held = await source({ socketPath: `unix://${running.path}`, clock });
    expect(held.svid().id.name).toBe("agents/billing");
    clock.advance(3_600_000);
    expect(() => held.svid()).toThrow(expect.objectContaining({ code: "svid-expired" }));
  });

  it("leaves nothing open once it is closed", async () => {
    const own = await runApi({ identities });
    const held = await source({ socketPath: `unix://${own.path}` });
    expect(own.api.open.streams).toBe(1);
    held.close();
    held.close();
    await expect.poll(() => own.api.open).toEqual({ connections: 0, streams: 0 });
    await own.close();
  });
});

describe("the wait for the first update", () => {
  it("ends with the problem that stood when time was over", async () => {
    const waiting = createX509Source({ socketPath: "unix:///nowhere/api.sock", timeoutMs: 300 });
    await expect(waiting).rejects.toMatchObject({ code: "workload-api-unavailable" });
  });

  it("ends when its caller gives up", async () => {
    const signal = AbortSignal.timeout(50);
    const waiting = createX509Source({ socketPath: "unix:///nowhere/api.sock", signal });
    await expect(waiting).rejects.toMatchObject({ code: "workload-api-aborted" });
    await expect(createX509Source({ socketPath: `unix://${running.path}`, signal })).rejects.toMatchObject({
      code: "workload-api-aborted",
    });
  });

  it("goes on while a workload is not registered yet", async () => {
    const own = await runApi({ identities: [] });
    const waiting = source({ socketPath: `unix://${own.path}` });
    await expect.poll(() => own.refused.length).toBeGreaterThan(0);
    own.configure(identities);
    expect((await waiting).svid().id.name).toBe("agents/billing");
    (await waiting).close();
    await own.close();
  });
});

describe("the stream", () => {
  it("carries the security header exactly once", async () => {
    const api = await script();
    const opening = source({ socketPath: api.address });
    (await api.nextStream()).write(message);
    await opening;
    expect(api.calls.map((metadata) => metadata.get("workload.spiffe.io"))).toEqual([["true"]]);
  });

  it.each([
    [status.UNAVAILABLE, "workload-api-unavailable"],
    [status.PERMISSION_DENIED, "workload-api-permission-denied"],
    [status.INTERNAL, "workload-api-failed"],
  ])(
    `${verifies("EP-15")} that fails with status %s is opened again after a growing back-off`,
    async (code, expected) => {
      const api = await script();
      const clock = createManualClock();
      const problems: (readonly [string, number])[] = [];
      const client = createWorkloadApiClient({ socketPath: api.address, clock });
      const watch = client.watchX509Context({
        onUpdate: () => {},
        onProblem: (problem, retryInMs) => problems.push([problem.code, retryInMs ?? Number.NaN]),
      });
      for (const round of [1, 2, 3, 4]) {
        failWith(await api.nextStream(), code);
        await expect.poll(() => problems.length).toBe(round);
        expect(watch.state).toBe("waiting");
        const opened = api.calls.length;
        const [, delay = 0] = problems[round - 1] ?? [];
        clock.advance(delay - 1);
        expect(watch.state).toBe("waiting");
        expect(api.calls.length).toBe(opened);
        clock.advance(1);
        expect(watch.state).toBe("opening");
      }
      (await api.nextStream()).write(message);
      await expect.poll(() => watch.state).toBe("receiving");
      expect(problems.map(([found]) => found)).toEqual([expected, expected, expected, expected]);
      for (const [index, [, delay]] of problems.entries()) {
        expect(delay).toBeGreaterThanOrEqual(75 * 2 ** index);
        expect(delay).toBeLessThanOrEqual(125 * 2 ** index);
      }
      client.close();
      expect(watch.state).toBe("ended");
      expect(clock.pending).toBe(0);
    },
  );

  it.each([
    [status.INVALID_ARGUMENT, "workload-api-invalid-argument"],
    [status.UNIMPLEMENTED, "workload-api-unimplemented"],
  ])(`${verifies("EP-15")} that fails with status %s is never opened again`, async (code, expected) => {
    const api = await script();
    const clock = createManualClock();
    const opening = source({ socketPath: api.address, clock });
    failWith(await api.nextStream(), code);
    await expect(opening).rejects.toMatchObject({ code: expected });
    clock.advance(3_600_000);
    expect(api.calls).toHaveLength(1);
  });

  it(`${verifies("ST-12")} that the server closes is opened again at once, and not in a loop`, async () => {
    const api = await script();
    const clock = createManualClock();
    const opening = source({ socketPath: api.address, clock });
    const first = await api.nextStream();
    first.write(message);
    const held = await opening;
    clock.advance(5_000);
    first.end();
    const second = await api.nextStream();
    expect(clock.pending).toBe(0);
    const twice = troubled(held);
    second.end();
    await twice;
    const third = await api.nextStream();
    const thrice = troubled(held);
    third.end();
    await thrice;
    expect(api.calls).toHaveLength(3);
    expect(clock.pending).toBe(1);
    clock.advance(1_000);
    (await api.nextStream()).write(message);
    expect(held.svid().id.name).toBe("agents/billing");
  });

  it(`${verifies("ST-12")} may bring a bad message: it is reported and discarded, what was known stays`, async () => {
    const api = await script();
    const opening = source({ socketPath: api.address });
    const stream = await api.nextStream();
    stream.write(message);
    const held = await opening;
    const { serial } = held.svid();
    for (const [what, spoil, code] of spoiled()) {
      const problem = troubled(held);
      stream.write(spoil(structuredMessage()));
      expect([what, codeOf(await problem)]).toEqual([what, code]);
      expect(held.svid().serial).toBe(serial);
      expect(held.problem?.code).toBe(code);
    }
    expect(api.calls).toHaveLength(1);
    const good = updated(held);
    stream.write({ ...message, svids: message.svids.slice(1) });
    await good;
    expect(held.svid().id.name).toBe("agents/planner");
    expect(held.problem).toBeUndefined();
  });

  it("may repeat a hint or a trust domain: the first word counts", async () => {
    const api = await script();
    const opening = source({ socketPath: api.address });
    const [one, other] = structuredMessage().svids;
    if (one === undefined || other === undefined) throw new Error("two identities are configured");
    (await api.nextStream()).write({
      svids: [one, { ...other, hint: one.hint }],
      crl: [],
      federatedBundles: { "spiffe://shop.local": Buffer.alloc(0), "partner.example": one.bundle },
    });
    const held = await opening;
    expect(held.svids.map(({ id }) => id.name)).toEqual(["agents/billing"]);
    expect(held.bundleFor("shop.local")).toHaveLength(1);
    expect(held.bundleFor("spiffe://partner.example")).toHaveLength(1);
  });
});

function byHint(wanted: string) {
  return (svids: X509Source["svids"]) => svids.find(({ hint }) => hint === wanted);
}

function structuredMessage(): X509SVIDResponse {
  return { svids: message.svids.map((svid) => ({ ...svid })), crl: [], federatedBundles: {} };
}

function spoiled(): [string, (message: X509SVIDResponse) => X509SVIDResponse, string][] {
  const first = (change: Partial<X509SVIDResponse["svids"][number]>) => (good: X509SVIDResponse) => ({
    ...good,
    svids: good.svids.map((svid, index) => (index === 0 ? { ...svid, ...change } : svid)),
  });
  const empty = Buffer.alloc(0);
  const other = message.svids[1];
  return [
    ["no svids", (good) => ({ ...good, svids: [] }), "workload-api-message-incomplete"],
    ["no spiffe_id", first({ spiffeId: "" }), "workload-api-message-incomplete"],
    ["no x509_svid", first({ x509Svid: empty }), "workload-api-message-incomplete"],
    ["no x509_svid_key", first({ x509SvidKey: empty }), "workload-api-message-incomplete"],
    ["no bundle", first({ bundle: empty }), "workload-api-message-incomplete"],
    ["no SPIFFE ID", first({ spiffeId: "https://shop.local" }), "workload-api-message-invalid"],
    ["another's ID", first({ spiffeId: other?.spiffeId ?? "" }), "workload-api-message-invalid"],
    ["another's key", first({ x509SvidKey: other?.x509SvidKey ?? empty }), "workload-api-message-invalid"],
    ["no certificate", first({ x509Svid: Buffer.from("PEM") }), "workload-api-message-invalid"],
    ["no key", first({ x509SvidKey: Buffer.from("key") }), "workload-api-message-invalid"],
    ["no bundle's DER", first({ bundle: Buffer.from("bundle") }), "workload-api-message-invalid"],
    [
      "a bundle of a workload",
      (good) => ({ ...good, federatedBundles: { "spiffe://partner.example/x": Buffer.alloc(0) } }),
      "workload-api-message-invalid",
    ],
  ];
}
