import { defineConfig } from "vitest/config";

/** Where nobody watches the machine is shared, and may have a tenth of its speed. */
const PATIENCE = process.env.CI ? 4 : 1;

export default defineConfig({
  test: {
    include: ["test/interop/**/*.interop.test.ts"],
    // Builds and downloads on the first run.
    testTimeout: 60_000 * PATIENCE,
    // A busy machine is slow: what is waited for has as long as it needs within its test.
    expect: { poll: { timeout: 20_000 * PATIENCE } },
    hookTimeout: 300_000,
    maxWorkers: 1,
    retry: process.env.CI ? 1 : 0,
  },
});
