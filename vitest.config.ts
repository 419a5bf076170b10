import { defineConfig } from "vitest/config";

/** Where nobody watches the machine is shared, and may have a tenth of its speed. */
const PATIENCE = process.env.CI ? 4 : 1;

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts", "test/**/*.test.tsx"],
    exclude: ["test/interop/**", "test/bench/**", "test/mutants/**"],
    setupFiles: ["test/properties.ts"],
    testTimeout: 30_000 * PATIENCE,
    // A busy machine is slow: what is waited for has as long as it needs within its test.
    expect: { poll: { timeout: 20_000 * PATIENCE } },
    hookTimeout: 60_000 * PATIENCE,
    maxWorkers: 2,
    // Real processes on a shared machine: one more try where nobody watches, and the report names what needed it.
    retry: process.env.CI ? 1 : 0,
  },
});
