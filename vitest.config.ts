import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts", "test/**/*.test.tsx"],
    exclude: ["test/interop/**", "test/bench/**", "test/mutants/**"],
    setupFiles: ["test/properties.ts"],
    testTimeout: 30_000,
    // A busy machine is slow: what is waited for has as long as it needs within its test.
    expect: { poll: { timeout: 20_000 } },
    hookTimeout: 60_000,
    maxWorkers: 2,
    // Real processes on a shared machine: one more try where nobody watches, and the report names what needed it.
    retry: process.env.CI ? 1 : 0,
  },
});
