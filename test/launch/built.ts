import { execFileSync } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "../..");

export interface Built {
  /** Looks like a clone after its build: `bin/`, `dist/`, `scripts/node`. Dependencies are found in the clone around it. */
  readonly root: string;
  readonly agentid: string;
  remove(): void;
}

/** Compiles what `agentid run` and the platform need into a private folder of the clone. */
export function build(): Built {
  const cache = join(ROOT, ".cache");
  mkdirSync(cache, { recursive: true });
  const root = mkdtempSync(join(cache, "launch-test-"));
  chmodSync(root, 0o755);
  const config = join(root, "tsconfig.json");
  writeFileSync(
    config,
    JSON.stringify({
      extends: join(ROOT, "tsconfig.json"),
      compilerOptions: {
        rootDir: join(ROOT, "src"),
        outDir: join(root, "dist"),
        noCheck: true,
        declaration: false,
        typeRoots: [join(ROOT, "node_modules/@types")],
      },
      include: [],
      files: ["client/run.ts", "platform/index.ts", "attestation/attestor.ts"].map((file) => join(ROOT, "src", file)),
    }),
  );
  execFileSync(process.execPath, [join(ROOT, "node_modules/typescript/bin/tsc"), "-p", config], { stdio: "inherit" });
  cpSync(join(ROOT, "bin"), join(root, "bin"), { recursive: true });
  mkdirSync(join(root, "scripts"));
  symlinkSync(join(ROOT, "scripts/node"), join(root, "scripts/node"));
  writeFileSync(join(root, "package.json"), JSON.stringify({ type: "module" }));
  return { root, agentid: join(root, "bin/agentid.js"), remove: () => rmSync(root, { recursive: true, force: true }) };
}
