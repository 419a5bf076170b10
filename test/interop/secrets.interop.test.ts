import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AgentidEvent } from "../../src/control-api/events.js";
import { type Outside, runOutside, secret } from "../relay/outside.js";

/** Secrets of egress in a real secret service: gnome-keyring on a session bus of its own, reached through keytar. */

const bin = join(import.meta.dirname, "..", "..", "bin", "agentid.js");
const missing = [
  ...["dbus-run-session", "gnome-keyring-daemon"].filter((name) => spawnSync("which", [name]).status !== 0),
  ...(spawnSync(process.execPath, ["-e", 'require("keytar")'], { cwd: import.meta.dirname }).status === 0
    ? []
    : ["keytar (needs libsecret-1-dev when the dependencies are installed)"]),
];
if (missing.length > 0)
  process.stderr.write(`SKIPPED: secrets in a keychain: this machine lacks ${missing.join(", ")}\n`);

const OLD = "sk-keyring-old-0123456789";
const NEW = "sk-keyring-new-9876543210";
const home = mkdtempSync(join(tmpdir(), "agentid-secrets-"));
const { DBUS_SESSION_BUS_ADDRESS: _, XDG_RUNTIME_DIR: __, ...bare } = process.env;
const env = { ...bare, HOME: home };
let api: Outside;

interface Dev {
  readonly child: ChildProcess;
  readonly url: string;
  stop(): Promise<void>;
}

function projectAt(name: string): string {
  const project = join(home, name);
  mkdirSync(join(project, "policies"), { recursive: true });
  writeFileSync(
    join(project, "agentid.yaml"),
    `trustDomain: locked.local
identities:
  agents/tests: { exe: ${JSON.stringify(realpathSync(process.execPath))} }
egress:
  api:
    url: https://127.0.0.1:${api.port}
    header: { Authorization: "Bearer ${secret("api")}" }
    ca: ${JSON.stringify(api.ca)}
    private: true
`,
  );
  const rule = "{ name: all, allow: { from: agents/tests, to: egress/api } }";
  writeFileSync(join(project, "policies", "all.yaml"), `rules:\n  - ${rule}\n`);
  return project;
}

/** `agentid dev` beside a keyring that is unlocked for this session. */
async function start(project: string): Promise<Dev> {
  const dev = `exec ${process.execPath} ${bin} dev --json --project ${project}`;
  const unlocked = `printf secret | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1; ${dev}`;
  const child = spawn("dbus-run-session", ["--", "sh", "-c", unlocked], { env, stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  for await (const line of createInterface({ input: child.stdout })) {
    const event = JSON.parse(line) as AgentidEvent;
    if (event.event !== "ready") continue;
    child.stdout.resume();
    const { pid } = event;
    return {
      child,
      url: event.egress?.api?.url ?? "",
      async stop() {
        process.kill(pid, "SIGTERM");
        await ended;
      },
    };
  }
  throw new Error("agentid dev ended before it was ready");
}

function command(project: string, args: readonly string[], input = "") {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [bin, "secret", ...args, "--json", "--project", project],
    { env, encoding: "utf8", input },
  );
  return { status, said: JSON.parse(stdout) as Record<string, unknown>, text: stdout + stderr };
}

async function call({ url }: Dev): Promise<unknown> {
  const response = await fetch(`${url}/`);
  if (response.status === 200) return api.arrived.at(-1)?.headers.authorization;
  return ((await response.json()) as { code: string }).code;
}

beforeAll(async () => {
  api = await runOutside();
});
afterAll(() => {
  api.close();
  rmSync(home, { recursive: true, force: true });
});

describe.skipIf(missing.length > 0)("secrets of egress in gnome-keyring", () => {
  it("are set from standard input, count at once, outlive a restart, belong to their project, and go", async () => {
    const project = projectAt("one");
    const first = await start(project);
    expect(await call(first)).toBe("secret-missing");
    expect(command(project, ["list"]).said).toEqual({
      secrets: [{ name: "api", source: "keychain", state: "missing", usedBy: ["api"] }],
    });
    const set = command(project, ["set", "api"], `${OLD}\n`);
    expect(set).toMatchObject({ status: 0, said: { name: "api", source: "keychain" } });
    expect(set.text).not.toContain(OLD);
    expect(await call(first)).toBe(`Bearer ${OLD}`);
    command(project, ["set", "api"], NEW);
    expect(await call(first)).toBe(`Bearer ${NEW}`);
    expect(command(project, ["list"]).said).toMatchObject({ secrets: [{ state: "present" }] });
    expect(command(project, ["set", "api"], "two\nlines")).toMatchObject({
      status: 1,
      said: { error: { code: "secret-malformed" } },
    });
    await first.stop();

    const again = await start(project);
    expect(await call(again)).toBe(`Bearer ${NEW}`);
    await again.stop();
    const other = projectAt("other");
    const elsewhere = await start(other);
    expect(await call(elsewhere)).toBe("secret-missing");
    await elsewhere.stop();

    const last = await start(project);
    expect(await call(last)).toBe(`Bearer ${NEW}`);
    expect(command(project, ["rm", "api"]).said).toEqual({ name: "api", removed: true });
    expect(await call(last)).toBe("secret-missing");
    expect(command(project, ["rm", "api"]).said).toEqual({ name: "api", removed: false });
    await last.stop();
    const state = filesBelow(join(project, ".agentid")).join("\n");
    expect(state).toContain("secret.set");
    expect([OLD, NEW].filter((value) => state.includes(value))).toEqual([]);
  });
});

function filesBelow(folder: string): readonly string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? filesBelow(path) : [readFileSync(path, "latin1")];
  });
}
