import { execFile, spawn } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";

const execute = promisify(execFile);
const OPA_VERSION = "v1.22.2";
const CERBOS_VERSION = "0.55.0";
/** Builds and downloads stay here; git ignores it. */
const cache = join(import.meta.dirname, "../../.cache/interop");
/** The first build compiles some 2,000 packages: a few minutes on two cores. */
const BUILD_MILLIS = 25 * 60_000;

type Prepared = { readonly binary: string; readonly folder: string } | { readonly missing: string };

/** OPA, built on demand as the Go module that it is; or what is missing on this machine, for people. */
export async function prepareOpa(): Promise<Prepared> {
  const folder = join(cache, `opa-${OPA_VERSION}`);
  const binary = join(folder, "opa");
  if (existsSync(binary)) return { binary, folder };
  mkdirSync(folder, { recursive: true });
  const started = performance.now();
  try {
    await execute("go", ["install", `github.com/open-policy-agent/opa@${OPA_VERSION}`], {
      cwd: "/",
      env: { ...process.env, GOBIN: folder, CGO_ENABLED: "0" },
      timeout: BUILD_MILLIS,
    });
  } catch (thrown) {
    return { missing: `opa could not be built: ${String(thrown).split("\n")[0]}` };
  }
  process.stdout.write(`opa ${OPA_VERSION} built in ${Math.round((performance.now() - started) / 1000)} s\n`);
  return { binary, folder };
}

/** Cerbos as npm ships it for this platform, 96 MB: fetched on demand, no dependency. */
export async function prepareCerbos(): Promise<Prepared> {
  if (process.platform !== "linux" || process.arch !== "x64")
    return { missing: "Cerbos is fetched for Linux on x64 only" };
  const folder = join(cache, `cerbos-${CERBOS_VERSION}`);
  const binary = join(folder, "node_modules/@cerbos/cerbos-linux-x64/cerbos-linux-x64");
  if (existsSync(binary)) return { binary, folder };
  mkdirSync(folder, { recursive: true });
  const wanted = `@cerbos/cerbos-linux-x64@${CERBOS_VERSION}`;
  try {
    await execute("npm", ["install", "--prefix", folder, "--no-save", "--ignore-scripts", "--no-audit", wanted], {
      cwd: folder,
    });
  } catch (thrown) {
    return { missing: `Cerbos could not be fetched: ${String(thrown).split("\n")[0]}` };
  }
  return { binary, folder };
}

export interface RunningServer {
  /** Kills it as `kill -9` does, and waits until it is gone. */
  kill(): Promise<void>;
}

/** Starts a server and waits until `answers` resolves with true. */
export async function startServer(
  binary: string,
  args: readonly string[],
  answers: () => Promise<boolean>,
): Promise<RunningServer> {
  const child = spawn(binary, [...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, CERBOS_NO_TELEMETRY: "1" },
  });
  const log: string[] = [];
  child.stdout.on("data", (chunk) => log.push(String(chunk)));
  child.stderr.on("data", (chunk) => log.push(String(chunk)));
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const deadline = Date.now() + 60_000;
  while (!(await answers().catch(() => false))) {
    if (Date.now() > deadline || child.exitCode !== null) {
      child.kill("SIGKILL");
      throw new Error(`${binary} does not answer: ${log.join("").slice(-2_000)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return {
    async kill() {
      child.kill("SIGKILL");
      await gone;
    },
  };
}

/** A port that nobody had a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
