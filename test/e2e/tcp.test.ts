import { existsSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { agentid, bin, makeProject, python, type RunningDev, startDev, startProgram } from "./agentid.js";
import { canSandbox } from "./sandboxed.js";

/** One "address TEXT", "socket TEXT" or "path PATH" a line: sends TEXT, ends its side, prints what comes back. "hold" keeps a connection and says how it ended. */
const AGENT = `import os, socket, sys
print("up", os.getpid(), flush=True)
def connected(how, text):
    if how in ("socket", "path"):
        s = socket.socket(socket.AF_UNIX)
        s.connect(os.environ["AGENTID_SOCKET_ORDERS"] if how == "socket" else text)
        return s
    host, port = os.environ["AGENTID_ADDRESS_ORDERS"].split(":")
    return socket.create_connection((host, int(port)), timeout=20)
print(*sorted(name for name in os.environ if name.startswith("AGENTID_")), flush=True)
for line in sys.stdin:
    how, text = line.rstrip("\\n").split(" ", 1)
    try:
        s = connected("address" if how == "hold" else how, text)
        s.sendall(text.encode())
        if how != "hold": s.shutdown(socket.SHUT_WR)
        back = b""
        while True:
            more = s.recv(65536)
            if not more: break
            back += more
            if how == "hold": print("held", more.decode(), flush=True)
        print("got", back.decode(), flush=True)
    except OSError as error:
        print("broke", error, flush=True)
`;

const SERVICE = `const { createServer } = require("node:net");
createServer({ allowHalfOpen: true }, (socket) => {
  socket.on("error", () => socket.destroy());
  socket.pipe(socket);
}).listen(process.env.AGENTID_LISTEN);
`;

const YAML = `trustDomain: shop.local
identities:
  agents/billing: { launch: [${python}, agents/billing.py] }
  agents/planner: { launch: [${python}, agents/planner.py] }
services:
  orders: { tcp: { command: [${JSON.stringify(process.execPath)}, orders.js] }, listen: { unix: run/orders.sock } }
reload: auto
`;

describe.skipIf(python === undefined)("a tcp service of a project", () => {
  const project = makeProject({
    "agentid.yaml": YAML,
    "agents/billing.py": AGENT,
    "agents/planner.py": AGENT,
    "orders.js": SERVICE,
    "policies/orders.yaml":
      "rules:\n  - { name: billing-connects, allow: { from: agents/billing, to: orders, action: connect } }\n",
    "policies/orders.test.yaml": `tests:
  - name: billing alone
    as: [agents/billing, agents/planner]
    calls: [connect orders]
    allowed: { agents/billing: all, agents/planner: all }
`,
  });
  let dev: RunningDev;
  const agents: ReturnType<typeof startProgram>[] = [];

  beforeAll(async () => {
    dev = await startDev(project);
  });
  afterAll(async () => {
    for (const agent of agents) await agent.end();
    await dev.stop();
    rmSync(project, { recursive: true, force: true });
  });

  const OUTSIDE = ["ADDRESS_ORDERS", "AUTHZEN", "CONTROL", "MTLS_ORDERS", "SOCKET_ORDERS"];
  const variables = (names: readonly string[]) => names.map((name) => `AGENTID_${name}`).join(" ");

  async function launch(name: string) {
    const command = [bin, "run", name, "--", python ?? "", `agents/${name}.py`];
    const agent = startProgram(process.execPath, command, { cwd: project });
    agents.push(agent);
    expect(await agent.line()).toBe(`up ${agent.pid}`);
    expect(await agent.line()).toBe(variables(OUTSIDE));
    return agent;
  }
  const ask = async (agent: ReturnType<typeof startProgram>, task: string) => {
    agent.write(`${task}\n`);
    return agent.line();
  };

  it("is found by its address and its socket, by who may connect", async () => {
    const billing = await launch("billing");
    expect(await ask(billing, "address SELECT 1")).toBe("got SELECT 1");
    expect(await ask(billing, "socket SELECT 2")).toBe("got SELECT 2");
    expect(statSync(join(project, "run", "orders.sock")).mode & 0o777).toBe(0o600);
    const planner = await launch("planner");
    const seen = dev.events.length;
    expect(await ask(planner, "address DROP TABLE")).toBe("got ");
    const denied = await dev.until((event) => event.event === "call" && event.verdict === "DENY", seen);
    expect(denied).toMatchObject({ caller: "agents/planner", protocol: "tcp", summary: "connect", evidence: "launch" });
    const decision = "decision" in denied ? (denied.decision ?? "") : "";
    const explained = await agentid(["explain", decision.slice(0, 8)], { cwd: project });
    expect(explained.stdout).toContain("DENY  agents/planner → orders");
    expect(explained.stdout).toContain("a rule for connect only");
    const suggested = await agentid(["policy", "suggest"], { cwd: project });
    expect(suggested.stdout).toContain("agents/planner → orders/connect");
    const applied = await agentid(["policy", "apply", decision, "1", "--yes"], { cwd: project });
    expect(applied.stdout).toMatch(/\+ .*action: connect/);
    await dev.until((event) => event.event === "reload" && event.outcome === "applied", seen);
    expect(await ask(planner, "address SELECT 3")).toBe("got SELECT 3");
  });

  it("is in the status, and its rules are tested and explained like others", async () => {
    const status = JSON.parse((await agentid(["status", "--json"], { cwd: project })).stdout) as {
      services: { name: string }[];
    };
    expect(status.services).toEqual([
      expect.objectContaining({
        name: "orders",
        protocol: "tcp",
        url: expect.stringMatching(/^tcp:\/\/127\.0\.0\.1:\d+$/),
        socket: join(project, "run", "orders.sock"),
        reachableAround: false,
      }),
    ]);
    const call = ["policy", "explain", "connect orders", "--as", "agents/billing", "--json"];
    const explained = JSON.parse((await agentid(call, { cwd: project })).stdout) as object;
    expect(explained).toMatchObject({ allowed: true, rule: "billing-connects" });
    const tested = await agentid(["policy", "test"], { cwd: project });
    expect(tested).toMatchObject({ code: 0, stdout: expect.stringContaining("2 passed, 0 failed") });
  });

  it.skipIf(!canSandbox)("is found by its address in a sandbox, where its socket is not", async () => {
    const command = [bin, "run", "billing", "--sandbox", "--", python ?? "", "agents/billing.py"];
    const agent = startProgram(process.execPath, command, { cwd: project });
    agents.push(agent);
    expect(await agent.line()).toMatch(/^up \d+$/);
    expect(await agent.line()).toBe(variables(OUTSIDE.filter((name) => !/CONTROL|SOCKET/.test(name))));
    expect(await ask(agent, "address SELECT 1")).toBe("got SELECT 1");
    expect(await ask(agent, `path ${join(project, "run", "orders.sock")}`)).toBe(
      "broke [Errno 2] No such file or directory",
    );
    // The positive control: outside the same path is the way in.
    expect(await ask(await launch("billing"), `path ${join(project, "run", "orders.sock")}`)).toMatch(
      /^got .*orders.sock$/,
    );
  });

  it("ends at once for who is revoked", async () => {
    const billing = await launch("billing");
    billing.write("hold begun\n");
    expect(await billing.line()).toBe("held begun");
    expect((await agentid(["revoke", "billing"], { cwd: project })).code).toBe(0);
    expect(await billing.line()).toMatch(/^broke .*[Rr]eset/);
    expect((await agentid(["revoke", "--undo", "billing"], { cwd: project })).code).toBe(0);
  });

  it("leaves no socket behind, and replaces what kill -9 left", async () => {
    const socket = join(project, "run", "orders.sock");
    await dev.stop("SIGKILL");
    expect(existsSync(socket)).toBe(true);
    dev = await startDev(project);
    expect(await ask(await launch("billing"), "socket again")).toBe("got again");
    await dev.stop();
    expect(existsSync(socket)).toBe(false);
    dev = await startDev(project);
  });
});
