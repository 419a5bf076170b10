import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, describe, expect, it } from "vitest";
import type { AgentidEvent } from "../../src/control-api/events.js";

/** The CA keys at rest under a real secret service: gnome-keyring on a session bus of its own, reached through keytar. */

const bin = join(import.meta.dirname, "..", "..", "bin", "agentid.js");
const missing = [
  ...["dbus-run-session", "gnome-keyring-daemon"].filter((name) => spawnSync("which", [name]).status !== 0),
  ...(spawnSync(process.execPath, ["-e", 'require("keytar")'], { cwd: import.meta.dirname }).status === 0
    ? []
    : ["keytar (needs libsecret-1-dev when the dependencies are installed)"]),
];
if (missing.length > 0) process.stderr.write(`SKIPPED: keys in a keychain: this machine lacks ${missing.join(", ")}\n`);

const home = mkdtempSync(join(tmpdir(), "agentid-keychain-"));
const project = join(home, "project");
spawnSync("mkdir", ["-p", project]);
writeFileSync(join(project, "agentid.yaml"), "trustDomain: locked.local\nidentities:\n  a: { uid: 1 }\n");
afterAll(() => rmSync(home, { recursive: true, force: true }));

interface Failed {
  readonly error: { readonly code: string };
}

interface Run {
  readonly events: readonly AgentidEvent[];
  readonly errors: readonly string[];
  readonly authority: string | undefined;
}

/** Starts `agentid dev` until it is ready or has failed; with a keyring that is unlocked for this session, or without any bus. */
async function run(keyring: boolean): Promise<Run> {
  const dev = `exec ${process.execPath} ${bin} dev --json --project ${project}`;
  const unlocked = `printf secret | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1; ${dev}`;
  const { DBUS_SESSION_BUS_ADDRESS: _, XDG_RUNTIME_DIR: __, ...env } = process.env;
  const child = keyring
    ? spawn("dbus-run-session", ["--", "sh", "-c", unlocked], {
        env: { ...env, HOME: home },
        stdio: "pipe",
        detached: true,
      })
    : spawn("sh", ["-c", dev], { env: { ...env, HOME: home }, stdio: "pipe", detached: true });
  const events: AgentidEvent[] = [];
  const errors: string[] = [];
  let authority: string | undefined;
  const ended = new Promise((resolve) => child.once("close", resolve));
  for await (const line of createInterface({ input: child.stdout })) {
    const parsed = JSON.parse(line) as AgentidEvent | Failed;
    if (!("event" in parsed)) {
      errors.push(parsed.error.code);
      continue;
    }
    events.push(parsed);
    if (parsed.event === "ready") {
      const status = spawnSync(process.execPath, [bin, "status", "--json", "--project", project], {
        env: { ...env, HOME: home },
        encoding: "utf8",
      });
      authority = (JSON.parse(status.stdout) as { authority: { notAfter: string } }).authority.notAfter;
      process.kill(parsed.pid, "SIGTERM");
    }
  }
  await ended;
  return { events, errors, authority };
}

function keyFile(): string {
  const folder = join(project, ".agentid", "keys");
  return readdirSync(folder)
    .map((name) => readFileSync(join(folder, name), "utf8"))
    .join("");
}

const warned = ({ events }: Run) =>
  events.some((event) => event.event === "problem" && event.code === "keys-unprotected");

describe.skipIf(missing.length > 0)("CA keys under gnome-keyring", () => {
  it("a plain key file is encrypted as soon as there is a keychain, opens with it, and stays shut without it", async () => {
    const plain = await run(false);
    expect(warned(plain)).toBe(true);
    expect(keyFile()).toContain('"protection":"none"');

    const encrypted = await run(true);
    expect(warned(encrypted)).toBe(false);
    expect(encrypted.authority).toBe(plain.authority);
    expect(keyFile()).toContain('"protection":"keychain"');
    expect(keyFile()).not.toContain("PrivateKeyPkcs8");

    const again = await run(true);
    expect(again.authority).toBe(plain.authority);

    const shut = await run(false);
    expect(shut.errors).toEqual(["key-store-locked"]);
    expect(shut.authority).toBeUndefined();
  });
});
