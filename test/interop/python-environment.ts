import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

const execute = promisify(execFile);
/** Builds and downloads stay here; git ignores it. */
const cache = join(import.meta.dirname, "../../.cache/interop");

/** A virtual environment called `name` with what `requirements` pins, made on demand; or what is missing on this machine, for people. */
export async function preparePythonEnvironment(
  name: string,
  requirements: string,
): Promise<{ readonly directory: string; readonly python: string } | { readonly missing: string }> {
  const hasVenv = await execute("python3", ["-c", "import venv, ensurepip"]).then(
    () => true,
    () => false,
  );
  if (!hasVenv) return { missing: "python3 with its venv module is not installed" };
  const directory = join(cache, name);
  const python = join(directory, "bin/python");
  const wanted = createHash("sha256").update(readFileSync(requirements)).digest("hex");
  const stamp = join(directory, "installed");
  if (!existsSync(stamp) || readFileSync(stamp, "utf8") !== wanted) {
    await execute("python3", ["-m", "venv", "--clear", directory]);
    await execute(python, ["-m", "pip", "install", "--quiet", "--requirement", requirements]);
    writeFileSync(stamp, wanted);
  }
  return { directory, python };
}
