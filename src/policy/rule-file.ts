import { CodedError, messageOf } from "../coded-error.js";
import type { Obligation } from "./access-request.js";
import { type Condition, compileCondition } from "./condition.js";
import { ConditionError } from "./condition-syntax.js";
import type { Entities } from "./entities.js";
import { parseLimit, type RateLimit } from "./limit.js";
import { againstPins } from "./pinned-tools.js";
import type { PolicyNames } from "./policy-names.js";
import type { Rule } from "./rule.js";
import { readAction } from "./rule-action.js";
import { type RuleText, ruleFileSchema, type ScopeText } from "./rule-file-schema.js";
import { RuleNames } from "./rule-names.js";
import { checkProtocols, type Place, readResource, readSubject } from "./rule-scope.js";
import { OWN_VARIABLES } from "./ruled-request.js";
import { contextTerm, type Term, timeTerm } from "./term.js";
import { parseTimeWindow } from "./time-window.js";
import { type PathInFile, type PolicyProblem, YamlFile } from "./yaml-file.js";

/**
 * Reads one rule file. All problems are reported, not only the first; a rule with a problem is left out of `rules`, and the caller must not
 * apply a set that has errors.
 */
export function readRuleFile(
  file: string,
  text: string,
  names: PolicyNames,
  entities: Entities,
): { readonly rules: readonly Rule[]; readonly problems: readonly PolicyProblem[] } {
  const yaml = new YamlFile(file, text);
  if (text.trim() === "") {
    yaml.warning("policy-empty", [], "the file holds no rules");
    return { rules: [], problems: yaml.problems };
  }
  const content = yaml.parse(ruleFileSchema);
  const reader = new RuleReader(yaml, new RuleNames(yaml, names, entities), content?.shadow === true);
  const rules = (content?.rules ?? []).flatMap((rule, index) => reader.read(rule, index) ?? []);
  return { rules, problems: yaml.problems };
}

const EFFECTS = ["allow", "deny", "match"] as const;

class RuleReader {
  readonly #yaml: YamlFile;
  readonly #names: RuleNames;
  readonly #inShadow: boolean;

  constructor(yaml: YamlFile, names: RuleNames, inShadow: boolean) {
    this.#yaml = yaml;
    this.#names = names;
    this.#inShadow = inShadow;
  }

  read(text: RuleText, index: number): Rule | undefined {
    const at: PathInFile = ["rules", index];
    const before = this.#yaml.problems.length;
    const [effect, another] = EFFECTS.filter((each) => text[each] !== undefined);
    if (effect === undefined || another !== undefined) {
      const message = `rule ${text.name} must have either allow or deny, or match with a limit or what it requires`;
      this.#yaml.problem("policy-rule", at, message);
      return undefined;
    }
    this.#checkGuards(text, effect, at);
    const scope = text[effect] ?? {};
    const path = [...at, effect];
    const place: Place = { yaml: this.#yaml, names: this.#names, effect, rule: text.name, path };
    checkOneForm(scope, place);
    const { terms: subjectTerms, ...subject } = readSubject(scope, place);
    const { terms: resourceTerms, ...resource } = readResource(scope, place);
    const { terms: actionTerms, actions } = readAction(scope, resource, place);
    const rule: Rule = {
      name: text.name,
      effect,
      at: `${this.#yaml.file}:${this.#yaml.lineOf(at)}`,
      shadow: this.#inShadow || text.shadow === true,
      ...subject,
      ...resource,
      actions,
      terms: [
        ...subjectTerms,
        ...actionTerms,
        ...resourceTerms,
        ...this.#contextTerms(scope, path),
        ...this.#time(scope, path),
      ],
      condition: text.when === undefined ? undefined : this.#condition(text.when, text.sensitive, [...at, "when"]),
      limit: text.limit === undefined ? undefined : this.#limit(text.limit, [...at, "limit"]),
      requires: (text.require ?? []).map((each) => obligationOf(text.name, each)),
      message: text.message,
      description: text.description,
    };
    checkProtocols(rule, scope, place);
    this.#checkLabels(rule, [...at, "when"]);
    this.#checkTools(rule, scope.resource === undefined ? [...path, "tools"] : [...path, "resource"], [...at, "when"]);
    const failed = this.#yaml.problems.slice(before).some((problem) => problem.severity === "error");
    return failed ? undefined : rule;
  }

  #checkGuards({ name, limit, require: requires }: RuleText, effect: Rule["effect"], at: PathInFile): void {
    const guarded = limit !== undefined || requires !== undefined;
    if (effect === "match" && !guarded) {
      this.#yaml.problem(
        "policy-rule",
        at,
        `rule ${name} matches, and has neither a limit nor anything that it requires`,
      );
    }
    if (effect === "deny" && guarded) {
      this.#yaml.problem("policy-rule", at, `rule ${name} denies: limit and require go with allow or match`);
    }
  }

  #contextTerms({ context }: ScopeText, path: PathInFile): readonly Term[] {
    return Object.entries(context ?? {}).map(([key, values]) => {
      if (OWN_VARIABLES.has(key)) {
        const hint = key === "user" || key === "actors" ? `subject: { ${key}: … }` : `when: ${HINTS[key] ?? key}…`;
        this.#yaml.problem("policy-rule", [...path, "context", key], `${key} is no context of its own`, hint);
      }
      return contextTerm(key, Array.isArray(values) ? values : [values]);
    });
  }

  #checkTools(rule: Rule, tools: PathInFile, when: PathInFile): void {
    const { unpinned, unknownArguments } = againstPins(rule, this.#names.servicesAmong(rule.to));
    for (const { message, hint } of unpinned) {
      this.#yaml.warning("policy-unknown-name", tools, message, hint);
    }
    for (const { message, hint, position } of unknownArguments) {
      const offset = this.#yaml.offsetInScalar(when, position);
      this.#yaml.problem("policy-condition", when, `when: ${message}`, hint, offset);
    }
  }

  #checkLabels({ condition }: Rule, when: PathInFile): void {
    for (const { label, of, position } of condition?.labelsRead ?? []) {
      this.#names.checkLabel(label, of, when, this.#yaml.offsetInScalar(when, position));
    }
  }

  #time({ time }: ScopeText, path: PathInFile): readonly Term[] {
    if (time === undefined) return [];
    try {
      return [timeTerm(parseTimeWindow(time))];
    } catch (thrown) {
      this.#yaml.problem("policy-rule", [...path, "time"], messageOf(thrown), hintOf(thrown));
      return [];
    }
  }

  #limit(written: NonNullable<RuleText["limit"]>, at: PathInFile): RateLimit | undefined {
    try {
      return parseLimit(written);
    } catch (thrown) {
      this.#yaml.problem("policy-rule", at, messageOf(thrown), hintOf(thrown));
      return undefined;
    }
  }

  #condition(source: string, sensitive: readonly string[] = [], at: PathInFile): Condition | undefined {
    try {
      return compileCondition(source, { sensitive });
    } catch (thrown) {
      const position = thrown instanceof ConditionError ? thrown.position : 0;
      const hint = thrown instanceof ConditionError ? thrown.hint : undefined;
      const offset = this.#yaml.offsetInScalar(at, position);
      this.#yaml.problem("policy-condition", at, `when: ${messageOf(thrown)}`, hint, offset);
      return undefined;
    }
  }
}

function hintOf(thrown: unknown): string | undefined {
  return thrown instanceof CodedError ? thrown.hint : undefined;
}

const HINTS: Readonly<Record<string, string>> = { args: "args.", query: "request.query." };

/** The short form is another way to write the long one, not something besides. */
function checkOneForm(scope: ScopeText, { yaml, path }: Place): void {
  const pairs = [
    ["subject", ["from"]],
    ["action", ["method"]],
    ["resource", ["to", "tools", "path"]],
  ] as const;
  for (const [long, shorts] of pairs) {
    const short = shorts.find((key) => scope[key] !== undefined);
    if (scope[long] === undefined || short === undefined) continue;
    yaml.problem("policy-rule", [...path, long], `${short} and ${long} say the same: write one of them`);
  }
}

function obligationOf(rule: string, written: NonNullable<RuleText["require"]>[number]): Obligation {
  if (typeof written === "string") return { id: `${rule}/${written}`, type: written };
  const { type, id, properties } = written;
  return { id: id ?? `${rule}/${type}`, type, ...(properties !== undefined && { properties }) };
}
