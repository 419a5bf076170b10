import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bin, giveTo, makeProject, ordinaryUser, type RunningDev, run, startDev, startProgram } from "./agentid.js";

/** A program of its own that watches its X.509-SVIDs with a stock gRPC client: `[ids]` for each message, or the status that ended the stream. */
const WATCH = `
const { credentials, Metadata } = await import(process.env.GRPC);
const { SpiffeWorkloadAPIClient } = await import(process.env.STUBS);
const client = new SpiffeWorkloadAPIClient(process.env.SPIFFE_ENDPOINT_SOCKET.replace("unix://", "unix:"), credentials.createInsecure());
const header = new Metadata();
header.set("workload.spiffe.io", "true");
const stream = client.fetchX509Svid({}, header);
stream.on("data", ({ svids }) => console.log(JSON.stringify(svids.map((svid) => [svid.spiffeId, svid.x509Svid.length > 0]))));
stream.on("error", ({ code, details }) => { console.log(JSON.stringify({ code, details })); process.exit(); });
`;

const root = join(bin, "..", "..");
const stubs = {
  GRPC: pathToFileURL(join(root, "node_modules", "@grpc", "grpc-js", "build", "src", "index.js")).href,
  STUBS: pathToFileURL(join(root, "build", "workload-api", "generated", "workload.js")).href,
};
const node = process.execPath;
const uid = ordinaryUser?.uid ?? process.getuid?.();
const yaml = (identities: string) => `trustDomain: shop.local\nreload: auto\nidentities:\n${identities}`;
const planner = `  agents/planner: { uid: ${uid}, exe: { path: ${JSON.stringify(node)}, sha256: pinned } }\n`;

describe("the Workload API of the real binary", () => {
  const project = makeProject({ "agentid.yaml": yaml(planner), "watch.mjs": WATCH });
  let dev: RunningDev;
  beforeAll(async () => {
    dev = await startDev(project);
  });
  afterAll(() => dev.stop());
  const env = () => ({ ...dev.env, ...stubs });

  it("gives the pinned binary its SVID, pushes rotations and changes of agentid.yaml, and ends when nothing is left", async () => {
    const program = startProgram(node, ["watch.mjs"], { cwd: project, env: env() });
    try {
      expect(JSON.parse(await program.line())).toEqual([["spiffe://shop.local/agents/planner", true]]);
      await run(node, [bin, "rotate"], { cwd: project });
      expect(JSON.parse(await program.line())).toEqual([["spiffe://shop.local/agents/planner", true]]);
      writeFileSync(join(project, "agentid.yaml"), yaml(`  agents/first: { uid: ${uid} }\n${planner}`));
      expect(JSON.parse(await program.line())).toEqual([
        ["spiffe://shop.local/agents/first", true],
        ["spiffe://shop.local/agents/planner", true],
      ]);
      writeFileSync(join(project, "agentid.yaml"), yaml("  agents/other: { uid: 1 }\n"));
      expect(JSON.parse(await program.line())).toMatchObject({ code: 7 });
      writeFileSync(join(project, "agentid.yaml"), yaml(planner));
      await dev.until(
        (event) =>
          event.event === "reload" &&
          event.changes.some((line) => line.startsWith("- ") && line.includes("agents/other")),
      );
    } finally {
      await program.end();
    }
  });

  it("refuses another binary with the same command line as PermissionDenied", async () => {
    const copy = join(project, "node");
    copyFileSync(node, copy);
    writeFileSync(copy, "\n", { flag: "a" });
    giveTo(copy);
    const impostor = startProgram(copy, ["watch.mjs"], { cwd: project, env: env() });
    expect(JSON.parse(await impostor.line())).toMatchObject({
      code: 7,
      details: expect.stringContaining("agentid attest"),
    });
    await impostor.end();
    const honest = startProgram(node, ["watch.mjs"], { cwd: project, env: env() });
    expect(JSON.parse(await honest.line())).toHaveLength(1);
    await honest.end();
  });

  it.skipIf(ordinaryUser === undefined)("another user cannot even reach the socket", async () => {
    const other = startProgram(node, ["--input-type=module", "-e", WATCH], {
      cwd: "/",
      env: env(),
      user: { uid: 65_533, gid: 65_533 },
    });
    expect(JSON.parse(await other.line())).toMatchObject({ code: 14, details: expect.stringContaining("EACCES") });
    await other.end();
  });

  it("survives callers that are gone before their answer", async () => {
    for (let attempt = 0; attempt < 5; attempt += 1) {
      const program = startProgram(node, ["watch.mjs"], { cwd: project, env: env() });
      const seen = dev.events.length;
      await program.end();
      expect(dev.events.slice(seen).filter(({ event }) => event === "problem")).toEqual([]);
    }
    const honest = startProgram(node, ["watch.mjs"], { cwd: project, env: env() });
    expect(JSON.parse(await honest.line())).toHaveLength(1);
    await honest.end();
  });
});
