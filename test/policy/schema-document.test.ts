import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { policyJsonSchemas } from "../../src/policy/schema-document.js";

test.each(Object.entries(policyJsonSchemas()))("templates/%s is current (npm run generate:config)", (name, text) => {
  expect(readFileSync(new URL(`../../templates/${name}`, import.meta.url), "utf8")).toBe(text);
});
