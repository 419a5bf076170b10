import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { requestClasses } from "./classes.js";
import { elsewhere } from "./elsewhere.js";
import { badAnswers, badLists, badResponses } from "./responses.js";
import { causesOf, type VectorClass } from "./vector.js";

/** How many distinct causes each class has: fewer would be a loss that nobody meant. More are welcome: raise the number with them. */
const AT_LEAST: Readonly<Record<string, number>> = {
  "path confusion": 68,
  "host confusion": 33,
  "HTTP/1.1 framing": 82,
  "hop-by-hop": 30,
  "spoofed identity": 51,
  "JSON differentials": 55,
  "JSON-RPC and MCP": 94,
  "browser and localhost": 20,
  "WebSocket handshake": 27,
  CONNECT: 51,
  "HTTP/2 and gRPC": 37,
  connections: 29,
  responses: 86,
};

const classes: readonly VectorClass[] = requestClasses;
const counts: Readonly<Record<string, number>> = {
  ...Object.fromEntries(classes.map((one) => [one.name, causesOf(one).size])),
  responses: new Set([...badResponses, ...badLists, ...badAnswers].map(({ what }) => what)).size,
};

it("no class of bad input has lost a cause", () => {
  process.stdout.write(`${JSON.stringify(counts)}\n`);
  expect(Object.keys(counts)).toEqual(Object.keys(AT_LEAST));
  const shrunk = Object.entries(AT_LEAST).filter(([name, least]) => (counts[name] ?? 0) < least);
  expect(shrunk).toEqual([]);
});

it.each(classes)(
  "$name: no vector is given twice, and one that is for no listener is none",
  ({ concerns, vectors }) => {
    const names = vectors.map(({ what }) => what);
    expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
    const kinds = Object.entries(concerns).filter(([, concerned]) => concerned === true);
    const lost = vectors.filter(({ notFor = {} }) => kinds.every(([kind]) => kind in notFor));
    expect(lost).toEqual([]);
  },
);

it.each(Object.entries(elsewhere))("%s: what shows it is there", (_name, shown) => {
  const files = typeof shown === "string" ? [] : shown;
  expect(files.filter((file) => !existsSync(join(import.meta.dirname, "../../..", file)))).toEqual([]);
});
