import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { agentid, bin, giveTo, makeProject, ordinaryUser, python, runtimeBase, startProgram } from "./agentid.js";

/** Whether this machine lets the ordinary user make a sandbox; said aloud where it does not. */
export const canSandbox: boolean = (() => {
  if (process.platform !== "linux") return false;
  const run = (command: string, args: readonly string[]) =>
    spawnSync(command, args, { ...ordinaryUser, encoding: "utf8" });
  const tried = run("bwrap", [
    "--unshare-user",
    "--unshare-net",
    "--unshare-pid",
    "--ro-bind",
    "/",
    "/",
    "--proc",
    "/proc",
    "true",
  ]);
  if (tried.status === 0 && python !== undefined) return true;
  process.stderr.write(`SKIPPED: no sandbox here: ${tried.error?.message ?? (tried.stderr || "no python3")}\n`);
  return false;
})();

/** Executes what it is told, one attempt a line, and says how it went: the same program inside and outside. */
const PROBER = `import base64, json, os, signal, sys
def told(*_): os.write(1, b"terminated\\n"); os._exit(5)
signal.signal(signal.SIGTERM, told)
print("up", os.getpid(), flush=True)
for line in sys.stdin:
    scope = {}
    try:
        exec(base64.b64decode(line).decode(), scope)
        print(json.dumps({"ok": True, "value": scope.get("value")}), flush=True)
    except Exception as error:
        print(json.dumps({"ok": False, "error": f"{type(error).__name__}: {error}"}), flush=True)
`;

const SERVICE = `const { createServer } = require("node:http");
createServer((request, response) => {
  response.end(String(request.headers["x-forwarded-client-cert"] ?? null));
}).listen(process.env.AGENTID_LISTEN);
`;

/**
 * Asks for a sandboxed launch as `agentid run` does, says what it was told, and comes to the door in the way it is told: `command` is executed with
 * what knocks, `filter` is its descriptor 3.
 */
export const CHEAT = `
import { spawn } from "node:child_process";
import { openSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createInterface } from "node:readline";
const [socketPath, name, command] = process.argv.slice(2);
const body = JSON.stringify({ name, argv: JSON.parse(command), workingDirectory: process.cwd(), sandbox: true });
const asking = request({ socketPath, method: "POST", path: "/v1/launch", headers: { "content-type": "application/json" } }, (response) => {
  let text = "";
  response.on("data", (chunk) => { text += chunk; });
  response.on("end", () => console.log(text));
});
asking.end(body);
createInterface({ input: process.stdin }).once("line", (line) => {
  const { command, filter, door } = JSON.parse(line);
  writeFileSync("out/filter", Buffer.from(filter, "base64"));
  const [first, ...rest] = [...command, process.execPath, "knock.js", door];
  const stdio = ["ignore", "inherit", "inherit", openSync("out/filter", "r")];
  spawn(first, rest, { stdio }).once("exit", () => process.exit());
});
`;
export const KNOCK = `
const socket = require("node:net").connect(process.argv[2], () => socket.write('{"listening":[]}\\n'));
socket.on("data", (data) => { console.log(data.toString().trim()); process.exit(); });
socket.on("error", (error) => { console.log(error.message); process.exit(); });
`;

export const proberCommand = [python ?? "python3", "agents/prober.py"];

const POLICY = `rules:
  - name: prober-reads
    allow: { from: agents/prober, to: services/invoices, method: GET, path: /v1/** }
`;

/** A project with a sandboxed agent, one that is not, and the secrets of a home beside it. */
export function makeSandboxedProject(
  options: {
    readonly sandbox?: string | ((home: string) => string);
    readonly more?: string;
    readonly services?: string;
  } = {},
) {
  const home = mkdtempSync(join(runtimeBase(), "h-"));
  const secrets = [
    ".ssh/id_ed25519",
    ".aws/credentials",
    ".config/gcloud/credentials.db",
    ".local/share/keyrings/login.keyring",
  ];
  for (const name of secrets) {
    mkdirSync(dirname(join(home, name)), { recursive: true });
    writeFileSync(join(home, name), "secret");
  }
  giveTo(home);
  const command = JSON.stringify(proberCommand);
  const sandbox =
    typeof options.sandbox === "function" ? options.sandbox(home) : (options.sandbox ?? "{ write: [out] }");
  const project = makeProject({
    "agentid.yaml": `trustDomain: shop.local
identities:
  agents/prober:
    launch: { command: ${command}, sandbox: ${sandbox}, keepEnv: [KEPT_TOKEN] }
  agents/free:
    launch: ${command}
${options.more ?? ""}
services:
  invoices: { http: { command: [${JSON.stringify(process.execPath)}, services/invoices.js] } }
${options.services ?? ""}
reload: auto
`,
    "agents/prober.py": PROBER,
    "services/invoices.js": SERVICE,
    "policies/shop.yaml": POLICY,
    "out/.keep": "",
    "src/code.py": "",
    ".env": "OPENAI_API_KEY=secret",
  });
  return { project, home, secrets: secrets.map((name) => join(home, name)) };
}

/** Entries of the record of one kind, oldest first. */
export async function recorded(kind: string, project: string): Promise<readonly Record<string, unknown>[]> {
  const shown = JSON.parse((await agentid(["audit", "show", "--json"], { cwd: project })).stdout) as {
    entries: { kind: string }[];
  };
  return shown.entries.filter((entry) => entry.kind === kind);
}

export interface Attempt {
  readonly ok: boolean;
  readonly value?: unknown;
  readonly error?: string;
}

export type Prober = ReturnType<typeof startProgram> & { attempt(code: string): Promise<Attempt> };

export interface ProberOptions {
  readonly project: string;
  readonly home: string;
  readonly env?: NodeJS.ProcessEnv;
}

/** The prober as an agent in its sandbox. */
export function inside(options: ProberOptions): Promise<Prober> {
  return launchedAs(["--sandbox", "agents/prober"], options);
}

/** The prober as an agent; `words` are what `agentid run` is told before the command. */
export function launchedAs(words: readonly string[], { project, home, env }: ProberOptions): Promise<Prober> {
  const args = [bin, "run", ...words, "--", ...proberCommand];
  return started(startProgram(process.execPath, args, { cwd: project, env: { ...env, HOME: home } }));
}

/** The very same program of the same user, launched by nobody. */
export function outside({ project, home, env }: ProberOptions): Promise<Prober> {
  const [command = "", ...args] = proberCommand;
  return started(startProgram(command, args, { cwd: project, env: { ...env, HOME: home } }));
}

async function started(program: ReturnType<typeof startProgram>): Promise<Prober> {
  const up = await program.line();
  if (!up.startsWith("up ")) throw new Error(`the prober said ${up}`);
  return {
    ...program,
    async attempt(code) {
      program.write(`${Buffer.from(code).toString("base64")}\n`);
      return JSON.parse(await program.line()) as Attempt;
    },
  };
}
