import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { atEnd, cleanUp, temporaryFolder } from "../attestation/processes.js";
import { type Built, build } from "./built.js";
import { nodeOf } from "./nodes.js";

let built: Built;
beforeAll(() => {
  built = build();
});
afterAll(() => built.remove());
afterEach(cleanUp);

/** A clone without a build and without a Node of its own. */
function bare(): string {
  const cache = resolve(import.meta.dirname, "../../.cache");
  mkdirSync(cache, { recursive: true });
  const root = mkdtempSync(join(cache, "bare-test-"));
  atEnd(() => rmSync(root, { recursive: true, force: true }));
  cpSync(join(built.root, "bin"), join(root, "bin"), { recursive: true });
  writeFileSync(join(root, "package.json"), JSON.stringify({ type: "module" }));
  return join(root, "bin/agentid.js");
}

function agentid(node: string, script: string, ...args: string[]) {
  const env = { ...process.env, AGENTID_CONTROL: `unix://${temporaryFolder()}/none.sock` };
  const { status, stdout, stderr } = spawnSync(node, [script, ...args], { env, encoding: "utf8" });
  return { status, stdout, stderr };
}

test("without a build, one line says what to do", () => {
  const result = agentid(process.execPath, bare(), "status");
  expect(result).toEqual({
    status: 1,
    stdout: "",
    stderr: "agentid is not built yet: run `npm start` or `npm test` in the clone\n",
  });
});

describe("on a Node that is too old", () => {
  const old = nodeOf(20);
  if (old === undefined) {
    test.skip("Node 20 is not to be had here: nothing of this was tested", () => undefined);
    return;
  }

  test("the clone's own Node takes over", () => {
    // Nobody answers the control socket: that this is said proves that the program ran.
    expect(agentid(old, built.agentid, "run", "billing", "--", "true")).toMatchObject({ status: 4, stdout: "" });
  });

  test("with a clone's Node but an installation that was interrupted, one line says what to do", () => {
    const root = temporaryFolder();
    cpSync(join(built.root, "bin"), join(root, "bin"), { recursive: true });
    cpSync(join(built.root, "scripts"), join(root, "scripts"), { recursive: true });
    writeFileSync(join(root, "package.json"), JSON.stringify({ type: "module" }));
    expect(agentid(old, join(root, "bin/agentid.js"), "status")).toEqual({
      status: 1,
      stdout: "",
      stderr: "agentid is not installed yet: run `npm start` or `npm test` in the clone\n",
    });
  });

  test("without one, one line says what is needed", () => {
    const result = agentid(old, bare(), "run", "billing", "--", "true");
    expect(result).toMatchObject({ status: 1, stdout: "" });
    expect(result.stderr).toMatch(/^agentid needs Node\.js 22\.22 or newer.*\n$/);
  });
});
