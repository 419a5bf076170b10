import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { MAY_KNOW } from "./layers.js";

const src = join(dirname(fileURLToPath(import.meta.url)), "..", "src");

interface Import {
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

function importsOf(file: string): readonly Import[] {
  const text = readFileSync(file, "utf8");
  const specifiers = [...text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)].map((match) => match[1] ?? "");
  return specifiers.map((specifier) => ({
    file: relative(src, file),
    from: layerOf(relative(src, file)),
    to: layerOf(relative(src, join(dirname(file), specifier))),
  }));
}

function layerOf(path: string): string {
  const [first = ""] = path.split("/");
  return first.replace(/\.(js|ts)$/, "");
}

const sources = readdirSync(src, { recursive: true, encoding: "utf8" }).filter((name) => /\.tsx?$/.test(name));
const imports = sources.flatMap((name) => importsOf(join(src, name)));

function violations(found: readonly Import[]): string[] {
  return found
    .filter(({ from, to }) => from !== to && to !== "coded-error" && !MAY_KNOW[from]?.includes(to))
    .map(({ file, from, to }) => `${file}: ${from} must not know ${to}`);
}

describe("layers", () => {
  it("every folder of src/ has its row", () => {
    const folders = readdirSync(src, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    expect(folders.map(({ name }) => name).filter((name) => !(name in MAY_KNOW))).toEqual([]);
  });

  it("every import goes in the allowed direction", () => {
    expect(imports.length).toBeGreaterThan(10);
    expect(violations(imports)).toEqual([]);
  });

  it("the client and the conformance suite know the Workload API's generated stubs and nothing else of it", () => {
    const found = sources
      .filter((name) => /^(client|conformance)\//.test(name))
      .map((name) => readFileSync(join(src, name), "utf8"));
    const specifiers = found.flatMap((text) =>
      [...text.matchAll(/"([^"]*workload-api\/[^"]*\.js)"/g)].map(([, path]) => path),
    );
    expect(specifiers.length).toBeGreaterThan(0);
    expect(specifiers.filter((path) => !path?.includes("/workload-api/generated/"))).toEqual([]);
  });

  it("would notice an import against the direction", () => {
    expect(violations([{ file: "spiffe/x.ts", from: "spiffe", to: "daemon" }])).toHaveLength(1);
  });

  it("has no cycle between folders", () => {
    const order: string[] = [];
    const visit = (layer: string, path: readonly string[]): void => {
      expect(path, `cycle: ${[...path, layer].join(" → ")}`).not.toContain(layer);
      if (order.includes(layer)) return;
      for (const next of MAY_KNOW[layer] ?? []) visit(next, [...path, layer]);
      order.push(layer);
    };
    for (const layer of Object.keys(MAY_KNOW)) visit(layer, []);
    expect(order).toHaveLength(Object.keys(MAY_KNOW).length);
  });
});
