import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { spawn as spawnTerminal } from "@lydell/node-pty";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Outside, runOutside, secret } from "../relay/outside.js";
import {
  agentid,
  bin,
  giveTo,
  makeProject,
  ordinaryUser,
  python,
  type RunningDev,
  runtimeBase,
  startDev,
  startProgram,
} from "./agentid.js";
import { canSandbox } from "./sandboxed.js";

const KEY = "sk-test-0123456789abcdef0123456789abcdef";
const OTHER = "sk-test-other-9876543210fedcba9876543210";

/** One "METHOD NAME /path" a line, to the target; "run COMMAND" runs it; "env" tells every variable. */
const AGENT = `import json, os, subprocess, sys, urllib.request, urllib.error
print("up", flush=True)
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    if word == "env":
        print(json.dumps(dict(os.environ)), flush=True)
        continue
    if word == "run":
        done = subprocess.run(rest, shell=True, capture_output=True, text=True)
        print(json.dumps([done.returncode, done.stdout + done.stderr]), flush=True)
        continue
    name, path = rest.split(" ")
    request = urllib.request.Request(os.environ["AGENTID_URL_" + name] + path, method=word, headers={"Authorization": "Bearer placeholder"})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            print(json.dumps([response.status, response.read().decode()]), flush=True)
    except urllib.error.HTTPError as error:
        print(json.dumps([error.code, error.read().decode()]), flush=True)
`;

describe.skipIf(python === undefined)("an agent calls an API outside with a key that it never sees", () => {
  const command = [python ?? "python3", "agent.py"];
  const boxed = [python ?? "python3", "boxed.py"];
  let api: Outside;
  let elsewhere: Outside;
  let project: string;
  let dev: RunningDev;
  let agent: ReturnType<typeof startProgram>;

  const yaml = (outside: Outside, ca = "api.pem") => `trustDomain: shop.local
identities:
  agents/writer: { launch: ${JSON.stringify(command)} }
  agents/boxed: { launch: { command: ${JSON.stringify(boxed)}, sandbox: true } }
egress:
  openai:
    url: https://127.0.0.1:${outside.port}/v1
    header: { Authorization: "Bearer ${secret("openai")}" }
    ca: ${ca}
    private: true
  vault:
    url: https://127.0.0.1:${outside.port}
    header: { X-Key: "${secret("from-command")}", X-Missing: "${secret("nowhere")}" }
    ca: ${ca}
    private: true
secrets:
  openai: { file: .env.local, key: WRITERS_OWN }
  from-command: { command: [cat, other.key] }
`;

  beforeAll(async () => {
    [api, elsewhere] = [await runOutside(), await runOutside()];
    project = makeProject({
      "agentid.yaml": yaml(api),
      "agent.py": AGENT,
      "boxed.py": AGENT,
      "api.pem": readFileSync(api.ca, "utf8"),
      "elsewhere.pem": readFileSync(elsewhere.ca, "utf8"),
      ".env.local": `# keys\nWRITERS_OWN="${KEY}"\n`,
      "other.key": `${OTHER}\n`,
      "policies/writer.yaml": `rules:
  - { name: chat, allow: { from: [agents/writer, agents/boxed], to: egress/openai, method: POST, path: /chat/completions } }
  - { name: vault, allow: { from: agents/writer, to: vault } }
`,
    });
    chmodSync(join(project, ".env.local"), 0o600);
    dev = await startDev(project);
    const shell = { OPENAI_API_KEY: KEY, WRITERS_OWN: KEY, INNOCENT: `${KEY}`, openai: "x", PLAIN: "stays" };
    agent = startProgram(process.execPath, [bin, "run", "writer", "--", ...command], { cwd: project, env: shell });
    expect(await agent.line()).toBe("up");
  });
  afterAll(async () => {
    await agent?.end();
    await dev?.stop();
    api?.close();
    elsewhere?.close();
  });

  const asks = async (line: string): Promise<readonly [number, string]> => {
    agent.write(`${line}\n`);
    return JSON.parse(await agent.line()) as [number, string];
  };
  const json = async (args: readonly string[]) => {
    const { code: exit, stdout, stderr } = await agentid([...args, "--json"], { cwd: project });
    expect(exit, stderr + stdout).toBe(0);
    return JSON.parse(stdout) as Record<string, unknown>;
  };

  it("is allowed what a rule allows, and the API sees the key and not what the agent sent", async () => {
    expect(await asks("POST openai /chat/completions".replace("openai", "OPENAI"))).toEqual([200, "outside"]);
    expect(api.arrived.at(-1)).toMatchObject({
      method: "POST",
      url: "/v1/chat/completions",
      headers: { authorization: `Bearer ${KEY}`, host: `127.0.0.1:${api.port}` },
    });
    const arrived = api.arrived.length;
    const [status, body] = await asks("POST OPENAI /files");
    expect({ status, body: JSON.parse(body) }).toMatchObject({
      status: 403,
      body: { code: "denied", rule: "default" },
    });
    expect(api.arrived).toHaveLength(arrived);
    const { decision } = JSON.parse(body) as { decision: string };
    expect(await json(["explain", decision])).toMatchObject({ verdict: "DENY", service: "openai", target: "/files" });
    expect(JSON.stringify(await json(["policy", "suggest"]))).toContain('"to":"egress/openai"');
    const asked = ["policy", "explain", "POST openai /files", "--as", "agents/writer"];
    expect(await json(asked)).toMatchObject({ allowed: false, rule: "default" });
  });

  it("finds no key in its environment, by whatever name", async () => {
    agent.write("env\n");
    const environment = JSON.parse(await agent.line()) as Record<string, string>;
    expect(environment).toMatchObject({ PLAIN: "stays", AGENTID_URL_OPENAI: expect.stringMatching(/^http:\/\/127/) });
    expect(Object.keys(environment).filter((name) => /KEY|WRITERS|INNOCENT|openai$/.test(name))).toEqual([]);
    expect(JSON.stringify(environment)).not.toContain(KEY);
  });

  it("lists where secrets are and who uses them, and of the missing one what to do", async () => {
    expect(await json(["secret", "list"])).toEqual({
      secrets: [
        {
          name: "from-command",
          source: 'command ["cat","other.key"]',
          state: "not-tried",
          usedBy: ["vault"],
        },
        {
          name: "nowhere",
          source: "keychain",
          state: "unusable",
          why: expect.stringContaining("no keychain"),
          usedBy: ["vault"],
        },
        {
          name: "openai",
          source: `WRITERS_OWN in ${join(project, ".env.local")}`,
          state: "present",
          usedBy: ["openai"],
        },
      ],
    });
    const [status, body] = await asks("GET VAULT /");
    expect({ status, body: JSON.parse(body) }).toMatchObject({
      status: 503,
      body: { code: "secret-unusable", detail: expect.stringContaining("no keychain here") },
    });
    expect(await json(["status"])).toMatchObject({
      egress: [
        { name: "openai", spiffeId: "spiffe://shop.local/egress/openai", secrets: ["openai"] },
        { name: "vault", secrets: ["from-command", "nowhere"] },
      ],
    });
    const set = await agentid(["secret", "set", "nowhere"], { cwd: project, input: `${OTHER}\n` });
    expect(set).toMatchObject({ code: 1, stderr: expect.stringMatching(/no keychain here[\s\S]*file: .env.local/) });
    const unknown = await agentid(["secret", "set", "opnai"], { cwd: project, input: OTHER });
    expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining('did you mean "openai"') });
    const fromFile = await agentid(["secret", "set", "openai"], { cwd: project, input: OTHER });
    expect(fromFile).toMatchObject({ code: 1, stderr: expect.stringContaining("change it there") });
    const asArgument = await agentid(["secret", "set", "nowhere", OTHER], { cwd: project, input: "" });
    expect(asArgument).toMatchObject({
      code: 1,
      stdout: "",
      stderr: expect.stringContaining("a secret is no argument"),
    });
    expect(asArgument.stderr).not.toContain(OTHER);
  });

  it("asks the owner for a secret without showing what is typed, and Ctrl-C takes it back", async () => {
    const typed = async (keys: string) => {
      const pty = spawnTerminal(process.execPath, [bin, "secret", "set", "nowhere", "--project", project], {
        cols: 200,
        cwd: project,
        env: { PATH: process.env.PATH, HOME: project, TMPDIR: runtimeBase(), TERM: "xterm", NO_COLOR: "1" },
        ...ordinaryUser,
      });
      let screen = "";
      let written = false;
      pty.onData((data) => {
        screen += data;
        if (written || !screen.includes("nowhere: ")) return;
        written = true;
        pty.write(keys);
      });
      const { exitCode } = await new Promise<{ exitCode: number }>((resolve) => pty.onExit(resolve));
      return { exitCode, screen };
    };
    const entered = await typed(`${OTHER}x\x7f\r`);
    expect(entered.screen).toContain("no keychain here");
    expect(entered.screen).not.toContain(OTHER.slice(0, 6));
    expect(entered.exitCode).toBe(1);
    const taken = await typed(`${OTHER}\x03`);
    expect(taken.screen).toContain("nothing was changed");
    expect(taken.screen).not.toContain(OTHER.slice(0, 6));
  });

  it("may not administer secrets", async () => {
    for (const words of ["list", "rm openai", "set openai < /dev/null"]) {
      const [exit, said] = await asks(`run ${process.execPath} ${bin} secret ${words}`);
      expect(said).toContain("may not administer");
      expect(exit).toBe(3);
    }
  });

  it.skipIf(!canSandbox)("in a sandbox it calls all the same, and finds the file of the key nowhere", async () => {
    const inside = startProgram(process.execPath, [bin, "run", "boxed", "--sandbox", "--", ...boxed], { cwd: project });
    try {
      expect(await inside.line()).toBe("up");
      inside.write("POST OPENAI /chat/completions\n");
      expect(JSON.parse(await inside.line())).toEqual([200, "outside"]);
      expect(api.arrived.at(-1)?.headers.authorization).toBe(`Bearer ${KEY}`);
      inside.write("run cat .env.local\n");
      expect(JSON.parse(await inside.line())).toEqual([1, expect.not.stringContaining(KEY)]);
      inside.write("run cat agent.py\n");
      expect(JSON.parse(await inside.line())).toEqual([0, AGENT]);
    } finally {
      await inside.end();
    }
  });

  it("a file that others may read gives no key, and gives it again once they may not", async () => {
    chmodSync(join(project, ".env.local"), 0o644);
    // A reload forgets what was fetched.
    const seen = dev.events.length;
    writeFileSync(join(project, "agentid.yaml"), yaml(api).replace(" }\negress", ", hint: writer }\negress"));
    await dev.until((event) => event.event === "reload" && event.outcome === "applied", seen);
    const [status, body] = await asks("POST OPENAI /chat/completions");
    expect({ status, body: JSON.parse(body) }).toMatchObject({
      status: 503,
      body: { code: "secret-unusable", detail: expect.stringContaining("open to other users (mode 0644)") },
    });
    chmodSync(join(project, ".env.local"), 0o600);
    expect(await asks("POST OPENAI /chat/completions")).toEqual([200, "outside"]);
  });

  it("a target that moves waits for the owner: until then calls go where they went", async () => {
    const seen = dev.events.length;
    writeFileSync(join(project, "agentid.yaml"), yaml(elsewhere, "elsewhere.pem"));
    const waiting = await dev.until((event) => event.event === "reload" && event.outcome === "waiting", seen);
    expect(waiting).toMatchObject({
      widened: true,
      changes: expect.arrayContaining([expect.stringMatching(/^~ egress\.openai: https:\/\/127/)]),
    });
    expect(await asks("POST OPENAI /chat/completions")).toEqual([200, "outside"]);
    expect(elsewhere.arrived).toEqual([]);
    await json(["reload", "accept"]);
    expect(await asks("POST OPENAI /chat/completions")).toEqual([200, "outside"]);
    expect(elsewhere.arrived).toHaveLength(1);
    expect(elsewhere.arrived[0]?.headers.authorization).toBe(`Bearer ${KEY}`);
  });

  it("neither events, record, logs nor any file of the project's state holds a key", async () => {
    expect(JSON.stringify(dev.events)).toContain("/chat/completions");
    const all = [JSON.stringify(dev.events), dev.stderr(), ...filesBelow(join(project, ".agentid"))];
    const shown = await Promise.all([["audit", "show"], ["calls"], ["status"], ["secret", "list"]].map(json));
    for (const text of [...all, ...shown.map((each) => JSON.stringify(each))]) {
      expect(text.includes(KEY) || text.includes(OTHER)).toBe(false);
    }
    giveTo(project);
  });
});

function filesBelow(folder: string): readonly string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? filesBelow(path) : [readFileSync(path, "latin1")];
  });
}
