import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Config, flush, handle, run } from "@oclif/core";

const packageDirectory = fileURLToPath(new URL("../..", import.meta.url));

/** Runs one command line. Errors are printed; the exit code is in `process.exitCode` or set by oclif. */
export async function main(argv: readonly string[]): Promise<void> {
  try {
    await run([...argv], fileURLToPath(import.meta.url));
    await flush();
  } catch (thrown) {
    await handle(thrown as Error);
  }
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
