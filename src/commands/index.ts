import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Config, flush, handle, run } from "@oclif/core";
import { printFailure } from "./failure.js";
import { wrongCommand } from "./wrong-usage.js";

const packageDirectory = fileURLToPath(new URL("../..", import.meta.url));

/** Runs one command line. Errors are printed; the exit code is in `process.exitCode` or set by oclif. */
export async function main(argv: readonly string[]): Promise<void> {
  // `agentid help | head -1`: what nobody reads any more will never be flushed.
  const readerGone = new Promise((resolve) => process.stdout.once("error", resolve));
  // As git, npm and docker have it.
  const line = argv[0] === "help" ? [...argv.slice(1), "--help"] : [...argv];
  try {
    const config = await Config.load({ root: packageDirectory });
    const wrong = wrongCommand(line, config);
    if (wrong !== undefined) return printFailure(wrong, asksForJson(line));
    await run(line, config);
    await Promise.race([flush(), readerGone]);
  } catch (thrown) {
    await handle(thrown as Error);
  }
}

/** As commands read it themselves: behind `--` everything belongs to somebody else's command. */
function asksForJson(argv: readonly string[]): boolean {
  const end = argv.indexOf("--");
  return (end < 0 ? argv : argv.slice(0, end)).includes("--json");
}

/** Writes oclif.manifest.json: with it, oclif loads the module of the command that is run and of no other. Part of the build. */
async function writeManifest(): Promise<void> {
  const config = await Config.load({ root: packageDirectory, ignoreManifest: true });
  const plugin = config.plugins.get(config.name);
  // oclif's own generator reads the same member; its type does not name it.
  const manifest: unknown = plugin === undefined ? undefined : Reflect.get(plugin, "manifest");
  if (manifest === undefined) throw new Error("oclif has found no commands");
  writeFileSync(join(packageDirectory, "oclif.manifest.json"), `${JSON.stringify(manifest)}\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await writeManifest();
