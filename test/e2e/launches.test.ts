import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { agentid, bin, makeProject, python, type RunningDev, run, startDev, startProgram } from "./agentid.js";

/** Launches that concern more than one process: children, instances, sub-agents, and files that change while an agent runs. */

const py = python ?? "python3";
const node = process.execPath;
const client = join(import.meta.dirname, "..", "..", "dist", "client", "spiffe", "index.js");

/** One "METHOD /path" a line; "run COMMAND" runs it in a shell and gives its exit code and output; "exec PROGRAM" becomes it. */
const AGENT = `import os, subprocess, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ask import ask
print("up", os.getpid(), flush=True)
for line in sys.stdin:
    word, rest = line.split(None, 1)
    rest = rest.strip()
    if word == "exec":
        os.execv(rest, [rest])
    if word == "spawn":
        print(0, subprocess.Popen(rest.split(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid, flush=True)
        continue
    if word == "run":
        done = subprocess.run(rest, shell=True, capture_output=True, text=True)
        print(done.returncode, (done.stdout + done.stderr).replace("\\n", " | "), flush=True)
        continue
    print(*ask(word, rest), flush=True)
`;
const ASK = `import os, sys, urllib.request, urllib.error
def ask(method, path):
    request = urllib.request.Request(os.environ["AGENTID_URL_INVOICES"] + path, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, repr(error)
if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(*ask("GET", path), flush=True)
`;
/** Asks again and again until told to stop, and keeps the newest answer in a file of the given name. */
const ASK_ALWAYS = `import os, sys, time
from ask import ask
name = sys.argv[1]
while not os.path.exists(name + ".stop"):
    with open(name + ".new", "w") as file:
        file.write(" ".join(map(str, ask("GET", "/v1/x"))))
    os.replace(name + ".new", name)
    time.sleep(0.02)
`;
/** Calls the service's mutual-TLS side with its own SVID, around the outbound leg. */
const DIRECT = `import { request } from "node:https";
import { connectTls, createX509Source, anyId } from ${JSON.stringify(client)};
const source = await createX509Source();
console.log("subject", new (await import("node:crypto")).X509Certificate(source.svid().certificates[0]).subject ?? "(empty)");
for (const path of process.argv.slice(2)) {
  const [host, port] = process.env.DIRECT.split(":");
  const socket = await connectTls(source, { host, port: Number(port), authorize: anyId() });
  const answer = await new Promise((resolve, reject) => {
    request({ createConnection: () => socket, path, headers: { host: "invoices" } }, resolve).on("error", reject).end();
  });
  let body = "";
  for await (const chunk of answer) body += chunk;
  console.log(answer.statusCode, body.replaceAll("\\n", " "));
}
source.close();
`;
/** Launches a sub-agent and keeps what it is answered for two paths, asked again and again, in a file. */
const HOLD = `import os, subprocess, time
command = ${JSON.stringify([node, bin, "run", "research", "--", py, "agents/research.py"])}
agent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
agent.stdout.readline()
def ask(path):
    agent.stdin.write("GET " + path + "\\n")
    agent.stdin.flush()
    return agent.stdout.readline()
while not os.path.exists("held.stop"):
    with open("held.new", "w") as file:
        file.write(ask("/v1/lead/a") + ask("/v1/b"))
    os.replace("held.new", "held")
    time.sleep(0.02)
`;
const SERVICE = `const { createServer } = require("node:http");
createServer((request, response) => {
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ path: request.url, caller: request.headers["x-forwarded-client-cert"] ?? null }));
}).listen(process.env.AGENTID_LISTEN);
`;

const launchOf = (file: string, more = "") => `{ command: ${JSON.stringify([py, file])}${more} }`;
const CONFIG = `trustDomain: shop.local
identities:
  agents/lead:
    launch: ${launchOf("agents/lead.py", ", subagents: [agents/research, agents/direct, agents/deputy]")}
  agents/deputy:
    launch: ${launchOf("agents/deputy.py", ", subagents: [agents/research]")}
  agents/research:
    launch: ${launchOf("agents/research.py", ", instances: true")}
  agents/direct:
    launch: { command: ${JSON.stringify([node, "agents/direct.mjs", "/v1/lead/a", "/v1/b"])}, keepEnv: [DIRECT] }
  agents/builder:
    launch: ${launchOf("agents/builder.py", ", children: true")}
  agents/plain:
    launch: ${launchOf("agents/plain.py")}
  services/invoices: { service: invoices }
services:
  invoices: { http: { command: [${JSON.stringify(node)}, services/invoices.js] } }
reload: auto
`;
const POLICY = `rules:
  - name: lead-reads
    allow: { from: agents/lead, to: services/invoices, method: GET, path: /v1/lead/** }
  - name: everybody-reads
    allow: { from: [agents/research, agents/direct, agents/deputy, agents/builder, agents/plain], to: services/invoices, method: GET, path: /v1/** }
  - name: research-instances-read
    allow: { from: agents/research/*, to: services/invoices, method: GET, path: /v1/instances/** }
  - name: only-the-builder-itself
    allow: { from: agents/builder, to: services/invoices, method: GET, path: /launched/** }
    when: caller.evidence == "launch"
`;

type Agent = ReturnType<typeof startProgram>;

describe.skipIf(python === undefined)("launches", () => {
  const project = makeProject({
    "agentid.yaml": CONFIG,
    "policies/shop.yaml": POLICY,
    "services/invoices.js": SERVICE,
    "agents/ask.py": ASK,
    "agents/ask_always.py": ASK_ALWAYS,
    "agents/hold.py": HOLD,
    "agents/direct.mjs": DIRECT,
    ...Object.fromEntries(
      ["lead", "deputy", "research", "builder", "plain"].map((name) => [`agents/${name}.py`, AGENT]),
    ),
  });
  let dev: RunningDev;
  const agents: Agent[] = [];

  beforeAll(async () => {
    dev = await startDev(project);
  });
  afterAll(async () => {
    for (const name of ["child", "orphan", "held"]) writeFileSync(join(project, `${name}.stop`), "");
    for (const agent of agents) await agent.end();
    await dev.stop();
  });

  const commandOf = (name: string) => [py, `agents/${name}.py`];
  async function launch(name: string, ...options: string[]): Promise<Agent> {
    const args = [bin, "run", name, ...options, "--", ...commandOf(name)];
    const agent = startProgram(node, args, { cwd: project });
    agents.push(agent);
    expect(await agent.line()).toBe(`up ${agent.pid}`);
    return agent;
  }
  async function tell(agent: Agent, task: string): Promise<{ status: number; body: string }> {
    agent.write(`${task}\n`);
    const [status = "", ...rest] = (await agent.line()).split(" ");
    return { status: Number(status), body: rest.join(" ") };
  }
  /** What a child of `agent` gets for these paths. */
  const byChild = (agent: Agent, ...paths: string[]) => tell(agent, `run ${py} agents/ask.py ${paths.join(" ")}`);
  const asSubagent = (name: string, ...command: string[]) => `${node} ${bin} run ${name} -- ${command.join(" ")}`;
  /** `agent` launches `name`, which asks for the paths one after the other. */
  const bySubagent = (agent: Agent, name: string, ...paths: string[]) => {
    const tasks = paths.map((path) => `GET ${path}`).join("\\n");
    return tell(agent, `run printf '${tasks}\\n' | ${asSubagent(name, ...commandOf(name))}`);
  };
  const decisionIn = (body: string) => /"decision":"([a-z0-9]+)"/.exec(body)?.[1] ?? "";
  const record = async (kind: string) => {
    const { entries } = JSON.parse(
      (await agentid(["audit", "show", "--limit", "1000", "--json"], { cwd: project })).stdout,
    ) as {
      entries: { kind: string; fields: Readonly<Record<string, unknown>> }[];
    };
    return entries.filter((entry) => entry.kind === kind).map(({ fields }) => fields);
  };

  describe("children", () => {
    it("have the identity with the evidence `parent` where the entry says so, and none where it does not", async () => {
      const [builder, plain] = [await launch("builder"), await launch("plain")];
      expect(await byChild(builder, "/v1/a")).toMatchObject({
        status: 0,
        body: expect.stringMatching(/^200 .*URI=spiffe:\/\/shop\.local\/agents\/builder/),
      });
      const deeper = await tell(builder, `run sh -c "${py} agents/ask.py /v1/b; true"`);
      expect(deeper.body).toMatch(/^200 /);
      expect((await tell(plain, "GET /v1/a")).status).toBe(200);
      const refused = await byChild(plain, "/v1/a");
      expect(refused.body).toMatch(/^403 .*no identity/);
      const calls = (await record("decision")).filter(
        (fields) => fields.caller === "spiffe://shop.local/agents/builder",
      );
      expect(calls.map(({ evidence }) => evidence)).toEqual(["parent", "parent"]);
    });

    it("are told from the launched process by rules that ask", async () => {
      const builder = await launch("builder");
      expect((await tell(builder, "GET /launched/x")).status).toBe(200);
      const denied = await byChild(builder, "/launched/x");
      expect(denied.body).toMatch(/^403 /);
      const explained = await agentid(["explain", decisionIn(denied.body)], { cwd: project });
      expect(explained.stdout).toContain('"parent" == "launch" is false');
      expect(explained.stdout).toMatch(/proof +parent/);
    });

    it("lose it when the launched process executes something else, and when another process is their parent", async () => {
      const builder = await launch("builder");
      const newest = (name: string) => async () =>
        existsSync(join(project, name)) ? readFileSync(join(project, name), "utf8") : "";
      const stop = (name: string) => writeFileSync(join(project, `${name}.stop`), "");
      await tell(builder, `spawn ${py} agents/ask_always.py child`);
      await expect.poll(newest("child"), SOON).toMatch(/^200 .*agents\/builder/);
      // The shell that starts it has exited at once: nobody can tell any more whose child it was.
      await tell(builder, `run ${py} agents/ask_always.py orphan >/dev/null 2>&1 &`);
      await expect.poll(newest("orphan"), SOON).toMatch(/^403 .*no identity/);
      await expect.poll(newest("child"), SOON).toMatch(/^200 /);
      builder.write("exec /bin/cat\n");
      await expect.poll(newest("child"), SOON).toMatch(/^403 .*no identity/);
      stop("child");
      stop("orphan");
    });
  });

  describe("instances", () => {
    const status = async () => (await agentid(["status"], { cwd: project })).stdout;

    it("have an ID of their own, which rules about the entry are not about", async () => {
      const [entry, one] = [await launch("research"), await launch("research", "--instance", "one")];
      expect((await tell(entry, "GET /v1/a")).body).toMatch(/URI=spiffe:\/\/shop\.local\/agents\/research"/);
      const allowed = await tell(one, "GET /v1/instances/a");
      expect(allowed).toMatchObject({ status: 200, body: expect.stringContaining("agents/research/one") });
      const denied = await tell(one, "GET /v1/a");
      expect(denied).toMatchObject({
        status: 403,
        body: expect.stringContaining("no rule allows agents/research/one GET /v1/a"),
      });
      expect((await tell(entry, "GET /v1/instances/a")).status).toBe(200);
      expect(await status()).toMatch(/spiffe:\/\/shop\.local\/agents\/research\/one .*pid/);
      await one.end();
      await expect.poll(status, SOON).not.toContain("agents/research/one");
    });

    it("get a new name with `auto`; a name lives once, and is free again after its end", async () => {
      const [some, other] = [
        await launch("research", "--instance", "auto"),
        await launch("research", "--instance", "auto"),
      ];
      const idOf = async (agent: Agent) =>
        /URI=([^"]+)/.exec((await tell(agent, "GET /v1/instances/a")).body)?.[1] ?? "none";
      const ids = await Promise.all([idOf(some), idOf(other)]);
      for (const id of ids) expect(id).toMatch(/^spiffe:\/\/shop\.local\/agents\/research\/[0-9a-f]{10}$/);
      expect(ids[0]).not.toBe(ids[1]);

      const twin = await launch("research", "--instance", "twin");
      const again = ["run", "research", "--instance", "twin", "--", ...commandOf("research")];
      const refused = await agentid(again, { cwd: project });
      expect([refused.code, refused.stderr]).toEqual([3, expect.stringContaining("agents/research/twin runs already")]);
      await twin.end();
      await expect.poll(async () => (await agentid(again, { cwd: project })).code, SOON).toBe(0);
    });

    it.each([
      ["plain", "x", "agents/plain has no instances"],
      ["research", "a/b", "it has one segment"],
      ["research", "..", "no name of an instance"],
      ["research", "a b", "no name of an instance"],
      ["research", "x".repeat(65), "longer than 64"],
    ])("are refused: %s --instance %s", async (name, instance, reason) => {
      const refused = await agentid(["run", name, "--instance", instance, "--", ...commandOf(name)], { cwd: project });
      expect([refused.code, refused.stderr]).toEqual([3, expect.stringContaining(reason)]);
    });

    it("are revoked alone or with their entry", async () => {
      const [one, two] = [await launch("research", "--instance", "r1"), await launch("research", "--instance", "r2")];
      const statuses = async () => [
        (await tell(one, "GET /v1/instances/a")).status,
        (await tell(two, "GET /v1/instances/a")).status,
      ];
      expect(await statuses()).toEqual([200, 200]);
      expect((await agentid(["revoke", "agents/research/r1"], { cwd: project })).code).toBe(0);
      expect(await statuses()).toEqual([403, 200]);
      expect((await agentid(["revoke", "agents/research"], { cwd: project })).code).toBe(0);
      expect(await statuses()).toEqual([403, 403]);
      for (const name of ["agents/research/r1", "agents/research"]) {
        expect((await agentid(["revoke", "--undo", name], { cwd: project })).code).toBe(0);
      }
      expect(await statuses()).toEqual([200, 200]);
    });
  });

  describe("sub-agents", () => {
    it("are permitted what they and each agent above them are permitted; the denial says who is not", async () => {
      const lead = await launch("lead");
      const own = await launch("research");
      expect([(await tell(own, "GET /v1/lead/a")).status, (await tell(own, "GET /v1/b")).status]).toEqual([200, 200]);
      const { body } = await bySubagent(lead, "research", "/v1/lead/a", "/v1/b");
      const [, allowed = "", denied = ""] = body.split(" | ");
      expect(allowed).toMatch(/^200 .*URI=spiffe:\/\/shop\.local\/agents\/research"/);
      expect(denied).toMatch(/^403 .*agents\/lead, which launched the caller: no rule allows agents\/lead GET \/v1\/b/);
      const explained = await agentid(["explain", decisionIn(denied)], { cwd: project });
      expect(explained.stdout).toContain("launched by agents/lead");
      expect(explained.stdout).toContain("for spiffe://shop.local/agents/lead, which launched the caller");
      expect(explained.stdout).toContain("1  a rule for agents/lead: GET /v1/b only");
      const calls = (await record("decision")).filter(({ launchedBy }) => launchedBy !== undefined);
      expect(calls).toMatchObject([
        { verdict: "ALLOW", evidence: "launch", launchedBy: ["spiffe://shop.local/agents/lead"] },
        { verdict: "DENY", deniedAbove: "spiffe://shop.local/agents/lead" },
      ]);
      const granted = (await record("launch.granted")).filter(({ launchedBy }) => launchedBy !== undefined);
      expect(granted).toMatchObject([
        { identity: "agents/research", launchedBy: ["spiffe://shop.local/agents/lead"], parentPid: lead.pid },
      ]);
    });

    it("of sub-agents have the whole chain above them", async () => {
      const lead = await launch("lead");
      const inner = `printf 'GET /v1/lead/a\\nGET /v1/b\\n' | ${asSubagent("research", ...commandOf("research"))}`;
      const asked = `printf "%s\\n" "GET /v1/lead/a" "run ${inner.replaceAll("\\n", "\\\\n")}" | ${asSubagent("deputy", ...commandOf("deputy"))}`;
      const { body } = await tell(lead, `run ${asked}`);
      expect(body).toMatch(/200 .*agents\/deputy.*200 .*agents\/research.*403 .*agents\/lead, which launched/);
      const chains = (await record("launch.granted")).map(({ launchedBy }) => launchedBy);
      expect(chains).toContainEqual(["spiffe://shop.local/agents/deputy", "spiffe://shop.local/agents/lead"]);
    });

    it("are only those that the entry names, and an agent gets nothing else over the control socket", async () => {
      const [lead, plain] = [await launch("lead"), await launch("plain")];
      const command = (name: string) => `run ${asSubagent(name, ...commandOf(name))} </dev/null`;
      expect((await tell(lead, command("research"))).status).toBe(0);
      const other = await tell(lead, command("builder"));
      expect(other).toMatchObject({
        status: 3,
        body: expect.stringContaining("agents/lead may not launch agents/builder"),
      });
      const none = await tell(plain, command("research"));
      expect(none).toMatchObject({ status: 3, body: expect.stringContaining("may not administer") });
      for (const args of ["entry pin research", "mcp pin payments --yes", "down"]) {
        const refused = await tell(lead, `run ${node} ${bin} ${args} --project ${project}`);
        expect(refused).toMatchObject({ status: 3, body: expect.stringContaining("may not administer") });
      }
      expect((await agentid(["status"], { cwd: project })).code).toBe(0);
    });

    it("with an SVID of their own, presented around the outbound leg, are known by it as sub-agents", async () => {
      const direct = dev.ready.services.invoices?.mtls ?? "";
      const command = [node, "agents/direct.mjs", "/v1/lead/a", "/v1/b"];
      const env = { DIRECT: direct };
      const own = await run(node, [bin, "run", "direct", "--", ...command], { cwd: project, env });
      expect(own.stdout).toMatch(/^subject \(empty\)\n200 .*\n200 .*\n$/);
      const args = [bin, "run", "lead", "--", ...commandOf("lead")];
      const lead = startProgram(node, args, { cwd: project, env });
      agents.push(lead);
      await lead.line();
      const { body } = await tell(lead, `run ${asSubagent("direct", ...command)}`);
      expect(body).toMatch(
        /^subject description=spiffe:\/\/shop\.local\/agents\/lead \| 200 .* \| 403 .*agents\/lead, which launched the caller/,
      );
    });

    it("are refused once an agent above them is revoked, and stay below it after it has exited", async () => {
      const lead = await launch("lead");
      await tell(lead, `spawn ${py} agents/hold.py`);
      const held = () => readFileSync(join(project, "held"), "utf8");
      await expect.poll(() => existsSync(join(project, "held")) && held(), SOON).toMatch(/^200 .*\n403 .*agents\/lead/);
      expect((await agentid(["revoke", "agents/lead"], { cwd: project })).code).toBe(0);
      await expect.poll(held, SOON).toMatch(/^403 .*no identity/);
      expect((await agentid(["revoke", "--undo", "agents/lead"], { cwd: project })).code).toBe(0);
      await expect.poll(held, SOON).toMatch(/^200 /);
      await lead.end();
      expect(held()).toMatch(/^200 .*\n403 .*agents\/lead/);
      writeFileSync(join(project, "held.stop"), "");
    });
  });

  describe("files", () => {
    it("that change while an agent runs end its identity; a launch after that is refused with both digests", async () => {
      const [plain, deputy] = [await launch("plain"), await launch("deputy")];
      expect((await tell(plain, "GET /v1/a")).status).toBe(200);
      const script = join(project, "agents", "plain.py");
      writeFileSync(script, `${AGENT}# changed\n`);
      await dev.until(
        (event) =>
          event.event === "process" &&
          event.change === "ended" &&
          event.pid === plain.pid &&
          /plain\.py/.test(event.detail),
      );
      expect((await tell(plain, "GET /v1/a")).body).toContain("no identity");
      expect((await tell(deputy, "GET /v1/a")).status).toBe(200);
      const refused = await agentid(["run", "plain", "--", ...commandOf("plain")], { cwd: project });
      expect([refused.code, refused.stderr]).toEqual([
        3,
        expect.stringMatching(
          /plain\.py: pinned [0-9a-f]{64}, is now [0-9a-f]{64}[\s\S]*agentid entry pin agents\/plain/,
        ),
      ]);
      writeFileSync(script, AGENT);
      expect((await tell(plain, "GET /v1/a")).body).toContain("no identity");
      expect((await tell(await launch("plain"), "GET /v1/a")).status).toBe(200);
    });
  });
});

const SOON = { timeout: 10_000, interval: 30 };
