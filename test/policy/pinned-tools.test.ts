import { expect, test } from "vitest";
import { pinsOf } from "../../src/config/tool-pin.js";
import { unpinnedServices } from "../../src/policy/pinned-tools.js";
import { problemLine } from "../../src/policy/yaml-file.js";
import { loadFor, shop } from "./shop.js";

const names = {
  ...shop,
  services: shop.services.map((service) => ({
    ...service,
    ...(service.name === "payments" && {
      tools: pinsOf([
        {
          name: "issue_refund",
          inputSchema: {
            type: "object",
            properties: {
              amount: { type: "number" },
              customer: { $ref: "#/$defs/customer" },
              lines: { type: "array", items: { type: "object", properties: { price: { type: "number" } } } },
              meta: { type: "object" },
              tags: { type: "object", additionalProperties: { type: "string" } },
              target: { anyOf: [{ properties: { iban: {} } }, { properties: { card: {} } }] },
            },
            $defs: { customer: { type: "object", properties: { address: { properties: { country: {} } } } } },
          },
        },
        { name: "get_invoice", inputSchema: { type: "object", properties: { id: {} }, additionalProperties: false } },
      ]),
    }),
  })),
};

const problemsOf = (when: string, tools = "issue_refund", to = "payments") =>
  loadFor(
    names,
    `rules: [{ name: a, allow: { from: agents/billing, to: ${to}, tools: ["${tools}"] }, when: '${when}' }]`,
  );

test.each([
  ["args.amuont <= 1000", "issue_refund has no argument amuont (did you mean amount?)"],
  ["has(args.amuont)", "issue_refund has no argument amuont (did you mean amount?)"],
  ['args["am"] == 1', "issue_refund has no argument am (known: amount, customer, lines, meta, tags, target)"],
  ['args.customer.adress.country == "DE"', "issue_refund has no argument customer.adress (did you mean address?)"],
  [
    'args.customer.address.contry == "DE"',
    "issue_refund has no argument customer.address.contry (did you mean country?)",
  ],
  ["args.lines[0].prize < 1.0", "issue_refund has no argument lines[0].prize (did you mean price?)"],
  ['args.target.ibam == "x"', "issue_refund has no argument target.ibam (did you mean iban?)"],
  ["args.?amuont.orValue(1) == 1", "issue_refund has no argument amuont (did you mean amount?)"],
])("%s is refused", (when, expected) => {
  const { set, problems } = problemsOf(when);
  expect(set).toBeUndefined();
  expect(problems.map(problemLine)).toEqual([expect.stringContaining(`when: ${expected}`)]);
});

test.each([
  "args.amount <= 1000",
  'args.customer.address.country == "DE"',
  "args.lines[0].price < 1.0 && args.lines.all(line, line.price < 1.0)",
  'args.meta.anything == "x"',
  'args.tags.anything == "x"',
  'args.target.iban == "x" || args.target.card == "y"',
])("%s is accepted", (when) => {
  expect(problemsOf(when).problems).toEqual([]);
});

test("the problem stands at the argument", () => {
  const { problems } = problemsOf("args.amount <= 1000 && args.amuont > 1");
  const plain = problemsOf("args.amuont > 1");
  expect((problems[0]?.column ?? 0) - (plain.problems[0]?.column ?? 0)).toBe("args.amount <= 1000 && ".length);
});

test("a tool that is not pinned is a warning with the nearest name; one of a service without pins is none", () => {
  const { set, problems } = problemsOf("true", "isue_refund");
  expect(set?.rules).toHaveLength(1);
  expect(problems.map(problemLine)).toEqual([
    expect.stringContaining("tool isue_refund of payments is not pinned in agentid.lock (did you mean issue_refund?)"),
  ]);
  expect(problemsOf("true", "issue_*").problems).toEqual([]);
  const unpinned = { ...names, services: shop.services };
  const text =
    "rules: [{ name: a, allow: { from: agents/billing, to: payments, tools: [nonsense] }, when: args.x == 1 }]";
  expect(loadFor(unpinned, text).problems).toEqual([]);
});

test("services are named of whose tools rules speak while none is pinned, and only those", () => {
  const rules = (to: string, more = "tools: [any]") =>
    `rules: [{ name: a, allow: { from: agents/billing, to: ${to}, ${more} } }]`;
  const unpinned = { ...names, services: shop.services };
  const named = (of: Parameters<typeof loadFor>[0], text: string) => {
    const { set } = loadFor(of, text);
    return set === undefined ? undefined : unpinnedServices(set);
  };
  expect(named(unpinned, rules("payments"))).toEqual(["payments"]);
  expect(named(unpinned, rules("mcp/*"))).toEqual(["payments"]);
  expect(named(names, rules("payments", "tools: [issue_refund]"))).toEqual([]);
  expect(named(unpinned, rules("invoices", "action: GET"))).toEqual([]);
});

test("of several tools one that has the argument is enough", () => {
  const rule = (tools: string) =>
    loadFor(names, `rules: [{ name: a, deny: { to: payments, tools: ${tools} }, when: args.amount > 1 }]`).problems;
  expect(rule("[issue_refund, get_invoice]")).toEqual([]);
  expect(rule("[get_invoice]")).toHaveLength(1);
});
