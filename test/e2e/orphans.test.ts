import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { agentid, bin, makeProject, ordinaryUser, python, runtimeBase, startDev } from "./agentid.js";
import { billingCommand, makeShop } from "./shop.js";

const tools = ["setsid", "script"].filter((name) => spawnSync("which", [name]).status !== 0);

/** Starts `command` as an orphan: its parent exits at once, so that init adopts it. Its output goes to a file. */
function orphan(command: string, project: string): string {
  const output = join(project, `orphan-${Math.random().toString(36).slice(2)}`);
  const { PATH } = process.env;
  spawn("setsid", ["-f", "script", "-qfec", command, output], {
    cwd: project,
    env: { PATH, HOME: project, TMPDIR: runtimeBase(), TERM: "xterm-256color", COLUMNS: "100", LINES: "30" },
    stdio: "ignore",
    ...ordinaryUser,
  });
  return output;
}

async function untilContains(file: string, text: string): Promise<string> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const found = existsSync(file) ? readFileSync(file, "utf8") : "";
    if (found.includes(text)) return found;
    if (Date.now() > deadline) throw new Error(`no ${JSON.stringify(text)} in ${JSON.stringify(found.slice(-1500))}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

describe.skipIf(python === undefined || tools.length > 0)(
  "a terminal that was opened after the first agent, by init's child",
  () => {
    it("is refused by the control socket, and its own agentid dev still has its dashboard", async () => {
      const project = makeShop();
      const first = await startDev(project);
      expect((await agentid(["run", "billing", "--", ...billingCommand], { cwd: project })).code).toBe(0);
      const command = `${process.execPath} ${bin}`;
      const refused = await untilContains(orphan(`${command} status`, project), "may not administer");
      expect(refused).toContain("use the dashboard");
      expect((await agentid(["status"], { cwd: project })).code).toBe(0);
      await first.stop();

      // The next daemon of this boot remembers that there were agents.
      onTestFinished(async () => {
        await agentid(["down"], { cwd: project });
      });
      const screen = orphan(`stty cols 100 rows 30; ${command} dev`, project);
      await untilContains(screen, "● live");
      expect(await untilContains(orphan(`${command} status`, project), "may not administer")).toContain(
        "use the dashboard",
      );
    });
  },
);

describe("without any agent launched", () => {
  it("an orphan of the owner may administer", async () => {
    const project = makeProject({ "agentid.yaml": "trustDomain: shop.local\nidentities:\n  a: { uid: 1 }\n" });
    const dev = await startDev(project);
    await untilContains(orphan(`${process.execPath} ${bin} status`, project), "Workload API");
    await dev.stop();
  });
});
