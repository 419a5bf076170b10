import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { ConformanceReport } from "../../src/conformance/report.js";
import { agentid, bin, makeProject, ordinaryUser, type RunningDev, startDev } from "../e2e/agentid.js";
import { verifies } from "../requirements/verifies.js";

const running: RunningDev[] = [];
afterEach(async () => {
  for (const dev of running.splice(0)) await dev.stop();
});

const uid = ordinaryUser?.uid ?? process.getuid?.() ?? 0;

/** A project whose identities are those of every process of its user. */
function projectOf(trustDomain: string, names: readonly string[]): string {
  const identities = names.map(
    (name) => `  agents/${name}: { uid: ${uid}, hint: ${name}, dnsNames: [${name}.localhost] }\n`,
  );
  return makeProject({
    "agentid.yaml": `trustDomain: ${trustDomain}\nreload: auto\nidentities:\n${identities.join("")}`,
  });
}

async function started(project: string): Promise<RunningDev> {
  const dev = await startDev(project);
  running.push(dev);
  return dev;
}

describe("agentid conformance workload-api", { timeout: 240_000 }, () => {
  it(`finds nothing in agentid itself, federated and with an operator's hooks: ${verifies("EP-13")} and all others`, async () => {
    const project = projectOf("conf.local", ["first", "second"]);
    const partner = projectOf("partner.local", ["third"]);
    const [dev, other] = await Promise.all([started(project), started(partner)]);
    const bundle = await agentid(["bundle", "show"], { cwd: partner });
    const set = await agentid(["bundle", "set", "partner.local", "-"], { cwd: project, input: bundle.stdout });
    expect(set).toMatchObject({ code: 0, stderr: "" });

    const operator = `'${process.execPath}' '${bin}'`;
    const done = await agentid(
      [
        ...["conformance", "workload-api", "--json", "--junit", "report.xml", "--timeout", "20"],
        ...["--rotate-command", `${operator} rotate`],
        ...["--remove-command", `${operator} revoke "$SPIFFE_ID" --until-restart`],
        ...["--restore-command", `${operator} revoke --undo "$SPIFFE_ID"`],
        ...["--federated-socket", other.ready.workloadApi],
      ],
      { cwd: project, env: { SPIFFE_ENDPOINT_SOCKET: dev.ready.workloadApi } },
    );
    const report = JSON.parse(done.stdout) as ConformanceReport;
    expect(report.results.filter(({ result }) => result === "fail")).toEqual([]);
    expect(report.results.filter(({ result }) => result === "skip").map(({ id }) => id)).toEqual(["JR-14", "WR-1"]);
    expect(report).toMatchObject({ address: dev.ready.workloadApi, conformant: true });
    expect(done).toMatchObject({ code: 0, stderr: "" });
    expect(readFileSync(join(project, "report.xml"), "utf8")).toContain('failures="0"');
  });

  it("takes an operator's command that fails for no fault of the server", async () => {
    const project = projectOf("conf.local", ["first"]);
    const { ready } = await started(project);
    const done = await agentid(
      [
        "conformance",
        "workload-api",
        "--socket",
        ready.workloadApi,
        "--only",
        "ST-3",
        "--rotate-command",
        "echo no >&2; exit 7",
      ],
      {
        cwd: project,
      },
    );
    expect(done.code).toBe(1);
    expect(done.stderr).toContain('the command "echo no >&2; exit 7" failed: it ended with code 7: no');
  });

  it("ends with 1 where nothing listens, with 2 without an address, and says what to do", async () => {
    const cwd = projectOf("conf.local", ["first"]);
    const nowhere = await agentid(["conformance", "workload-api", "--socket", `unix://${cwd}/none.sock`], { cwd });
    expect(nowhere.code).toBe(1);
    expect(nowhere.stderr).toContain("no Workload API can be reached");
    const unnamed = await agentid(["conformance", "workload-api"], { cwd });
    expect(unnamed.code).toBe(2);
    expect(unnamed.stderr).toContain("set SPIFFE_ENDPOINT_SOCKET");
  });
});
