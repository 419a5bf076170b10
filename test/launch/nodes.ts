import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

const CACHE = resolve(import.meta.dirname, "../../.cache/nodes");

/** The executable of an official Node of this major version, fetched once from the npm registry into the clone's cache; undefined where it cannot be. */
export function nodeOf(major: number): string | undefined {
  if (process.versions.node.startsWith(`${major}.`)) return process.execPath;
  const name = `${process.platform}-${process.arch}`;
  const wanted = `${name === "darwin-arm64" ? "node-bin" : "node"}-${name}`;
  const folder = join(CACHE, String(major));
  const node = join(folder, "node_modules", wanted, "bin/node");
  if (existsSync(node)) return node;
  const fetched = `${folder}.${process.pid}`;
  try {
    mkdirSync(fetched, { recursive: true });
    const npm = join(npmFolder(), "bin/npm-cli.js");
    execFileSync(
      process.execPath,
      [
        npm,
        "install",
        "--no-save",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefix",
        fetched,
        `${wanted}@${major}`,
      ],
      { stdio: "ignore", timeout: 120_000 },
    );
    if (!existsSync(folder)) renameSync(fetched, folder);
  } catch {
    return undefined; // no network: the tests for this version are skipped, and say so
  } finally {
    rmSync(fetched, { recursive: true, force: true });
  }
  return existsSync(node) ? node : undefined;
}

/** Where the machine's npm lives: beside the `npm` on the PATH. */
function npmFolder(): string {
  const cli = execFileSync("sh", ["-c", 'readlink -f "$(command -v npm)"'], { encoding: "utf8" }).trim();
  return dirname(dirname(cli));
}
