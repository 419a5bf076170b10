import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { configJsonSchema, configReference, referenceExample } from "../../src/config/schema-document.js";
import { parse } from "./project.js";

const inClone = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));

describe("what follows from the schema", () => {
  it("templates/agentid.schema.json is current (npm run generate:config)", async () => {
    expect(await readFile(inClone("templates/agentid.schema.json"), "utf8")).toBe(configJsonSchema());
  });

  it("docs/configuration.md is current (npm run generate:config)", async () => {
    expect(await readFile(inClone("docs/configuration.md"), "utf8")).toBe(configReference());
  });

  it("the script that writes them runs without a build, and agrees", async () => {
    await promisify(execFile)(process.execPath, [inClone("scripts/generate-config.mjs"), "--check"]);
  });

  it("the page's example loads", () => {
    expect(parse(referenceExample()).services.map((service) => service.id.name)).toEqual([
      "mcp/payments",
      "services/invoices",
      "services/legacy",
    ]);
  });

  it("the page describes every key", () => {
    expect(configReference()).not.toMatch(/\| {2}\|/);
    for (const key of ["trustDomain", "keepEnv", "sha256", "listen", "mtls", "x509", "reload"]) {
      expect(configReference()).toContain(`| \`${key}\` |`);
    }
  });
});
