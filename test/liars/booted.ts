import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { vi } from "vitest";
import { ordinaryUser, python, run, startProgram } from "../e2e/agentid.js";

/** A systemd that was booted, in namespaces of its own, and the manager of the ordinary user that it started. */
export interface Booted {
  /** A program of the ordinary user's there, which stays. */
  start(command: string, args: readonly string[], options: { readonly cwd: string }): ReturnType<typeof startProgram>;
  /** What a command prints that ends, as root there or as the user. */
  asRoot(...command: readonly string[]): Promise<string>;
  asUser(...command: readonly string[]): Promise<string>;
  readonly runtimeDirectory: string;
  end(): Promise<void>;
}

const BOOT = new URL("programs/boot.sh", import.meta.url).pathname;
const needed = ["unshare", "nsenter", "setpriv", "systemd-run", "busctl", "dbus-daemon"];

/** What is missing here to boot one; undefined where it can be. */
const lacking: string | undefined = (() => {
  if (process.platform !== "linux") return "this is not Linux";
  if (process.getuid?.() !== 0 || ordinaryUser === undefined) return "only root can boot it for another user";
  if (python === undefined) return "no python3";
  const absent = needed.filter((name) => spawnSync("which", [name]).status !== 0);
  if (absent.length > 0) return `no ${absent.join(", ")}`;
  if (!existsSync("/lib/systemd/systemd") || !existsSync("/etc/machine-id")) return "no systemd";
  const namespaces = ["--mount", "--pid", "--cgroup", "--net", "--fork", "--propagation", "private"];
  const tried = spawnSync("unshare", [...namespaces, "mount", "-t", "cgroup2", "none", "/mnt"], { encoding: "utf8" });
  return tried.status === 0 ? undefined : `namespaces: ${tried.stderr.trim()}`;
})();
if (lacking !== undefined) process.stderr.write(`SKIPPED: no systemd can be booted here: ${lacking}\n`);
export const canBoot = lacking === undefined;

export async function boot(): Promise<Booted> {
  const { uid, gid } = ordinaryUser ?? { uid: 65_534, gid: 65_534 };
  const system = spawn("unshare", ["--mount", "sh", BOOT, String(uid), String(gid)], { stdio: "pipe" });
  let said = "";
  system.stderr.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  const ended = new Promise<void>((resolve) => system.once("close", () => resolve()));
  const init = await new Promise<string>((resolve, reject) => {
    createInterface({ input: system.stdout }).once("line", (line) => resolve(line.trim()));
    void ended.then(() => reject(new Error(`systemd did not start: ${said}`)));
  });
  const runtimeDirectory = `/run/user/${uid}`;
  const namespaces = ["-t", init, "-m", "-p", "-C", "-n", "-i", "-u"];
  const root = { uid: 0, gid: 0 };
  const asTheUser = (cwd: string, command: readonly string[]): readonly string[] => [
    ...namespaces,
    ...["setpriv", "--reuid", String(uid), "--regid", String(gid), "--clear-groups"],
    ...["env", "-C", cwd, `XDG_RUNTIME_DIR=${runtimeDirectory}`, ...command],
  ];
  const told = async (args: readonly string[]): Promise<string> => {
    const { stdout, stderr } = await run("nsenter", args, { cwd: "/", user: root });
    return (stdout + stderr).trim();
  };
  const booted: Booted = {
    start: (command, args, { cwd }) => startProgram("nsenter", asTheUser(cwd, [command, ...args]), { cwd, user: root }),
    asRoot: (...command) => told([...namespaces, ...command]),
    asUser: (...command) => told(asTheUser("/", command)),
    runtimeDirectory,
    async end() {
      system.stdin.end();
      await ended;
    },
  };
  const isUp = async () => (await booted.asUser("systemctl", "--user", "is-system-running")) === "running";
  try {
    await vi.waitUntil(isUp, { timeout: 25_000, interval: 100 });
  } catch (thrown) {
    await booted.end();
    throw thrown;
  }
  return booted;
}
