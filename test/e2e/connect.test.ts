import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Outside, runOutside } from "../relay/outside.js";
import { agentid, bin, giveTo, makeProject, python, type RunningDev, startDev, startProgram } from "./agentid.js";
import { canSandbox } from "./sandboxed.js";

/** "env" tells every variable; any other line is run by a shell. */
const AGENT = `import json, os, subprocess, sys
print("up", flush=True)
for line in sys.stdin:
    if line.strip() == "env":
        print(json.dumps(dict(os.environ)), flush=True)
        continue
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    print(json.dumps([done.returncode, done.stdout + done.stderr]), flush=True)
`;

/** Here the API stands on this machine, which programs would call without a proxy. */
const PROXIED = "NO_PROXY= no_proxy=";

describe.skipIf(python === undefined)("programs that know proxies call a target by CONNECT", () => {
  const command = [python ?? "python3", "agent.py"];
  const boxed = [python ?? "python3", "boxed.py"];
  let api: Outside;
  let project: string;
  let dev: RunningDev;
  let agent: ReturnType<typeof startProgram>;

  beforeAll(async () => {
    api = await runOutside({ names: ["localhost"] });
    project = makeProject({
      "agentid.yaml": `trustDomain: shop.local
identities:
  agents/writer: { launch: { command: ${JSON.stringify(command)}, children: true } }
  agents/boxed: { launch: { command: ${JSON.stringify(boxed)}, children: true, sandbox: true } }
egress:
  api: { url: "https://localhost:${api.port}", connect: true, private: true }
  closed: { url: "https://closed.test", connect: true }
`,
      "agent.py": AGENT,
      "boxed.py": AGENT,
      "api.pem": readFileSync(api.ca, "utf8"),
      "policies/api.yaml": `rules:
  - { name: tunnels, allow: { from: [agents/writer, agents/boxed], to: egress/api, action: connect } }
`,
    });
    dev = await startDev(project);
    const shell = { ALL_PROXY: "http://other.test:1", http_proxy: "http://other.test:1", PLAIN: "stays" };
    agent = startProgram(process.execPath, [bin, "run", "writer", "--", ...command], { cwd: project, env: shell });
    expect(await agent.line()).toBe("up");
  });
  afterAll(async () => {
    await agent?.end();
    await dev?.stop();
    api?.close();
    giveTo(project);
  });

  const runs = async (line: string): Promise<readonly [number, string]> => {
    agent.write(`${PROXIED} ${line}\n`);
    return JSON.parse(await agent.line()) as [number, string];
  };
  const json = async (args: readonly string[]) => {
    const { code: exit, stdout, stderr } = await agentid([...args, "--json"], { cwd: project });
    expect(exit, stderr + stdout).toBe(0);
    return JSON.parse(stdout) as Record<string, unknown>;
  };
  const url = () => `https://localhost:${api.port}/v1`;

  it("which they find in their environment, and no other proxy", async () => {
    agent.write("env\n");
    const found = JSON.parse(await agent.line()) as Record<string, string>;
    const { egress } = (await json(["status"])) as { egress: readonly { name: string; url: string }[] };
    const proxy = egress[0]?.url;
    expect(egress[0]).toMatchObject({ name: "api", byConnect: true, url: expect.stringMatching(/^http:\/\/127/) });
    const none = "127.0.0.1,localhost,::1";
    expect(found).toMatchObject({
      ...{ HTTP_PROXY: proxy, HTTPS_PROXY: proxy, http_proxy: proxy, https_proxy: proxy },
      ...{ NO_PROXY: none, no_proxy: none, NODE_USE_ENV_PROXY: "1", PLAIN: "stays" },
    });
    expect(found).not.toHaveProperty("ALL_PROXY");
    expect(found).not.toHaveProperty("AGENTID_URL_API");
  });

  const fromPython = () =>
    `${python} -c "import ssl, urllib.request; c = ssl.create_default_context(cafile='api.pem'); c.verify_flags &= ~getattr(ssl, 'VERIFY_X509_STRICT', 0); print(urllib.request.urlopen('${url()}', context=c).read().decode())"`;
  const fromNode = () =>
    `NODE_EXTRA_CA_CERTS=api.pem ${process.execPath} -e "fetch('${url()}').then((answer) => answer.text()).then(console.log)"`;

  it.each([
    ["curl", () => `curl -sS --cacert api.pem ${url()}`],
    ["Python", fromPython],
    ["Node", fromNode],
  ])("%s", async (_name, line) => {
    const arrived = api.arrived.length;
    const [exit, said] = await runs(line());
    expect({ exit, said: said.trim() }).toEqual({ exit: 0, said: "outside" });
    expect(api.arrived.slice(arrived)).toEqual([expect.objectContaining({ url: "/v1", serverName: "localhost" })]);
  });

  it("and nothing else: what no rule allows and what nobody named is refused, on record", async () => {
    for (const host of ["closed.test", "evil.test", "169.254.169.254"]) {
      const [exit, said] = await runs(`curl -sS https://${host}/`);
      expect(said).toContain("403");
      expect(exit).not.toBe(0);
    }
    const [, plain] = await runs("curl -sS http://evil.test/");
    expect(plain).toContain("AGENTID_URL_NAME");
    const denied = dev.events.filter((event) => event.event === "call").filter(({ verdict }) => verdict === "DENY");
    expect(denied.map(({ rule }) => rule)).toEqual(["default", "target-unknown", "target-unknown", "connect-only"]);
    expect(denied.map(({ caller }) => caller)).toEqual(Array(4).fill("agents/writer"));
    const [first] = denied;
    expect(await json(["explain", String(first?.decision)])).toMatchObject({ verdict: "DENY", service: "closed" });
    const asked = ["policy", "explain", "connect api", "--as", "agents/writer"];
    expect(await json(asked)).toMatchObject({ allowed: true, rule: "tunnels" });
    expect(JSON.stringify(await json(["policy", "suggest"]))).toContain('"to":"egress/closed"');
  });

  it.skipIf(!canSandbox)("in a sandbox too, where there is no other way out", async () => {
    const inside = startProgram(process.execPath, [bin, "run", "boxed", "--sandbox", "--", ...boxed], { cwd: project });
    try {
      expect(await inside.line()).toBe("up");
      inside.write(`${PROXIED} curl -sS --cacert ${join(project, "api.pem")} ${url()}\n`);
      expect(JSON.parse(await inside.line())).toEqual([0, "outside"]);
      inside.write(`curl -sS --cacert ${join(project, "api.pem")} --noproxy '*' ${url()}\n`);
      expect(JSON.parse(await inside.line())).toEqual([7, expect.any(String)]);
    } finally {
      await inside.end();
    }
  });
});
