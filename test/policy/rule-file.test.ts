import { expect, test } from "vitest";
import { problemLine } from "../../src/policy/yaml-file.js";
import { load, loadFor, PAYMENTS_YAML, shop } from "./shop.js";

const lines = (...texts: string[]) => load(...texts).problems.map(problemLine);

test("the file of the README has no problems", () => {
  const { set, problems } = load(PAYMENTS_YAML);
  expect(problems).toEqual([]);
  expect(set?.rules.map((rule) => `${rule.name} ${rule.at}`)).toEqual([
    "billing-reads policies/0.yaml:2",
    "nobody-drops-tables policies/0.yaml:10",
    "small-refunds policies/0.yaml:5",
  ]);
});

test("every problem of every file is reported, with its place and the nearest valid choice", () => {
  const first = `rules:
  - name: a
    allow: { from: agents/biling, to: pyments, tools: "a*b*c" }
    when: args.amount <= caller.nme
  - name: b
    allow: { from: "agents/*", to: payments, path: pay }
    when: 'args.x.matches("(?=a)")'
  - name: b
    deny: { method: get }
    when: "1 + "
`;
  const second = "rules:\n  - name: c\n    alow: {}\n    deny: { too: payments }\n";
  expect(lines(first, second)).toEqual([
    "policies/0.yaml:3:20: unknown identity agents/biling (did you mean agents/billing?)",
    "policies/0.yaml:3:39: unknown service pyments (did you mean payments?)",
    'policies/0.yaml:3:55: "a*b*c" holds more than one *',
    "policies/0.yaml:4:26: when: no such member: caller.nme (did you mean name?)",
    'policies/0.yaml:6:52: path "pay" must start with /',
    "policies/0.yaml:6:52: payments is an mcp service: use tools",
    "policies/0.yaml:7:27: when: matches: error parsing regexp: invalid or unsupported Perl syntax: `(?=` (RE2 syntax)",
    "policies/0.yaml:9:21: unknown method get (did you mean GET?)",
    "policies/0.yaml:10:16: when: Unexpected token: EOF",
    "policies/1.yaml:3:5: unknown key alow (did you mean allow?)",
    "policies/1.yaml:4:13: unknown key too (did you mean to?)",
  ]);
});

test("two rules of one name are refused across files, since decisions name rules", () => {
  const rule = "rules: [{ name: a, deny: { to: payments } }]";
  expect(lines(rule)).toEqual([]);
  expect(lines(rule, rule)[0]).toContain("policies/1.yaml:1:1: rule a is already at policies/0.yaml:1");
});

test.each([
  ["a key given twice", "rules: []\nrules: []\n", "unique"],
  ["two documents", "rules: []\n---\nrules: []\n", "document"],
  ["an unknown tag", "rules: !!js/function x\n", "tag"],
  [
    "an alias bomb",
    `a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b]\nrules: [*c,*c,*c,*c]\n`,
    "alias",
  ],
  ["a list where a map belongs", "- a\n", "must be a mapping, not a list"],
  [
    "allow and deny at once",
    "rules: [{ name: a, allow: { from: '**', to: payments }, deny: {} }]",
    "either allow or deny",
  ],
  ["neither allow nor deny", "rules: [{ name: a }]", "either allow or deny"],
  ["an allow without from", "rules: [{ name: a, allow: { to: payments } }]", "does not say from whom"],
  ["an allow without to", "rules: [{ name: a, allow: { from: '**' } }]", "does not say to which service"],
  [
    "an empty list of tools",
    "rules: [{ name: a, allow: { from: '**', to: payments, tools: [] } }]",
    "must not be empty",
  ],
  ["a name with a space", "rules: [{ name: 'a b', deny: {} }]", "letters, digits"],
  ["tools of an http service", "rules: [{ name: a, deny: { to: invoices, tools: x } }]", "has no tools"],
  ["tools together with a path", "rules: [{ name: a, deny: { tools: x, path: /x } }]", "never matches"],
  ["an agent as a service", "rules: [{ name: a, deny: { to: agents/billing } }]", "is the identity of no service"],
  ["a condition that is no boolean", "rules: [{ name: a, deny: {}, when: '1 + 1' }]", "must be true or false, not int"],
  ["an unknown variable", "rules: [{ name: a, deny: {}, when: 'arg.x == 1' }]", "no such variable: arg"],
  ["a wrong type", "rules: [{ name: a, deny: {}, when: '\"a\" == 1' }]", "no such overload"],
  [
    "a pattern that the caller chooses",
    "rules: [{ name: a, deny: {}, when: 'args.x.matches(args.y)' }]",
    "literal string",
  ],
  [
    "a variable hidden by a macro",
    "rules: [{ name: a, deny: {}, when: 'args.x.all(caller, true)' }]",
    "cannot be the variable",
  ],
  [
    "four nested walks",
    "rules: [{ name: a, deny: {}, when: 'args.x.all(i, args.x.all(j, args.x.all(k, args.x.all(l, true))))' }]",
    "too costly: args.x.all(i, args.x.all(j, args.x.all(k, ",
  ],
  [
    "walks nested very deep",
    `rules: [{ name: a, deny: {}, when: '${"args.x.all(i, ".repeat(5)}true${")".repeat(5)}' }]`,
    "nested more than 4",
  ],
  [
    "a pattern of thousands of instructions",
    "rules: [{ name: a, deny: {}, when: 'args.x.matches(\"(a{900}|b{900}|c{900})*\")' }]",
    "too costly: args.x.matches",
  ],
  [
    "text that doubles with each binding",
    `rules: [{ name: a, deny: {}, when: '${"cel.bind(t, t + t + t + t, ".repeat(9).replace("t + t + t + t", "args.s")}t == args.s${")".repeat(9)}' }]`,
    "too costly",
  ],
  [
    "a zone that does not exist",
    "rules: [{ name: a, deny: {}, when: 'now.getHours(\"Europe/Belin\") < 9' }]",
    "no such time zone: Europe/Belin",
  ],
  ["a condition too long", `rules: [{ name: a, deny: {}, when: '${"true && ".repeat(600)}true' }]`, "longer than"],
  [
    "a condition too deep",
    `rules: [{ name: a, deny: {}, when: '${"(".repeat(40)}true${")".repeat(40)}' }]`,
    "maxDepth",
  ],
])("%s is an error and the set is not applied", (_what, text, expected) => {
  const { set, problems } = load(text);
  expect(set).toBeUndefined();
  expect(problems.map((problem) => problem.message).join("\n")).toContain(expected);
  expect(problems.every((problem) => problem.severity === "error")).toBe(true);
});

/** What is written in a rule, and what is meant. */
test.each([
  ["a variable", "when: 'arg.x == 1'", "no such variable: arg (did you mean args?)"],
  ["a function", "when: 'siez(args.x) > 2'", "no such function: siez (did you mean size?)"],
  ["a method", "when: 'args.x.startWith(\"a\")'", "no such function: startWith (did you mean startsWith?)"],
  ["a function of ours", "when: 'args.x.mathces(\"a\")'", "no such function: mathces (did you mean matches?)"],
  ["a macro", "when: 'args.x.exits(e, e > 1)'", "no such function: exits (did you mean exists?)"],
  ["a member", "when: 'resource.properites.x == 1'", "(did you mean properties?)"],
  ["a zone", "when: 'now.getHours(\"Europe/Belin\") < 9'", "Europe/Belin (did you mean Europe/Berlin?)"],
  [
    "a label of the caller",
    "when: 'caller.labels.taem == \"a\"'",
    "no identity has the label taem (did you mean team?)",
  ],
  ["a label that is asked for", "when: 'has(caller.labels.taem)'", "no identity has the label taem"],
  [
    "a label of the service",
    'when: \'resource.labels["teir"] == "a"\'',
    "no service has the label teir (did you mean tier?)",
  ],
  [
    "a unit",
    "limit: 10 per minuet",
    '"minuet" is no time; write second, minute, hour, day or 30s (did you mean minute?)',
  ],
  ["a limit's key", "limit: { rate: 1, per: day, for: [tol] }", "(did you mean tool?)"],
  ["a key", "sensitiv: [args.a]", "unknown key sensitiv (did you mean sensitive?)"],
  ["a number", "limit: { rate: '1', per: day }", "limit.rate: must be a number, not text"],
  ["a switch", "shadow: 'yes'", "shadow: must be true or false, not text"],
  ["a list", "require: approval", "require: must be a list, not text"],
])("%s that is wrong is named with the nearest that is right", (_what, wrong, said) => {
  const labelled = {
    ...shop,
    labels: new Map([["agents/billing", { team: "finance" }]]),
    services: shop.services.map((service) => ({ ...service, labels: { tier: "gold" } })),
  };
  const rule = (rest: string) => `rules: [{ name: a, allow: { from: agents/billing, to: payments }, ${rest} }]`;
  const problems = (rest: string) => loadFor(labelled, rule(rest)).problems.map(problemLine);
  expect(problems(wrong).join()).toContain(said);
  expect(problems("when: 'caller.labels.team == resource.labels.tier'")).toEqual([]);
});

test("YAML 1.1 words are plain strings and a merge key is no merge", () => {
  expect(load("rules: [{ name: no, deny: { to: payments } }]").set?.rules[0]?.name).toBe("no");
  expect(load("x: &x { name: a }\nrules: [{ <<: *x, deny: {} }]").set).toBeUndefined();
});

test("a pattern that matches nothing is a warning only, an empty file too", () => {
  const { set, problems } = load("rules: [{ name: a, allow: { from: robots/*, to: payments } }]", "");
  expect(set?.rules).toHaveLength(1);
  expect(problems.map((problem) => [problem.severity, problem.message])).toEqual([
    ["warning", "robots/* matches no identity"],
    ["warning", "the file holds no rules"],
  ]);
});

test.each([
  ["brackets nested deeper than a stack", "rules: ".concat("[".repeat(20_000))],
  ["maps nested deeper than a stack", `rules: ${"{a: ".repeat(20_000)}`],
])("%s are an error, not a crash", (_what, text) => {
  const { set, problems } = load(text);
  expect(set).toBeUndefined();
  expect(problems[0]?.severity).toBe("error");
});
