/**
 * Runs benches: `npm run bench` for all, `npm run bench -- decision` for one. Node runs the TypeScript sources as they are; the hook only finds
 * `x.ts` where the sources, which are written for the compiler's output, say `x.js`.
 */
import { existsSync, readdirSync } from "node:fs";
import { registerHooks } from "node:module";
import { fileURLToPath } from "node:url";

registerHooks({
  resolve(specifier, context, next) {
    if (specifier.startsWith(".") && specifier.endsWith(".js") && context.parentURL !== undefined) {
      const source = new URL(`${specifier.slice(0, -3)}.ts`, context.parentURL);
      if (existsSync(fileURLToPath(source))) return next(source.href, context);
    }
    return next(specifier, context);
  },
});

const asked = process.argv.slice(2);
const all = readdirSync(import.meta.dirname)
  .filter((name) => name.endsWith(".ts") && name !== "run.ts")
  .map((name) => name.slice(0, -3));
const unknown = asked.filter((name) => !all.includes(name));
if (unknown.length > 0) {
  process.stderr.write(`no such bench: ${unknown.join(", ")}; there are ${all.join(", ")}\n`);
  process.exit(2);
}
for (const name of asked.length > 0 ? asked : all) await import(`./${name}.ts`);
