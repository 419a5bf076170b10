import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { FACT_DESCRIPTIONS } from "../../src/attestation/fact-descriptions.js";
import { SELECTOR_KINDS, type SelectorKind } from "../../src/attestation/selectors.js";

const page = readFileSync(new URL("../../docs/attestation.md", import.meta.url), "utf8");

test("docs/attestation.md has every fact with its selector, source, strength and forger, in the words of attest --explain", () => {
  const prefixes = new Map(
    Object.values<SelectorKind>(SELECTOR_KINDS).map(({ fact, prefix }) => [String(fact), prefix]),
  );
  const rows = FACT_DESCRIPTIONS.map(({ name, fact, source, strength, forgedBy }) => {
    const selector = prefixes.get(fact);
    return `| ${name} | ${selector === undefined ? "" : `\`${selector}\``} | ${source} | ${strength} | ${forgedBy} |`;
  });
  const table = ["| Fact | Selector | Source | Strength | Forged by |", "|---|---|---|---|---|", ...rows].join("\n");
  expect(page).toContain(table);
});

test("every selector is made of a described fact", () => {
  const described = new Set([...FACT_DESCRIPTIONS.map(({ fact }) => fact), "supplementaryGroups"]);
  expect(Object.values<SelectorKind>(SELECTOR_KINDS).filter(({ fact }) => !described.has(fact))).toEqual([]);
});

test("every test that the page names exists", () => {
  const named = [...page.matchAll(/`(test\/[^`]+)`/g)].flatMap(([, path]) => path ?? []);
  expect(named.length).toBeGreaterThan(3);
  for (const path of named) expect(() => readFileSync(new URL(`../../${path}`, import.meta.url))).not.toThrow();
});
