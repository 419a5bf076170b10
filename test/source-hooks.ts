/**
 * Lets Node run the TypeScript sources as they are (it strips the types itself): where a source says `./x.js`, as the compiler's output needs it,
 * and only `x.ts` is there, that is what is loaded. For programs that tests and benches start: `node --import test/source-hooks.ts PROGRAM.ts`.
 */
import { existsSync } from "node:fs";
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
