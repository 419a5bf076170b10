import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { agentid, makeProject, startDev, python as usersPython } from "../e2e/agentid.js";
import { runOutside } from "../relay/outside.js";
import { preparePythonEnvironment } from "./python-environment.js";

/** requests and httpx, unmodified, through the proxy that they find in their environment. */

const here = join(import.meta.dirname, "connect");
const prepared = await preparePythonEnvironment("connect-python", join(here, "requirements.txt")).catch(
  (thrown: unknown) => ({ missing: `they could not be installed: ${String(thrown).split("\n")[0]}` }),
);
if ("missing" in prepared) process.stderr.write(`SKIPPED: requests and httpx by CONNECT: ${prepared.missing}\n`);

it.skipIf("missing" in prepared)("requests and httpx call a target by CONNECT, and are told of a denial", async () => {
  const python = usersPython ?? "python3";
  const version = "import sys; print('%d.%d' % sys.version_info[:2])";
  const { stdout: found } = await promisify(execFile)(python, ["-c", version]);
  const directory = "directory" in prepared ? prepared.directory : "";
  const packages = join(directory, "lib", `python${found.trim()}`, "site-packages");
  const outside = await runOutside({ names: ["localhost"] });
  const url = `https://localhost:${outside.port}/v1`;
  const command = [python, "agent.py", url];
  const project = makeProject({
    "agentid.yaml": `trustDomain: shop.local
identities:
  agents/python: { launch: ${JSON.stringify(command)} }
egress:
  api: { url: "https://localhost:${outside.port}", connect: true, private: true }
  denied: { url: "https://denied.test", connect: true }
`,
    "agent.py": readFileSync(join(here, "agent.py"), "utf8"),
    "api.pem": readFileSync(outside.ca, "utf8"),
    "policies/api.yaml": "rules:\n  - { name: api, allow: { from: agents/python, to: egress/api } }\n",
  });
  const dev = await startDev(project);
  try {
    const { code, stdout, stderr } = await agentid(["run", "python", "--", ...command], {
      cwd: project,
      env: { PACKAGES: packages },
    });
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(JSON.parse(stdout)).toEqual([
      ["requests", "outside"],
      ["httpx", "outside"],
      ["httpx denied", expect.stringContaining("403")],
      ["requests denied", expect.stringContaining("403")],
    ]);
    expect(outside.arrived.map(({ url: path }) => path)).toEqual(["/v1", "/v1"]);
  } finally {
    await dev.stop();
    outside.close();
  }
});
