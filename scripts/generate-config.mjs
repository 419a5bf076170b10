// Writes what follows from the schemas of agentid.yaml, rule files and entities.yaml: templates/*.schema.json and docs/configuration.md.
// With --check it writes nothing and fails when a file is not current.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

// The sources import each other as they are after compilation (`./schema.js`); Node runs TypeScript itself but does not rename.
registerHooks({
  resolve(specifier, context, next) {
    if (specifier.startsWith(".") && specifier.endsWith(".js") && context.parentURL !== undefined) {
      const source = new URL(specifier.replace(/\.js$/, ".ts"), context.parentURL);
      if (existsSync(source)) return next(source.href, context);
    }
    return next(specifier, context);
  },
});

const clone = dirname(dirname(fileURLToPath(import.meta.url)));
const { configJsonSchema, configReference } = await import("../src/config/schema-document.ts");
const { policyJsonSchemas } = await import("../src/policy/schema-document.ts");
const policySchemas = Object.entries(policyJsonSchemas()).map(([name, text]) => [`templates/${name}`, text]);
const generated = {
  ...Object.fromEntries(policySchemas),
  "templates/agentid.schema.json": configJsonSchema(),
  "docs/configuration.md": configReference(),
};

const check = process.argv.includes("--check");
for (const [name, text] of Object.entries(generated)) {
  const file = join(clone, name);
  const current = existsSync(file) && readFileSync(file, "utf8") === text;
  if (current) continue;
  if (check) {
    process.stderr.write(`${name} is not current; run: npm run generate:config\n`);
    process.exitCode = 1;
  } else {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    process.stdout.write(`wrote ${name}\n`);
  }
}
