import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { decisionsOf, http, loadProject } from "../policy/engines/engine-project.js";
import { freePort, prepareCerbos, prepareOpa, startServer } from "./decision-points.js";

const [opa, cerbos] = [await prepareOpa(), await prepareCerbos()];
for (const prepared of [opa, cerbos]) if ("missing" in prepared) process.stderr.write(`SKIPPED: ${prepared.missing}\n`);

const FINANCE = readFileSync(new URL("../policy/engines/finance/finance.rego", import.meta.url), "utf8");
const USERS = `entities:
  - { type: user, id: alice, properties: { department: finance } }
  - { type: user, id: bob, properties: { department: sales } }
`;
const read = (user: string, caller?: string) => http("GET", "/v1/invoices/1017", { user }, caller);

describe.skipIf("missing" in opa)("OPA", () => {
  const { binary, folder } = "missing" in opa ? { binary: "", folder: "" } : opa;
  const environment = { PATH: folder };
  const engine = {
    name: "finance",
    rego: "policies/finance.rego",
    entrypoint: "finance/allow",
    scope: ["invoices"],
    timeout: "20s",
  };
  const files = { "policies/finance.rego": FINANCE };

  test("a policy as an enterprise has it, compiled by the user's own opa, runs unchanged on both sides of the hours", async () => {
    const decisions = await decisionsOf({ files, engines: [engine], entities: USERS, environment });
    decisions.at("2025-01-15T15:59:59Z");
    expect(await decisions.judge(read("alice"))).toMatchObject({ allowed: true });
    expect(await decisions.judge(read("bob"))).toMatchObject({ allowed: false, engine: "finance" });
    expect(await decisions.judge(read("alice", "agents/planner"))).toMatchObject({ allowed: false, engine: "finance" });
    decisions.at("2025-01-15T16:00:00Z");
    expect(await decisions.judge(read("alice"))).toMatchObject({ allowed: false, engine: "finance" });
  });

  test("what was compiled is kept in the folder of state, and only there: without opa it is still good, a changed text is not", async () => {
    const { directory, loaded } = await loadProject({
      files: { ...files, ".agentid/x": "" },
      engines: [engine],
      environment,
    });
    expect(loaded).toBeDefined();
    const kept = join(directory, ".agentid/rego");
    expect(readdirSync(kept)).toEqual([expect.stringMatching(/^[0-9a-f]{64}\.tar\.gz$/)]);
    const [name = ""] = readdirSync(kept);
    const again = { ...files, [`.agentid/rego/${name}`]: readFileSync(join(kept, name)) };
    const without = { engines: [engine], environment: { PATH: "/nonexistent" } };
    expect((await loadProject({ files: again, ...without })).loaded).toBeDefined();
    const changed = { ...again, "policies/finance.rego": `${FINANCE}\n` };
    expect((await loadProject({ files: changed, ...without })).problems.join()).toContain("opa must be on the PATH");
  });

  test.each([
    ["does not parse", "package finance\n\nallow if {\n", "policies/finance.rego:"],
    ["names what there is not", "package finance\n\nallow if nothing_of_this_name\n", "policies/finance.rego:3"],
    ["lacks the entrypoint", "package finance\n\nother := true\n", "finance/allow"],
  ])("a policy that %s is refused with its place", async (_, text, place) => {
    const { loaded, problems } = await loadProject({
      files: { "policies/finance.rego": text },
      engines: [engine],
      environment,
    });
    expect(loaded).toBeUndefined();
    expect(problems.join("\n")).toContain(place);
  });

  test("builtins of time answer as OPA's own do", async () => {
    const moments = [
      "2025-03-30T00:59:59Z",
      "2025-03-30T01:00:00Z",
      "2024-02-29T23:30:00.5+05:30",
      "1999-12-31T23:59:59Z",
    ];
    const zones = ["UTC", "", "Europe/Berlin", "America/New_York", "Asia/Kolkata"];
    const body = `package t
moments := ${JSON.stringify(moments)}
zones := ${JSON.stringify(zones)}
ns := [n | some m in moments; n := time.parse_rfc3339_ns(m)]
got := {"ns": ns, "clock": c, "date": d, "weekday": w, "layout": l, "duration": u, "added": a, "before": b} if {
	c := [x | some n in ns; some z in zones; x := [n, z, time.clock([n, z])]]
	d := [x | some n in ns; some z in zones; x := [n, z, time.date([n, z])]]
	w := [x | some n in ns; some z in zones; x := [n, z, time.weekday([n, z])]]
	l := [time.parse_ns("2006-01-02", "2025-02-28"), time.parse_ns("2006-01-02T15:04:05Z07:00", "2025-02-28T10:11:12+02:00"), time.parse_ns("02.01.2006 15:04", "28.02.2025 10:11")]
	u := [time.parse_duration_ns(x) | some x in ["1h30m", "-250ms", "1.5s", "0"]]
	a := [time.add_date(n, 0, 1, 1) | some n in ns]
	b := [[x, y] | some x in ns; some y in ns; x < y]
}
same if got == data.expected
`;
    const directory = mkdtempSync(join(tmpdir(), "agentid-rego-"));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    writeFileSync(join(directory, "t.rego"), body);
    const { execFileSync } = await import("node:child_process");
    // As text: these numbers are beyond what JavaScript holds.
    const native = execFileSync(binary, ["eval", "--format", "raw", "-d", join(directory, "t.rego"), "data.t.got"], {
      encoding: "utf8",
    });
    const decisions = await decisionsOf({
      files: { "t.rego": body, "expected.json": `{"expected":${native}}` },
      engines: [{ name: "t", rego: "t.rego", entrypoint: "t/same", data: "expected.json", timeout: "20s" }],
      environment,
    });
    expect(await decisions.judge(read("alice"))).toMatchObject({ allowed: true });
    const other = native.replace("Sunday", "Monday");
    expect(other).not.toBe(native);
    const wrong = await decisionsOf({
      files: { "t.rego": body, "expected.json": `{"expected":${other}}` },
      engines: [{ name: "t", rego: "t.rego", entrypoint: "t/same", data: "expected.json", timeout: "20s" }],
      environment,
    });
    expect(await wrong.judge(read("alice"))).toMatchObject({ allowed: false });
  });

  test("an OPA server is asked; killed, it denies", async () => {
    const directory = mkdtempSync(join(tmpdir(), "agentid-opa-"));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    // Always open, so that the server's own clock does not matter.
    writeFileSync(
      join(directory, "finance.rego"),
      FINANCE.replace("business_hours if {", "business_hours if true\n\nunused if {"),
    );
    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    const server = await startServer(
      binary,
      ["run", "--server", "--addr", `127.0.0.1:${port}`, "--disable-telemetry", join(directory, "finance.rego")],
      async () => (await fetch(`${url}/health`)).ok,
    );
    onTestFinished(() => server.kill());
    const at = (path: string) =>
      decisionsOf({
        engines: [{ name: "central", opa: url, path, scope: ["invoices"], timeout: "20s" }],
        entities: USERS,
      });
    const decisions = await at("finance/allow");
    expect(await decisions.judge(read("alice"))).toMatchObject({ allowed: true });
    expect(await decisions.judge(read("bob"))).toMatchObject({ allowed: false, engine: "central" });
    const explained = await at("finance/explained");
    expect(await explained.judge(read("bob"))).toMatchObject({ reason: "central does not permit it: not in finance" });
    expect(await (await at("finance/text")).judge(read("alice"))).toMatchObject({ allowed: false });
    expect(await (await at("finance/nothing")).judge(read("alice"))).toMatchObject({
      allowed: false,
      reason: expect.stringContaining("undefined"),
    });
    await server.kill();
    expect(await decisions.judge(read("alice"))).toMatchObject({
      allowed: false,
      reason: expect.stringContaining("cannot be asked"),
    });
  });
});

describe.skipIf("missing" in cerbos)("Cerbos", () => {
  test("as an AuthZEN decision point it permits, denies, and denies when it is killed", async () => {
    const { binary } = "missing" in cerbos ? { binary: "" } : cerbos;
    const directory = mkdtempSync(join(tmpdir(), "agentid-cerbos-"));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    mkdirSync(join(directory, "policies"));
    chmodSync(directory, 0o755);
    writeFileSync(
      join(directory, "policies/http.yaml"),
      JSON.stringify({
        apiVersion: "api.cerbos.dev/v1",
        resourcePolicy: {
          resource: "http",
          version: "default",
          rules: [
            {
              actions: ["http:GET"],
              effect: "EFFECT_ALLOW",
              roles: ["*"],
              condition: {
                match: { expr: 'P.id == "spiffe://shop.local/agents/billing" && R.attr.path.startsWith("/v1/")' },
              },
            },
          ],
        },
      }),
    );
    const [port, grpc] = [await freePort(), await freePort()];
    const config = {
      server: { httpListenAddr: `127.0.0.1:${port}`, grpcListenAddr: `127.0.0.1:${grpc}` },
      storage: { driver: "disk", disk: { directory: join(directory, "policies") } },
    };
    writeFileSync(join(directory, "cerbos.yaml"), JSON.stringify(config));
    const url = `http://127.0.0.1:${port}`;
    const server = await startServer(
      binary,
      ["server", "--config", join(directory, "cerbos.yaml")],
      async () => (await fetch(`${url}/_cerbos/health`)).ok,
    );
    onTestFinished(() => server.kill());
    const decisions = await decisionsOf({
      engines: [{ name: "cerbos", authzen: url, scope: ["invoices"], timeout: "20s" }],
      entities: USERS,
    });
    expect(await decisions.judge(read("alice"))).toMatchObject({ allowed: true });
    expect(await decisions.judge(read("alice", "agents/planner"))).toMatchObject({ allowed: false, engine: "cerbos" });
    expect(await decisions.judge(http("DELETE", "/v1/invoices/1"))).toMatchObject({ allowed: false, engine: "cerbos" });
    await server.kill();
    expect(await decisions.judge(read("alice"))).toMatchObject({
      allowed: false,
      reason: expect.stringContaining("cannot be asked"),
    });
  });
});
