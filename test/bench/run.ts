/** Runs benches: `npm run bench` for all, `npm run bench -- decision` for one. */
import { readdirSync } from "node:fs";

await import(new URL("../source-hooks.ts", import.meta.url).href);

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
