import { randomBytes } from "node:crypto";
import { ServerCredentials, status } from "@grpc/grpc-js";
import { afterEach, describe, expect, it } from "vitest";
import { waitingClock } from "../../src/client/spiffe/workload-api-client.js";
import type { ConformanceOptions } from "../../src/conformance/context.js";
import { conformanceJunit, conformanceReport, conformanceTable } from "../../src/conformance/report.js";
import { type CheckResult, conformanceChecks, runConformance } from "../../src/conformance/suite.js";
import type { Requirement } from "../requirements/requirement.js";
import { requirements } from "../requirements/verifies.js";
import { FIRST, SECOND } from "./behaviour.js";
import { faults } from "./faults.js";
import { tlsFiles } from "./scripted-parts.js";
import { runScriptedServer, type ScriptedServer } from "./scripted-server.js";

const servers: ScriptedServer[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

async function served(...args: Parameters<typeof runScriptedServer>): Promise<ScriptedServer> {
  const server = await runScriptedServer(...args);
  servers.push(server);
  return server;
}

function run(server: ScriptedServer, options: Partial<ConformanceOptions> = {}, only: readonly string[] = []) {
  const hooks = { rotate: server.rotate, remove: server.remove, restore: server.restore };
  return runConformance(
    {
      target: server.target,
      clock: waitingClock,
      deadlineMs: 8_000,
      changeDeadlineMs: 8_000,
      hooks,
      printedAddress: "unix:///run/api.sock",
      ...options,
    },
    only,
  );
}

const failed = (results: readonly CheckResult[]) =>
  results.filter(({ result }) => result === "fail").map(({ id, reason }) => `${id}: ${reason}`);
const idsOf = (lines: readonly string[]) => lines.map((line) => line.split(":")[0]);

describe("the conformance suite", () => {
  it("finds nothing in a server that keeps every statement, and skips only what that server cannot show", async () => {
    const results = await run(await served());
    expect(failed(results)).toEqual([]);
    const skipped = results.filter(({ result }) => result === "skip").map(({ id }) => id);
    expect(skipped).toEqual(["XR-13", "JR-15", "WR-1"]);
    expect(results.map(({ id }) => id)).toEqual(conformanceChecks.map(({ id }) => id));
  });

  it("takes serials whose first bit is set, as half of all random ones have it: a zero before it makes them positive", async () => {
    const leaf = () => ({ serialNumber: `ff${randomBytes(15).toString("hex")}` });
    const results = await run(await served({ leaf }), {}, ["XS-12"]);
    expect(results.map(({ id, result }) => [id, result])).toEqual([["XS-12", "pass"]]);
  });

  it("without hooks skips what needs them, and says so", async () => {
    const results = await run(await served(), { hooks: {} });
    expect(failed(results)).toEqual([]);
    const needHooks = results.filter(({ reason }) => reason.startsWith("needs the operator")).map(({ id }) => id);
    expect(needHooks).toEqual(["EP-10", "ST-3", "ST-5", "ST-6", "ST-7", "XR-12", "JR-14"]);
  });

  it("numbers its checks as the requirements are numbered, with their levels", () => {
    const known = new Map<string, Requirement>(requirements.map((one) => [one.id, one]));
    const wrong = conformanceChecks.filter(({ id, level }) => known.get(id)?.level !== level);
    expect(wrong.map(({ id, level }) => `${id} ${level}`)).toEqual([]);
  });

  it("runs one check alone, and refuses an id that does not exist", async () => {
    const server = await served();
    expect((await run(server, {}, ["XR-3"])).map(({ id, result }) => `${id} ${result}`)).toEqual(["XR-3 pass"]);
    await expect(run(server, {}, ["XR-99"])).rejects.toMatchObject({ code: "bad-request" });
  });

  it("says that nothing is there instead of failing everything", async () => {
    const server = await served();
    server.close();
    await expect(run(server)).rejects.toMatchObject({ code: "conformance-unreachable" });
  });

  it("says that this process has no identity instead of failing everything", async () => {
    const server = await served();
    await server.remove(FIRST);
    await server.remove(SECOND);
    await expect(run(server)).rejects.toMatchObject({ code: "conformance-no-identity" });
  });

  it("finds a server that demands TLS", async () => {
    const tls = ServerCredentials.createSsl(null, [await tlsFiles()]);
    const results = await run(await served({}, tls), { deadlineMs: 3_000 });
    expect(idsOf(failed(results))).toEqual(["EP-2"]);
    expect(results.filter(({ result }) => result === "pass")).toEqual([]);
  });

  it("gives the identities back when a check of their removal fails", async () => {
    const server = await served({ endsStreamsWithoutIdentity: false });
    await run(server, { changeDeadlineMs: 1_000 }, ["ST-6"]);
    expect(idsOf(failed(await run(server, {}, ["XR-1"])))).toEqual([]);
  });

  it("prints what it found as a table and as JUnit", async () => {
    const results = await run(await served({ refusals: { token: status.PERMISSION_DENIED } }), {}, [
      "JR-11",
      "JR-12",
      "JR-15",
    ]);
    const report = conformanceReport("unix:///run/api.sock", results);
    expect(report.conformant).toBe(false);
    expect(report.totals.M).toEqual({ passed: 1, failed: 1, skipped: 1 });
    const table = conformanceTable(report);
    expect(table).toMatch(
      /^JR-11 {2}M {2}✗ {2}ValidateJWTSVID refuses .*\n {13}a token for another audience is answered with PERMISSION_DENIED/,
    );
    expect(table).toContain("JR-12  M  ✓");
    expect(table).toMatch(/JR-15 {2}M {2}– .*\n {13}needs a Workload API of the federated trust domain/);
    const xml = conformanceJunit(report);
    expect(xml).toContain('<testsuites tests="3" failures="1" skipped="1">');
    expect(xml).toContain(
      'classname="workload-api.M"><properties><property name="source" value="WA §6.2.3"/></properties></testcase>',
    );
  });
});

describe("the conformance suite notices a server that", () => {
  it.each(faults)("%s", async (_, fault, expected) => {
    expect(idsOf(failed(await run(await served(fault))))).toEqual(expected);
  });

  it("sends nothing after a change", async () => {
    const server = await served({ follows: false });
    const results = failed(await run(server, { changeDeadlineMs: 500 }));
    expect(idsOf(results)).toEqual(["ST-3", "ST-5", "ST-6", "ST-7"]);
  });

  it("keeps streams open that nobody is entitled to", async () => {
    const server = await served({ endsStreamsWithoutIdentity: false });
    expect(idsOf(failed(await run(server, { changeDeadlineMs: 1_000 })))).toEqual(["ST-6", "ST-7"]);
  });

  it("sends the first message late", async () => {
    const server = await served({ firstMessageAfterMs: 4_000 });
    expect(idsOf(failed(await run(server, {}, ["ST-1", "XR-1"])))).toEqual(["ST-1"]);
  });

  it("refuses the tokens of a federated trust domain", async () => {
    // The other server's keys are in nobody's bundle.
    const stranger = await served();
    const results = failed(await run(await served(), { federatedTarget: stranger.target }));
    expect(idsOf(results)).toEqual(["JR-15"]);
  });

  it("prints an address that is none", async () => {
    const results = await run(await served(), { printedAddress: "unix://host/api.sock" });
    expect(idsOf(failed(results))).toEqual(["EP-13"]);
  });
});
