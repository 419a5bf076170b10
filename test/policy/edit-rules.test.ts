import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { valueAt, withKeyAt, withRule, withRuleKey, withTopKey } from "../../src/policy/edit-rules.js";
import { PAYMENTS_YAML } from "./shop.js";

const RULE = {
  name: "new",
  allow: { from: "agents/billing", to: "payments", tools: ["pay"] },
  when: "args.amount <= 5",
};

describe("a rule is added", () => {
  test("behind the last one, as it is indented, and nothing else changes", () => {
    const text = `# who may pay\n${PAYMENTS_YAML}# the end\n`;
    const added = withRule(text, RULE, "# agreed in May");
    expect(added).toBe(`# who may pay
${PAYMENTS_YAML}
  # agreed in May
  - name: new
    allow:
      from: agents/billing
      to: payments
      tools:
        - pay
    when: args.amount <= 5
# the end
`);
  });

  test.each([
    "a\u2028b",
    "a\u2029b",
    "a\u0085b",
    "a: b # c",
    "- a",
    "a\n- name: other",
    "\u001b[2K",
    "a\ud800",
    "'\"",
    "*a",
  ])("with whatever text it holds: %j", (text) => {
    const rule = { ...RULE, allow: { ...RULE.allow, tools: [text] }, when: `args.a == ${JSON.stringify(text)}` };
    const added = withRule(PAYMENTS_YAML, rule);
    expect(added.startsWith(PAYMENTS_YAML.trimEnd())).toBe(true);
    expect(parse(added).rules.at(-1)).toEqual(rule);
  });

  test.each([
    ["", "rules:\n"],
    ["# nothing yet\n", "# nothing yet\nrules:\n"],
    ["rules:\n", "rules:\n"],
    ["rules: # none\n", "rules: # none\n"],
    ["rules:", "rules:\n"],
  ])("to %j, which has none", (text, head) => {
    const added = withRule(text, RULE);
    expect(added.startsWith(`${head}  - name: new\n`)).toBe(true);
    expect(parse(added)).toEqual({ rules: [RULE] });
  });

  test("to a list at the margin", () => {
    const added = withRule("rules:\n- name: a\n  deny: {}\n", RULE);
    expect(parse(added)).toEqual({ rules: [{ name: "a", deny: {} }, RULE] });
    expect(added).toContain("\n- name: new\n");
  });

  test.each(["rules: [{ name: a, deny: {} }]\n", "rules: {}\n", "rulez: []\n", "rules:\n  - {\n"])(
    "not to %j, which would have to be written anew",
    (text) => {
      expect(() => withRule(text, RULE)).toThrow(expect.objectContaining({ code: "policy-edit" }));
    },
  );
});

describe("a key of a rule is set, replaced and taken away", () => {
  test("in block style", () => {
    const shadowed = withRuleKey(PAYMENTS_YAML, "billing-reads", "shadow", true);
    expect(shadowed).toBe(PAYMENTS_YAML.replace("list_invoices] }\n", "list_invoices] }\n    shadow: true\n"));
    expect(withRuleKey(shadowed, "billing-reads", "shadow", undefined)).toBe(PAYMENTS_YAML);
    expect(withRuleKey(PAYMENTS_YAML, "small-refunds", "when", "args.amount <= 4200")).toBe(
      PAYMENTS_YAML.replace("<= 1000\n", "<= 4200\n"),
    );
    expect(withRuleKey(PAYMENTS_YAML, "billing-reads", "shadow", undefined)).toBe(PAYMENTS_YAML);
  });

  test("between braces", () => {
    const text = "rules:\n  - { name: a, allow: { from: x, to: y } } # here\n";
    const shadowed = withRuleKey(text, "a", "shadow", true);
    expect(shadowed).toBe("rules:\n  - { name: a, allow: { from: x, to: y }, shadow: true } # here\n");
    expect(withRuleKey(shadowed, "a", "shadow", undefined)).toBe(text);
  });

  test("at the top of the file", () => {
    const shadowed = withTopKey(PAYMENTS_YAML, "shadow", true);
    expect(shadowed).toBe(`shadow: true\n${PAYMENTS_YAML}`);
    expect(withTopKey(shadowed, "shadow", undefined)).toBe(PAYMENTS_YAML);
    const below = `# who may\n${PAYMENTS_YAML}shadow: true\n`;
    expect(withTopKey(below, "shadow", false)).toBe(below.replace("shadow: true", "shadow: false"));
    expect(withTopKey(below, "shadow", undefined)).toBe(`# who may\n${PAYMENTS_YAML}`);
    expect(withTopKey("rules: []\n", "rules", [])).toBe("rules: []\n");
    expect(() => withTopKey("rules: []\n", "rules", undefined)).toThrow("nothing would be left");
  });

  test("of an identity in agentid.yaml, whatever its style", () => {
    const text =
      "identities: # who\n  agents/a:\n    launch: [a] # pinned\n\n  # the server\n  mcp/b: { service: b } # here\n  agents/c: {}\n  agents/d:\nservices: {}\n";
    const put = (name: string, value: unknown, into = text) => withKeyAt(into, ["identities", name], "shadow", value);
    const a = text.replace("# pinned\n", "# pinned\n    shadow: true\n");
    const b = text.replace("{ service: b }", "{ service: b, shadow: true }");
    const c = text.replace("agents/c: {}", "agents/c: { shadow: true }");
    expect([put("agents/a", true), put("mcp/b", true), put("agents/c", true)]).toEqual([a, b, c]);
    expect([put("agents/a", undefined, a), put("mcp/b", undefined, b)]).toEqual([text, text]);
    expect(parse(put("agents/c", undefined, c)).identities["agents/c"]).toEqual({});
    const first = text.replace("{ service: b }", "{ shadow: true, service: b }");
    expect(put("mcp/b", undefined, first)).toBe(text);
    expect(valueAt(a, ["identities", "agents/a", "shadow"])).toBe(true);
    expect(valueAt(text, ["identities", "agents/a", "shadow"])).toBeUndefined();
    expect(() => put("agents/d", true)).toThrow(expect.objectContaining({ code: "policy-edit" }));
    expect(() => put("agents/e", true)).toThrow("there is no map identities: agents/e");
    const odd = "rules:\n  - shadow: true\n    name: a\n    deny: {}\n";
    expect(() => withRuleKey(odd, "a", "shadow", undefined)).toThrow("in the midst of a line");
  });

  test("a condition of several lines becomes one, and what follows stays", () => {
    const text =
      "rules:\n  - name: a\n    deny: {}\n    when: |\n      args.a == 1 &&\n      args.b == 2\n    message: no\n";
    expect(parse(withRuleKey(text, "a", "when", "args.a == 1"))).toEqual({
      rules: [{ name: "a", deny: {}, when: "args.a == 1", message: "no" }],
    });
  });

  test("not of a rule that is not there", () => {
    expect(() => withRuleKey(PAYMENTS_YAML, "small-refund", "shadow", true)).toThrow("no rule small-refund");
  });
});

test("a key put into any identity and taken away leaves the file as it was, and changes nothing else", () => {
  const entry = fc
    .constantFrom("", " # why")
    .chain((comment) =>
      fc.constantFrom(
        ` { service: x }${comment}\n`,
        ` { user: dev, exe: { sha256: pinned } }${comment}\n`,
        `${comment}\n    launch: [a, "b # c"]${comment}\n`,
        `${comment}\n    launch:\n      command:\n        - a\n\n    # labels\n    labels: { team: x }${comment}\n`,
        `\n    hint: |\n      some\n      text\n    user: dev${comment}\n`,
        `\n    user: dev\n    hint: "a: b"\n\n\n`,
      ),
    );
  fc.assert(
    fc.property(fc.array(entry, { minLength: 1, maxLength: 4 }), fc.nat(3), fc.boolean(), (entries, at, tail) => {
      const text = `trustDomain: a.local\nidentities:\n${entries.map((each, index) => `  agents/a${index}:${each}`).join("")}${tail ? "# the end\nservices: {}\n" : ""}`;
      const name = `agents/a${at % entries.length}`;
      const path = ["identities", name];
      const put = withKeyAt(text, path, "shadow", true);
      const before = parse(text);
      const wanted = { ...before.identities, [name]: { ...before.identities[name], shadow: true } };
      expect(parse(put)).toEqual({ ...before, identities: wanted });
      expect(withKeyAt(put, path, "shadow", undefined)).toBe(text);
    }),
  );
});

test("whatever the texts in it, what is read back is what was written", () => {
  const value = fc.oneof(fc.string(), fc.boolean(), fc.integer());
  fc.assert(
    fc.property(fc.stringMatching(/^[a-z]{1,8}$/), value, fc.string(), (name, when, message) => {
      const rule = { name, deny: {}, message };
      const added = withRule(PAYMENTS_YAML, rule);
      const rules = parse(added).rules;
      expect(rules.at(-1)).toEqual(rule);
      expect(rules.slice(0, -1)).toEqual(parse(PAYMENTS_YAML).rules);
      const between = withRuleKey("rules: [{ name: a, deny: {} }, { name: b, deny: {} }]", "a", "when", when);
      expect(parse(between).rules).toEqual([
        { name: "a", deny: {}, when },
        { name: "b", deny: {} },
      ]);
      if (typeof when === "string" && /[\n\r]/.test(when)) return;
      const changed = parse(withRuleKey(added, name, "when", when)).rules;
      expect(changed.at(-1)).toEqual({ ...rule, when });
      expect(changed.slice(0, -1)).toEqual(parse(PAYMENTS_YAML).rules);
    }),
  );
});
