import { spawn } from "node:child_process";
import { existsSync, mkdirSync, realpathSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { agentid, giveTo, makeProject, ordinaryUser, type RunningDev, run, startDev } from "../e2e/agentid.js";

/** Clients and servers nobody here wrote, through both legs of a tcp service and over Unix sockets: psql and postgres, redis-cli and redis-server, curl. */

const found = (name: string, more: readonly string[] = []) =>
  [...more, `/usr/bin/${name}`, `/usr/local/bin/${name}`].find((path) => existsSync(path));
const postgresBin = ["17", "16", "15", "14", "13"].map((one) => `/usr/lib/postgresql/${one}/bin`).find(existsSync);
/** Debian's psql in the PATH is a wrapper of Perl; an identity is of the program that runs. */
const psql = found("psql", postgresBin === undefined ? [] : [join(postgresBin, "psql")]);
const redisServer = found("redis-server");
const redisCli = found("redis-cli");
const curl = found("curl");

function missing(what: string, programs: Readonly<Record<string, string | undefined>>): boolean {
  const lacking = Object.entries(programs).flatMap(([name, path]) => (path === undefined ? [name] : []));
  if (lacking.length > 0) process.stderr.write(`SKIPPED: ${what}: this machine lacks ${lacking.join(", ")}\n`);
  return lacking.length > 0;
}

/** Outside a test, where `expect.poll` is not to be had. */
async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error("it did not come up in time");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function freePort(): Promise<number> {
  const server: Server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** The foreign client is an agent by its executable; no client but it has an identity. */
const configuration = (client: string, service: string, more = "") => `trustDomain: shop.local
identities:
  agents/client: { exe: ${realpathSync(client)} }
services:
  orders: { ${service}, listen: { unix: true } }
${more}reload: auto
`;
const RULES = "rules:\n  - { name: client-connects, allow: { from: agents/client, to: orders } }\n";
const NO_RULES = "rules: []\n";

const running: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const end of running.reverse()) await end();
});

async function start(yaml: string, rules: string): Promise<{ dev: RunningDev; project: string; address: string }> {
  const project = makeProject({ "agentid.yaml": yaml, "policies/orders.yaml": rules });
  const dev = await startDev(project);
  running.push(() => dev.stop());
  return { dev, project, address: new URL(dev.ready.services.orders?.url ?? "").host };
}

async function socketOf(project: string): Promise<string> {
  const { services } = JSON.parse((await agentid(["status", "--json"], { cwd: project })).stdout) as {
    services: { socket?: string }[];
  };
  return services[0]?.socket ?? "";
}

describe.skipIf(missing("psql through the relay", { postgres: postgresBin, psql }))("PostgreSQL", () => {
  let port = 0;
  const folder = makeProject({ empty: "" });
  const data = join(folder, "data");

  beforeAll(async () => {
    port = await freePort();
    const made = await run(join(postgresBin ?? "", "initdb"), ["-D", data, "-U", "shop", "-A", "trust", "--no-sync"], {
      cwd: folder,
    });
    expect(made).toMatchObject({ code: 0 });
    const options = `-p ${port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=${folder} -c fsync=off`;
    const server = spawn(join(postgresBin ?? "", "postgres"), ["-D", data, ...options.split(" ")], {
      ...ordinaryUser,
      cwd: folder,
      stdio: "ignore",
    });
    const ended = new Promise((resolve) => server.once("close", resolve));
    running.push(() => {
      server.kill("SIGINT");
      return ended;
    });
    const ready = [join(postgresBin ?? "", "pg_isready"), "-q", "-h", "127.0.0.1", "-p", String(port)] as const;
    await until(async () => (await run(ready[0], ready.slice(1), { cwd: folder })).code === 0);
  });

  const query = (host: string, at: string, sql: string) =>
    run(psql ?? "", ["-X", "-A", "-t", "-h", host, "-p", at, "-U", "shop", "-d", "postgres", "-c", sql], {
      cwd: folder,
    });

  it("answers psql through both legs, and a dump of many rows is whole", async () => {
    const { dev, address } = await start(configuration(psql ?? "", `tcp: "127.0.0.1:${port}"`), RULES);
    const [host = "", at = ""] = address.split(":");
    expect(await query(host, at, "select 40 + 2")).toMatchObject({ code: 0, stdout: "42\n" });
    const digest = "select md5(string_agg(g::text, ',')) from generate_series(1, 200000) g";
    const rows = await query(host, at, "select g from generate_series(1, 200000) g");
    expect(rows.stdout.split("\n")).toHaveLength(200_001);
    expect((await query(host, at, digest)).stdout).toBe((await query("127.0.0.1", String(port), digest)).stdout);
    const calls = dev.events.filter((event) => event.event === "call");
    expect(calls.map((call) => [call.verdict, call.caller, call.evidence])).toEqual(
      Array.from({ length: 3 }, () => ["ALLOW", "agents/client", "kernel"]),
    );
  });

  it("stays out of reach where no rule allows it", async () => {
    const { dev, address } = await start(configuration(psql ?? "", `tcp: "127.0.0.1:${port}"`), NO_RULES);
    const [host = "", at = ""] = address.split(":");
    const refused = await query(host, at, "select 1");
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/server closed the connection unexpectedly|failed/);
    expect(await dev.until((event) => event.event === "call")).toMatchObject({
      verdict: "DENY",
      caller: "agents/client",
      rule: "default",
    });
  });

  it("is found on a Unix socket that is named as PostgreSQL names its own", async () => {
    const service = `tcp: { unix: ${folder}/.s.PGSQL.${port} }`;
    const project = makeProject({
      "agentid.yaml": configuration(psql ?? "", service).replace("unix: true", "unix: run/.s.PGSQL.5432"),
      "policies/orders.yaml": RULES,
    });
    const dev = await startDev(project);
    running.push(() => dev.stop());
    expect(await query(join(project, "run"), "5432", "select 40 + 2")).toMatchObject({ code: 0, stdout: "42\n" });
  });
});

describe.skipIf(missing("redis-cli through the relay", { "redis-server": redisServer, "redis-cli": redisCli }))(
  "Redis",
  () => {
    const folder = makeProject({ empty: "" });
    const socket = join(folder, "redis.sock");

    beforeAll(async () => {
      const args = ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder];
      const server = spawn(redisServer ?? "", args, { ...ordinaryUser, cwd: folder, stdio: "ignore" });
      const ended = new Promise((resolve) => server.once("close", resolve));
      running.push(() => {
        server.kill("SIGTERM");
        return ended;
      });
      await until(() => existsSync(socket));
    });

    const ask = (args: readonly string[], input = "") => run(redisCli ?? "", args, { cwd: folder, input });

    it("answers redis-cli at the port and at the socket, many commands on one connection", async () => {
      const { dev, project, address } = await start(configuration(redisCli ?? "", `tcp: { unix: ${socket} }`), RULES);
      const [host = "", at = ""] = address.split(":");
      expect(await ask(["-h", host, "-p", at, "SET", "total", "42"])).toMatchObject({ code: 0, stdout: "OK\n" });
      const mass = Array.from({ length: 2_000 }, (_, index) => `RPUSH all ${index}`).join("\n");
      await ask(["-h", host, "-p", at], mass);
      const own = await socketOf(project);
      expect(own).toContain(dirname(dev.ready.control.replace("unix://", "")));
      expect(await ask(["-s", own, "LLEN", "all"])).toMatchObject({ code: 0, stdout: "2000\n" });
      expect(await ask(["-s", own, "GET", "total"])).toMatchObject({ stdout: "42\n" });
    });

    it("stays out of reach where no rule allows it", async () => {
      const { dev, address } = await start(configuration(redisCli ?? "", `tcp: { unix: ${socket} }`), NO_RULES);
      const [host = "", at = ""] = address.split(":");
      const refused = await ask(["-h", host, "-p", at, "PING"]);
      expect(refused.stdout).not.toContain("PONG");
      expect(refused.stdout + refused.stderr).toMatch(/closed the connection/);
      expect(await dev.until((event) => event.event === "call")).toMatchObject({ verdict: "DENY" });
    });
  },
);

describe.skipIf(missing("curl at a Unix socket", { curl }))("curl", () => {
  const SERVICE = `require("node:http").createServer((request, response) => response.end("seen " + request.url)).listen(process.env.AGENTID_LISTEN);`;
  const service = `http: { command: [${JSON.stringify(process.execPath)}, service.js] }`;

  async function ask(rules: string) {
    const project = makeProject({
      "agentid.yaml": configuration(curl ?? "", service),
      "service.js": SERVICE,
      "policies/orders.yaml": rules,
    });
    mkdirSync(join(project, "out"), { recursive: true });
    giveTo(project);
    const dev = await startDev(project);
    running.push(() => dev.stop());
    const at = await socketOf(project);
    return run(curl ?? "", ["-sS", "-w", " %{http_code}", "--unix-socket", at, "http://localhost/v1/x"], {
      cwd: project,
    });
  }

  it("calls an HTTP service at its Unix socket, as far as the rules go", async () => {
    expect(await ask(RULES)).toMatchObject({ code: 0, stdout: "seen /v1/x 200" });
    const refused = await ask(NO_RULES);
    expect(refused.stdout).toMatch(/"code":"denied".* 403$/);
  });
});
