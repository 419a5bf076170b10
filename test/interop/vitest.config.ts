import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/interop/**/*.interop.test.ts"],
    // Builds and downloads on the first run.
    testTimeout: 60_000,
    // A busy machine is slow: what is waited for has as long as it needs within its test.
    expect: { poll: { timeout: 20_000 } },
    hookTimeout: 300_000,
    maxWorkers: 1,
    retry: process.env.CI ? 1 : 0,
  },
});
