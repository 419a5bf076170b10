import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { mutants } from "../mutants/mutants.ts";
import { type Attack, attacks } from "./attacks.js";

const root = join(import.meta.dirname, "..", "..");
const text = (path: string): string => readFileSync(join(root, path), "utf8");

/** Every title of a test in a source file. */
function titlesIn(source: string): readonly string[] {
  const call = /\b(?:it|test)\b(?:\.\w+(?:\((?:[^()]|\([^()]*\))*\))?)*\(\s*(["'`])((?:\\.|(?!\1)[\s\S])*)\1/g;
  const each = /\b(?:it|test)\.each\((?:[\s\S]*?)\]\s*(?:as const\s*)?\)\(\s*(["'`])((?:\\.|(?!\1)[\s\S])*)\1/g;
  return [...source.matchAll(call), ...source.matchAll(each)].map((found) => found[2] ?? "");
}

function row({ id, tries, answer, shownBy, mutants: ids }: Attack): string {
  const tests = Object.keys(shownBy).map((file) => `\`${file}\``);
  const shown = ids.length === 0 ? "–" : ids.map((each) => `\`${each}\``).join(", ");
  return `| \`${id}\` | ${tries} | ${answer} | ${tests.join(", ")} | ${shown} |`;
}

describe("the index of attacks", () => {
  test("stands in docs/threat-model.md row by row", () => {
    const rows = text("docs/threat-model.md")
      .split("\n")
      .filter((line) => /^\| `[a-z-]+` \|/.test(line));
    expect(rows).toEqual(attacks.map(row));
  });

  test("names each attack once", () => {
    expect(new Set(attacks.map(({ id }) => id)).size).toBe(attacks.length);
  });

  test.each(attacks)("$id: its tests are there", ({ shownBy }) => {
    expect(Object.keys(shownBy)).not.toEqual([]);
    for (const [file, titles] of Object.entries(shownBy)) {
      expect(existsSync(join(root, file)), file).toBe(true);
      const found = titlesIn(text(file));
      for (const title of titles) expect(found, file).toContain(title);
    }
  });

  test.each(attacks.filter(({ mutants: ids }) => ids.length > 0))(
    "$id: its mutants are there, and run one of its tests",
    (attack) => {
      for (const id of attack.mutants) {
        const mutant = mutants.find((each) => each.id === id);
        expect(mutant, id).toBeDefined();
        expect(
          Object.keys(attack.shownBy).filter((file) => mutant?.tests.includes(file)),
          id,
        ).not.toEqual([]);
      }
    },
  );

  test("has every liar of this folder", () => {
    const cited = new Set(
      attacks.flatMap(({ shownBy }) =>
        Object.entries(shownBy).flatMap(([file, titles]) => titles.map((title) => `${file}: ${title}`)),
      ),
    );
    for (const name of readdirSync(import.meta.dirname)) {
      if (!name.endsWith(".test.ts") || name === "attacks.test.ts") continue;
      for (const title of titlesIn(text(`test/liars/${name}`))) expect(cited).toContain(`test/liars/${name}: ${title}`);
    }
  });
});
