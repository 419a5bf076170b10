import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { mutants } from "./mutants/mutants.js";

const root = join(import.meta.dirname, "..");

test("every mutant has a name of its own, and changes exactly one place", () => {
  const names = mutants.map(({ id }) => id);
  expect(names.filter((id, index) => names.indexOf(id) !== index)).toEqual([]);
  const lost = mutants.filter(({ file, find }) => readFileSync(join(root, file), "utf8").split(find).length !== 2);
  expect(lost.map(({ id, file }) => `${id} in ${file}`)).toEqual([]);
});
