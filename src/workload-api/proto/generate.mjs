// Writes ../generated from the protos here; with --check only says (by its exit code) whether what is checked in is current.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { generateDescriptors } from "./descriptors.mjs";

const here = import.meta.dirname;
const binaries = join(here, "../../../node_modules/.bin");
const generated = join(here, "../generated");

/** buf resolves `out: ../generated` against `base`. */
function generate(base) {
  const env = { ...process.env, PATH: `${binaries}${delimiter}${process.env.PATH}` };
  execFileSync("buf", ["generate", here, "--template", join(here, "buf.gen.yaml"), "-o", base], {
    cwd: here,
    stdio: "inherit",
    env,
  });
  generateDescriptors(here, env, join(base, "../generated"));
}

function filesUnder(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

function differences(wanted, found) {
  const names = [...new Set([...filesUnder(wanted), ...filesUnder(found)])];
  const read = (folder, name) => {
    try {
      return readFileSync(join(folder, name), "utf8");
    } catch {
      return undefined;
    }
  };
  return names.filter((name) => read(wanted, name) !== read(found, name));
}

if (process.argv.includes("--check")) {
  const temporary = mkdtempSync(join(tmpdir(), "agentid-proto-"));
  try {
    generate(join(temporary, "proto"));
    const stale = differences(join(temporary, "generated"), generated);
    if (stale.length > 0) {
      process.stderr.write(`src/workload-api/generated is not current (${stale.join(", ")}): npm run generate:proto\n`);
      process.exitCode = 1;
    }
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
} else {
  generate(here);
}
