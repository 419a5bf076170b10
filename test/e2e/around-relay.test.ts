import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { agentid, makeProject, ordinaryUser, type RunningDev, run, runtimeBase, startDev } from "./agentid.js";

/** D26: who can be called around the relay is named, and what agentid starts cannot be by others. */

const SERVICE = `const { writeFileSync } = require("node:fs");
require("node:http").createServer((_, response) => response.end("arrived")).listen(process.env.AGENTID_LISTEN);
writeFileSync("inside.listen", process.env.AGENTID_LISTEN + "\\n" + process.pid);
`;
const yaml = (more = "") => `trustDomain: shop.local
identities: {}
services:
  inside: { http: { command: [${JSON.stringify(process.execPath)}, inside.js] } }
  socket: { http: { unix: run/socket.sock } }
  legacy: { http: "http://127.0.0.1:18199" }
  remote: { tcp: { mtls: 127.0.0.1:18198 } }
${more}reload: auto
`;
const GIVEN = "  orders: { tcp: 127.0.0.1:18197 }\n  ledger: { grpc: http://127.0.0.1:18196 }\n";

describe("services that can be called around the relay", () => {
  let project: string;
  let dev: RunningDev;
  beforeAll(async () => {
    project = makeProject({
      "agentid.yaml": yaml(),
      "inside.js": SERVICE,
      "policies/none.yaml": "rules: []\n",
    });
    dev = await startDev(project);
  });
  afterAll(() => dev?.stop());

  const named = () =>
    dev.events.flatMap((event) =>
      event.event === "problem" && event.code === "around-relay" && event.resolved !== true
        ? [/service (\w+) listens on TCP port (\d+)/.exec(event.message)?.slice(1).join(" ")]
        : [],
    );

  it("are named at the start, when a save adds them, once each, and in the status", async () => {
    await dev.until((event) => event.event === "problem" && event.code === "around-relay");
    expect(named()).toEqual(["legacy 18199"]);
    const since = dev.events.length;
    writeFileSync(join(project, "agentid.yaml"), yaml(GIVEN));
    await dev.until((event) => event.event === "reload" && event.outcome === "applied", since);
    expect(named()).toEqual(["legacy 18199", "orders 18197", "ledger 18196"]);
    const { stdout } = await agentid(["status"], { cwd: project });
    const around = stdout.split("\n").filter((line) => line.includes("(can be called around the relay)"));
    expect(around.map((line) => line.trim().split(/\s+/)[0])).toEqual(["legacy", "orders", "ledger"]);
    const status = JSON.parse((await agentid(["status", "--json"], { cwd: project })).stdout) as {
      services: { name: string; reachableAround: boolean }[];
    };
    expect(status.services.filter(({ reachableAround }) => reachableAround).map(({ name }) => name)).toEqual([
      ...["legacy", "orders", "ledger"],
    ]);
  });

  it("are named by the doctor too, whether the daemon runs or not, and only those", async () => {
    const found = async (environment = {}) => {
      const { code, stdout } = await agentid(["doctor", "--json"], { cwd: project, env: environment });
      const { findings } = JSON.parse(stdout) as { findings: { check: string; state: string; message: string }[] };
      return { code, of: (check: string) => findings.filter((one) => one.check === check) };
    };
    const running = await found({ OPENAI_API_KEY: "not shown", SPIFFE_ENDPOINT_SOCKET: "unix:///nowhere" });
    const around = running.of("around-relay").map(({ message }) => /^service (\w+)/.exec(message)?.[1]);
    expect(around).toEqual(["legacy", "orders", "ledger"]);
    expect(running.code).toBe(0);
    expect(running.of("daemon")[0]).toMatchObject({ state: "ok", message: expect.stringContaining("shop.local runs") });
    const environment = running.of("environment").map(({ message }) => message);
    expect(environment).toEqual([
      expect.stringContaining("unix:///nowhere, which is not there"),
      expect.stringContaining("OPENAI_API_KEY"),
    ]);
    expect(environment.join()).not.toContain("not shown");
    const valid = readFileSync(join(project, "policies/none.yaml"), "utf8");
    const stopped = makeProject({ "agentid.yaml": yaml(GIVEN), "inside.js": SERVICE, "policies/none.yaml": valid });
    const other = async () => {
      const { code, stdout } = await agentid(["doctor", "--project", stopped], { cwd: "/" });
      return { code, stdout };
    };
    expect(await other()).toMatchObject({ code: 0, stdout: expect.stringContaining("the trust domain does not run") });
    expect((await other()).stdout.match(/service \w+ listens on TCP port/g)).toHaveLength(3);
    writeFileSync(join(stopped, "policies/none.yaml"), "rules: [{ name: x, allow: { from: agents/nobody } }]\n");
    expect(await other()).toMatchObject({ code: 1, stdout: expect.stringMatching(/^failed .*policies\/none.yaml/m) });
  });

  it("are named no more once they are gone", async () => {
    const warnings = async () => (await agentid(["status"], { cwd: project })).stdout.match(/^warning: service \w+/gm);
    expect(await warnings()).toEqual(["legacy", "orders", "ledger"].map((name) => `warning: service ${name}`));
    const since = dev.events.length;
    writeFileSync(join(project, "agentid.yaml"), yaml());
    await dev.until((event) => event.event === "reload" && event.outcome === "applied", since);
    expect(await warnings()).toEqual(["warning: service legacy"]);
  });

  it("are not those that agentid starts: they listen on a socket behind a folder of their owner's, and on no port", async () => {
    await expect.poll(() => existsSync(join(project, "inside.listen"))).toBe(true);
    const [path = "", pid = ""] = readFileSync(join(project, "inside.listen"), "utf8").split("\n");
    expect(path.startsWith(runtimeBase())).toBe(true);
    expect(await ask(path, ordinaryUser)).toBe("arrived");
    if (ordinaryUser !== undefined) expect(await ask(path, { uid: 65_533, gid: 65_533 })).toBe("EACCES");
    if (process.platform !== "linux") return;
    const open = socketsOf(pid);
    const listening = ["tcp", "tcp6"].flatMap((table) =>
      listeningIn(readFileSync(`/proc/${pid}/net/${table}`, "utf8")),
    );
    expect(open.length).toBeGreaterThan(0);
    // The daemon's own ports are in these tables, which proves that they are read.
    expect(listening.length).toBeGreaterThan(0);
    expect(listening.filter((inode) => open.includes(inode))).toEqual([]);
  });

  const ASK = `const request = require("node:http").get({ socketPath: process.argv[1], path: "/", headers: { Host: "x" } }, (response) =>
    response.on("data", (chunk) => process.stdout.write(chunk)));
  request.on("error", ({ code }) => process.stdout.write(code));`;

  async function ask(path: string, user: { uid: number; gid: number } | undefined): Promise<string> {
    return (await run(process.execPath, ["-e", ASK, path], { cwd: "/", user })).stdout;
  }
});

/** Inodes of the sockets that a process holds. */
function socketsOf(pid: string): readonly string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).flatMap((fd) => {
    try {
      return /^socket:\[(\d+)\]$/.exec(readlinkSync(join(folder, fd)))?.[1] ?? [];
    } catch {
      return [];
    }
  });
}

/** Inodes of those that listen (state 0A of /proc/net/tcp). */
function listeningIn(table: string): readonly string[] {
  return table.split("\n").flatMap((line) => {
    const fields = line.trim().split(/\s+/);
    return fields[3] === "0A" ? [fields[9] ?? ""] : [];
  });
}
