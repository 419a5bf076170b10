import { expect, test } from "vitest";
import type { AccessRequest } from "../../src/policy/access-request.js";
import { httpAccessRequest } from "../../src/policy/access-request-of.js";
import { RuleIndex } from "../../src/policy/rule-index.js";
import { ruledRequest } from "../../src/policy/ruled-request.js";
import { call, id, setWith, shop } from "./shop.js";

/** So many rules of each sort: for a tool each, for a caller each, for a record each, for a path each; and one for everybody. */
function indexOf(count: number): RuleIndex {
  const each = (line: (number: number) => string) =>
    Array.from({ length: count }, (_, number) => line(number)).join("");
  const rules = `rules:
  - { name: everybody, deny: { to: payments, tools: drop } }
${each((i) => `  - { name: tool${i}, allow: { from: agents/billing, to: payments, tools: t${i} } }\n`)}
${each((i) => `  - { name: path${i}, allow: { from: agents/billing, to: invoices, action: GET, path: [/v${i}/a/*, "/v${i}/**", /w/${i}] } }\n`)}
  - { name: everyPath, allow: { from: agents/billing, to: invoices, action: GET, path: /*/status } }
${each((i) => `  - { name: caller${i}, allow: { from: agents/a${i}, to: invoices } }\n`)}
${each((i) => `  - { name: record${i}, allow: { subject: { type: user, id: alice }, resource: { type: record, id: r${i} } } }\n`)}`;
  const names = {
    ...shop,
    identities: [...shop.identities, ...Array.from({ length: count }, (_, i) => `agents/a${i}`)],
  };
  const entities = "entities: [{ type: user, id: alice }, { type: record, id: r0 }]";
  return new RuleIndex(setWith({ names, entities }, rules).rules);
}

const invoicesAt = (path: string) =>
  httpAccessRequest({ caller: id("agents/billing"), service: id("services/invoices"), method: "GET", path });

function lookedAt(index: RuleIndex, request: AccessRequest): readonly string[] {
  const seen: string[] = [];
  index.forRequest(ruledRequest(request), ({ rule }) => seen.push(rule.name));
  return seen;
}

test("a decision looks at as many rules among three thousand as among thirty", () => {
  const requests: readonly (readonly [AccessRequest, readonly string[]])[] = [
    [call("t7"), ["tool7"]],
    [call("drop"), ["everybody"]],
    [call("unknown"), []],
    [
      httpAccessRequest({ caller: id("agents/a7"), service: id("services/invoices"), method: "GET", path: "/" }),
      ["caller7"],
    ],
    ...["/v7/a/b", "/v7/a", "/w/7"].map((path) => [invoicesAt(path), ["everyPath", "path7"]] as const),
    [invoicesAt("/w"), ["everyPath"]],
    [invoicesAt("/v7"), ["everyPath", "path7"]],
    [invoicesAt("/"), ["everyPath"]],
    [
      { subject: { type: "user", id: "alice" }, action: { name: "read" }, resource: { type: "record", id: "r7" } },
      ["record7"],
    ],
  ];
  for (const count of [10, 1_000]) {
    const index = indexOf(count);
    for (const [request, expected] of requests) expect(lookedAt(index, request)).toEqual(expected);
  }
});
