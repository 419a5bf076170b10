import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { citationsIn } from "./citations.js";
import type { Requirement } from "./requirement.js";
import { requirements, verifies } from "./verifies.js";

const tests = join(import.meta.dirname, "..");
const citations = readdirSync(tests, { recursive: true, encoding: "utf8" })
  .filter((name) => /\.test\.tsx?$/.test(name) && !name.startsWith("requirements/"))
  .flatMap((name) => citationsIn(readFileSync(join(tests, name), "utf8"), `test/${name}`));
const cited = new Set(citations.map(({ id }) => id));
const all: readonly Requirement[] = requirements;

describe("requirements", () => {
  it("each has an id of its own", () => {
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length);
  });

  it("each that this version covers is cited by a test", () => {
    const uncited = all.filter(({ id, notCovered }) => notCovered === undefined && !cited.has(id));
    expect(uncited.map(({ id, statement }) => `${id}: ${statement}`)).toEqual([]);
  });

  it("none that a test cites is unknown, or listed as not covered", () => {
    const covered = new Set(all.filter(({ notCovered }) => notCovered === undefined).map(({ id }) => id));
    expect(citations.filter(({ id }) => !covered.has(id))).toEqual([]);
  });
});

describe("citations", () => {
  it("are found in titles, through verifies, and in groups", () => {
    const source = [
      `it("XR-1 XR-2 gives SVIDs", async () => {`,
      `it(\`\${${verifies.name}("EP-4")} refuses\`, () => {`,
      `it.each([["a", f(1)]])("JS-1 refuses %s", () => {`,
      `describe("ST-8", () => {`,
    ].join("\n");
    expect(citationsIn(source, "x").map(({ id, at }) => `${id} ${at}`)).toEqual([
      "XR-1 x:1",
      "XR-2 x:1",
      "EP-4 x:2",
      "JS-1 x:3",
      "ST-8 x:4",
    ]);
  });

  it("of tests that do not run do not count", () => {
    expect(citationsIn(`it.skip("XR-1 gives SVIDs", f); it.todo("XR-2");`, "x")).toEqual([]);
  });

  it("outside of titles do not count", () => {
    expect(citationsIn(`// XR-1\nconst text = "XR-2";`, "x")).toEqual([]);
  });
});
