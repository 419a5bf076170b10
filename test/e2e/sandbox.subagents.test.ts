import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { bin, giveTo, type RunningDev, run, startDev } from "./agentid.js";
import {
  type Attempt,
  canSandbox,
  launchedAs,
  makeSandboxedProject,
  type Prober,
  proberCommand,
  recorded,
} from "./sandboxed.js";

// Each launch starts two Nodes, and most tests several.
vi.setConfig({ testTimeout: 90_000 });

const command = JSON.stringify(proberCommand);
const IDENTITIES = `  agents/shut:
    launch: { command: ${command}, subagents: [agents/helper, agents/plain, agents/narrow], sandbox: { write: [out] } }
  agents/helper:
    launch: { command: ${command}, subagents: [agents/plain], sandbox: { write: [out, src] } }
  agents/plain:
    launch: ${command}
  agents/narrow:
    launch: { command: ${command}, sandbox: true }
  agents/stranger:
    launch: ${command}`;
const POLICY = `rules:
  - { name: shut-reads, allow: { from: agents/shut, to: services/invoices, method: GET, path: /v1/shut/** } }
  - { name: helper-reads, allow: { from: agents/helper, to: services/invoices, method: GET, path: /v1/** } }
  - { name: plain-reads, allow: { from: agents/plain, to: services/invoices, method: GET, path: /v1/** } }
`;

const call = (path: string) =>
  `import os, urllib.request\nvalue = urllib.request.urlopen(os.environ["AGENTID_URL_INVOICES"] + ${JSON.stringify(path)}, timeout=10).read().decode()`;
const speaksAs = (name: string) => ({ ok: true, value: expect.stringContaining(`URI=spiffe://shop.local/${name}`) });
const FORBIDDEN = { ok: false, error: expect.stringContaining("HTTP Error 403") };
const runAs = (name: string, argv: readonly string[] = proberCommand) => ["agentid", "run", name, "--", ...argv];
/** What a command that ends says, and its exit code. */
const output = (argv: readonly string[]) =>
  `import subprocess\nended = subprocess.run(${JSON.stringify(argv)}, stdin=subprocess.DEVNULL, capture_output=True, text=True)\nvalue = str(ended.returncode) + " " + ended.stdout + ended.stderr`;

/** A program below the agent, which stays; it takes attempts as the agent does. */
async function below(agent: Pick<Prober, "attempt">, argv: readonly string[]): Promise<Pick<Prober, "attempt">> {
  const name = `below_${Math.random().toString(36).slice(2)}`;
  const start = `import subprocess, sys\nsys.${name} = subprocess.Popen(${JSON.stringify(argv)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)\nvalue = sys.${name}.stdout.readline()`;
  expect(await agent.attempt(start)).toMatchObject({ value: expect.stringMatching(/^up /) });
  return {
    async attempt(code) {
      const line = JSON.stringify(`${Buffer.from(code).toString("base64")}\n`);
      const said = await agent.attempt(
        `import sys\nsys.${name}.stdin.write(${line})\nsys.${name}.stdin.flush()\nvalue = sys.${name}.stdout.readline()`,
      );
      return JSON.parse(String(said.value)) as Attempt;
    },
  };
}

describe.skipIf(!canSandbox)("sub-agents that an agent launches from inside its sandbox", () => {
  const { project, home, secrets } = makeSandboxedProject({ more: IDENTITIES });
  const programs: Pick<Prober, "end">[] = [];
  let dev: RunningDev;
  const runtime = () => dirname(dev.ready.control.replace("unix://", ""));
  const launchSockets = () => readdirSync(runtime()).filter((name) => name.startsWith("launch-"));

  beforeAll(async () => {
    writeFileSync(join(project, "policies/more.yaml"), POLICY);
    giveTo(project);
    dev = await startDev(project, [], { HOME: home });
  });
  afterAll(async () => {
    for (const program of programs) await program.end();
    await dev?.stop();
  });

  async function launch(...words: string[]): Promise<Prober> {
    const agent = await launchedAs(words, { project, home });
    programs.push(agent);
    return agent;
  }

  it("have their identity below the agent: permitted is what both are, and the record has the chain and the walls", async () => {
    const agent = await launch("--sandbox", "agents/shut");
    const helper = await below(agent, runAs("agents/helper"));
    expect(await helper.attempt(call("/v1/shut/x"))).toMatchObject(speaksAs("agents/helper"));
    expect(await helper.attempt(call("/v1/x"))).toMatchObject(FORBIDDEN);
    expect((await recorded("launch.granted", project)).at(-1)).toMatchObject({
      fields: {
        identity: "agents/helper",
        launchedBy: ["spiffe://shop.local/agents/shut"],
        sandbox: { read: [], write: [join(project, "out")] },
      },
    });
    // The control: launched by nobody, the same agent may.
    const alone = await launch("--sandbox", "agents/helper");
    expect(await alone.attempt(call("/v1/x"))).toMatchObject(speaksAs("agents/helper"));
  });

  it("stand in the same walls, whatever their own entry would show", async () => {
    const agent = await launch("--sandbox", "agents/shut");
    const [secret = ""] = secrets;
    const readSecret = `value = open(${JSON.stringify(secret)}).read()`;
    const control = `import socket\nsocket.socket(socket.AF_UNIX).connect(${JSON.stringify(dev.ready.control.replace("unix://", ""))})`;
    const write = (folder: string) => `open("${folder}/by-sub", "w").close()`;
    for (const name of ["agents/helper", "agents/plain"]) {
      const sub = await below(agent, runAs(name));
      expect(await sub.attempt(readSecret), name).toMatchObject({ ok: false });
      expect(await sub.attempt(control), name).toMatchObject({
        ok: false,
        error: expect.stringContaining("FileNotFound"),
      });
      expect(await sub.attempt(write("src")), name).toMatchObject({
        ok: false,
        error: expect.stringContaining("Read-only"),
      });
      expect(await sub.attempt(write("out")), name).toMatchObject({ ok: true });
    }
    const outside = await launch("agents/plain");
    for (const code of [readSecret, control, write("src")])
      expect(await outside.attempt(code)).toMatchObject({ ok: true });
  });

  it("launch their own in turn, and the chain grows", async () => {
    const helper = await below(await launch("--sandbox", "agents/shut"), runAs("agents/helper"));
    const plain = await below(helper, runAs("agents/plain"));
    expect(await plain.attempt(call("/v1/shut/x"))).toMatchObject(speaksAs("agents/plain"));
    expect(await plain.attempt(call("/v1/x"))).toMatchObject(FORBIDDEN);
    const chain = ["spiffe://shop.local/agents/helper", "spiffe://shop.local/agents/shut"];
    expect((await recorded("launch.granted", project)).at(-1)).toMatchObject({ fields: { launchedBy: chain } });
  });

  it("are refused where the entry does not name them, or pins another command, or asks for narrower walls", async () => {
    const agent = await launch("--sandbox", "agents/shut");
    const asked = async (argv: readonly string[]) => (await agent.attempt(output(argv))).value;
    expect(await asked(runAs("agents/stranger"))).toMatch(/^3 .*agents\/shut may not launch agents\/stranger/s);
    expect(await asked(runAs("agents/plain", ["true"]))).toMatch(/^3 .*granted for another command/s);
    expect(await asked(runAs("agents/narrow"))).toMatch(
      /^3 .*shows .*out, which the sandbox of agents\/narrow does not/s,
    );
    // The control; with --sandbox it is the same, since that is where it stands.
    expect(await asked(runAs("agents/plain"))).toMatch(/^0 up /);
    expect(await asked(["agentid", "run", "--sandbox", "agents/helper", "--", ...proberCommand])).toMatch(/^0 up /);
    expect(await (await launch("--sandbox", "agents/narrow")).attempt("value = 1")).toMatchObject({ ok: true });
  });

  it("are all that can be asked for inside, and by nobody whom no agent started", async () => {
    const agent = await launch("--sandbox", "agents/shut");
    expect((await agent.attempt(output(["agentid", "status"]))).value).toMatch(/^[^0].*refused/s);
    expect((await agent.attempt(output(["agentid", "rotate"]))).value).toMatch(/^[^0].*refused/s);
    expect((await recorded("control.refused", project)).at(-1)).toMatchObject({
      fields: { route: "rotate", reason: expect.stringContaining("nothing else") },
    });
    const orphan = `import os, subprocess, time
reading, writing = os.pipe()
if os.fork() == 0:
    if os.fork() > 0: os._exit(0)
    while os.getppid() != 1: time.sleep(0.01)
    ended = subprocess.run(${JSON.stringify(runAs("agents/plain"))}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    os.write(writing, (str(ended.returncode) + " " + ended.stdout + ended.stderr).encode())
    os._exit(0)
os.close(writing)
os.wait()
value = ""
while chunk := os.read(reading, 4096): value += chunk.decode()`;
    expect((await agent.attempt(orphan)).value).toMatch(/^3 .*nothing shows which agent started it/s);
    expect((await agent.attempt(output(runAs("agents/plain")))).value).toMatch(/^0 up /);
  });

  it("are asked for at a socket of this sandbox: outside nobody is heard there, elsewhere it does not exist, and it ends with the agent", async () => {
    for (const program of programs.splice(0)) await program.end();
    await vi.waitUntil(() => launchSockets().length === 0, { timeout: 20_000, interval: 20 });
    const agent = await launch("--sandbox", "agents/shut");
    const [name = "", ...others] = launchSockets();
    expect(others).toEqual([]);
    const ask = (socket: string) =>
      run(process.execPath, [bin, "run", "agents/plain", "--", ...proberCommand], {
        cwd: project,
        env: { HOME: home, AGENTID_CONTROL: `unix://${socket}` },
      });
    expect(await ask(join(runtime(), name))).toMatchObject({
      code: 3,
      stderr: expect.stringContaining("it is not inside this sandbox"),
    });
    // What an agent started outside descends from an agent, but is not inside either.
    const outside = await launch("agents/plain");
    const there = `import os\nos.environ["AGENTID_CONTROL"] = "unix://${join(runtime(), name)}"\n`;
    const asked = there + output([process.execPath, bin, ...runAs("agents/plain").slice(1)]);
    expect((await outside.attempt(asked)).value).toMatch(/^3 .*it is not inside this sandbox/s);
    expect((await agent.attempt(output(runAs("agents/plain")))).value).toMatch(/^0 up /);
    expect(await ask(dev.ready.control.replace("unix://", ""))).toMatchObject({ code: 0 });
    const lone = await launch("--sandbox", "agents/narrow");
    expect(await lone.attempt(`import os\nvalue = sorted(os.listdir("/run/agentid"))`)).toMatchObject({
      value: expect.not.arrayContaining(["launch.sock"]),
    });
    await agent.end();
    await vi.waitUntil(() => !existsSync(join(runtime(), name)), { timeout: 20_000, interval: 20 });
  });
});
