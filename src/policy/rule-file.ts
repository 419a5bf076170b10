import { METHODS } from "node:http";
import { messageOf } from "../coded-error.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import { type Condition, compileCondition } from "./condition.js";
import { ConditionError } from "./condition-syntax.js";
import {
  type IdentityParts,
  type IdentityPattern,
  identityParts,
  matchesIdentity,
  type NamePattern,
  parseIdentityPattern,
  parseNamePattern,
  parsePathPattern,
  type SegmentPattern,
} from "./pattern.js";
import { againstPins } from "./pinned-tools.js";
import { isIdentityName, type NamedService, nearestHint, type PolicyNames } from "./policy-names.js";
import type { Rule } from "./rule.js";
import { type RuleText, ruleFileSchema, type ScopeText } from "./rule-file-schema.js";
import { type PathInFile, type PolicyProblem, YamlFile } from "./yaml-file.js";

/** JSON-RPC methods of MCP that a client sends, of every revision up to 2026-07-28. */
const MCP_METHODS = [
  "completion/complete",
  "initialize",
  "logging/setLevel",
  "ping",
  "prompts/get",
  "prompts/list",
  "resources/list",
  "resources/read",
  "resources/subscribe",
  "resources/templates/list",
  "resources/unsubscribe",
  "server/discover",
  "subscriptions/listen",
  "tasks/cancel",
  "tasks/get",
  "tasks/list",
  "tasks/result",
  "tasks/update",
  "tools/call",
  "tools/list",
];

/**
 * Reads one rule file. All problems are reported, not only the first; a rule with a problem is left out of `rules`, and the caller must not
 * apply a set that has errors.
 */
export function readRuleFile(
  file: string,
  text: string,
  names: PolicyNames,
): { readonly rules: readonly Rule[]; readonly problems: readonly PolicyProblem[] } {
  const yaml = new YamlFile(file, text);
  if (text.trim() === "") {
    yaml.warning("policy-empty", [], "the file holds no rules");
    return { rules: [], problems: yaml.problems };
  }
  const content = yaml.parse(ruleFileSchema);
  const reader = new RuleReader(yaml, names);
  const rules = (content?.rules ?? []).flatMap((rule, index) => reader.read(rule, index) ?? []);
  return { rules, problems: yaml.problems };
}

class RuleReader {
  readonly #yaml: YamlFile;
  readonly #names: PolicyNames;
  readonly #services: ReadonlyMap<string, NamedService>;
  readonly #identities: readonly IdentityParts[];

  constructor(yaml: YamlFile, names: PolicyNames) {
    this.#yaml = yaml;
    this.#names = names;
    this.#services = new Map(names.services.map((service) => [service.name, service]));
    // An instance has any name: a pattern about instances is seen to match one.
    const known = [...names.identities, ...(names.withInstances ?? []).map((name) => `${name}/instance`)];
    this.#identities = known.map((name) => identityParts(SpiffeId.of(names.trustDomain, name).toString()));
  }

  read(text: RuleText, index: number): Rule | undefined {
    const at: PathInFile = ["rules", index];
    const before = this.#yaml.problems.length;
    if ((text.allow === undefined) === (text.deny === undefined)) {
      this.#yaml.problem("policy-rule", at, `rule ${text.name} must have either allow or deny`);
      return undefined;
    }
    const effect = text.allow === undefined ? "deny" : "allow";
    const scope = text.allow ?? text.deny ?? {};
    const place = [...at, effect];
    if (effect === "allow") this.#requireSubjectAndResource(text.name, scope, place);
    const rule: Rule = {
      name: text.name,
      effect,
      at: `${this.#yaml.file}:${this.#yaml.lineOf(at)}`,
      from: this.#each(scope.from, [...place, "from"], (name, where) => this.#caller(name, where)),
      to: this.#each(scope.to, [...place, "to"], (name, where) => this.#service(name, where)),
      tools: this.#each(scope.tools, [...place, "tools"], (name, where) =>
        this.#pattern(name, where, parseNamePattern),
      ),
      methods: this.#each(scope.method, [...place, "method"], (name, where) => this.#method(name, where)),
      paths: this.#each(scope.path, [...place, "path"], (path, where) => this.#pattern(path, where, parsePathPattern)),
      condition: text.when === undefined ? undefined : this.#condition(text.when, text.sensitive, [...at, "when"]),
      message: text.message,
      description: text.description,
    };
    this.#checkProtocols(rule, scope, place);
    this.#checkTools(rule, place, [...at, "when"]);
    const failed = this.#yaml.problems.slice(before).some((problem) => problem.severity === "error");
    return failed ? undefined : rule;
  }

  // An allow that forgets who or what would be the widest of all rules; a deny that forgets it is only the strictest.
  #requireSubjectAndResource(name: string, scope: ScopeText, place: PathInFile): void {
    if (scope.from === undefined) {
      this.#yaml.problem("policy-rule", place, `allow of ${name} does not say from whom`, 'every identity: from: "**"');
    }
    if (scope.to === undefined) {
      this.#yaml.problem("policy-rule", place, `allow of ${name} does not say to which service`);
    }
  }

  #checkProtocols(rule: Rule, scope: ScopeText, place: PathInFile): void {
    const http = rule.paths !== undefined || rule.methods?.some((method) => method.startsWith("http:")) === true;
    const mcpMethods = rule.methods?.some((method) => !method.startsWith("http:")) === true;
    if (rule.tools !== undefined && (http || mcpMethods)) {
      this.#yaml.problem("policy-rule", place, `rule ${rule.name} never matches: tools together with method or path`);
    }
    if (mcpMethods && rule.paths !== undefined) {
      this.#yaml.problem("policy-rule", place, `rule ${rule.name} never matches: a method of MCP together with a path`);
    }
    const services = this.#names.services.filter((service) =>
      rule.to?.some((pattern) => matchesIdentity(pattern, this.#identityOf(service))),
    );
    if (scope.to === undefined || services.length === 0) return;
    if (rule.tools !== undefined && services.every((service) => service.protocol === "http")) {
      this.#yaml.problem(
        "policy-rule",
        [...place, "tools"],
        `${services[0]?.name} is an http service and has no tools`,
      );
    }
    if (http && services.every((service) => service.protocol === "mcp")) {
      const key = scope.path === undefined ? "method" : "path";
      this.#yaml.problem("policy-rule", [...place, key], `${services[0]?.name} is an mcp service: use tools`);
    }
  }

  #checkTools(rule: Rule, place: PathInFile, when: PathInFile): void {
    const services = this.#names.services.filter(
      (service) => rule.to === undefined || rule.to.some((each) => matchesIdentity(each, this.#identityOf(service))),
    );
    const { unpinned, unknownArguments } = againstPins(rule, services);
    for (const { message, hint } of unpinned) {
      this.#yaml.warning("policy-unknown-name", [...place, "tools"], message, hint);
    }
    for (const { message, hint, position } of unknownArguments) {
      const offset = this.#yaml.offsetInScalar(when, position);
      this.#yaml.problem("policy-condition", when, `when: ${message}`, hint, offset);
    }
  }

  #each<Value>(
    given: string | readonly string[] | undefined,
    at: PathInFile,
    read: (text: string, at: PathInFile) => Value | undefined,
  ): readonly Value[] | undefined {
    if (given === undefined) return undefined;
    if (typeof given === "string") return [read(given, at)].filter((value) => value !== undefined);
    return given.map((text, index) => read(text, [...at, index])).filter((value) => value !== undefined);
  }

  #pattern<Value extends NamePattern | SegmentPattern | IdentityPattern>(
    text: string,
    at: PathInFile,
    parse: (text: string) => Value,
  ): Value | undefined {
    try {
      return parse(text);
    } catch (thrown) {
      this.#yaml.problem("policy-pattern", at, messageOf(thrown));
      return undefined;
    }
  }

  #identityPattern(text: string, at: PathInFile): IdentityPattern | undefined {
    return this.#pattern(text, at, (given) => parseIdentityPattern(given, this.#names.trustDomain));
  }

  #caller(text: string, at: PathInFile): IdentityPattern | undefined {
    const pattern = this.#identityPattern(text, at);
    if (pattern === undefined || pattern.trustDomain !== this.#names.trustDomain.name) return pattern;
    if (this.#identities.some((identity) => matchesIdentity(pattern, identity))) return pattern;
    if (isIdentityName(pattern.path.text, this.#names)) return pattern;
    if (pattern.path.literal) {
      const hint = nearestHint(pattern.path.text, this.#names.identities);
      this.#yaml.problem("policy-unknown-name", at, `unknown identity ${text}`, hint);
    } else {
      this.#yaml.warning("policy-unknown-name", at, `${text} matches no identity`);
    }
    return pattern;
  }

  #service(text: string, at: PathInFile): IdentityPattern | undefined {
    const service = this.#services.get(text);
    if (service !== undefined) return this.#identityPattern(service.identity, at);
    const pattern = this.#identityPattern(text, at);
    if (pattern === undefined || pattern.trustDomain !== this.#names.trustDomain.name) return pattern;
    if (this.#names.services.some((known) => matchesIdentity(pattern, this.#identityOf(known)))) return pattern;
    if (!pattern.path.literal) {
      this.#yaml.warning("policy-unknown-name", at, `${text} matches the identity of no service`);
    } else if (this.#names.identities.includes(pattern.path.text)) {
      this.#yaml.problem("policy-unknown-name", at, `${text} is the identity of no service`);
    } else {
      const known = this.#names.services.flatMap((known) => [known.name, known.identity]);
      this.#yaml.problem("policy-unknown-name", at, `unknown service ${text}`, nearestHint(text, known));
    }
    return pattern;
  }

  #identityOf(service: NamedService): IdentityParts {
    return identityParts(SpiffeId.of(this.#names.trustDomain, service.identity).toString());
  }

  #method(text: string, at: PathInFile): string | undefined {
    if (METHODS.includes(text)) return `http:${text}`;
    if (MCP_METHODS.includes(text)) return text;
    const hint = METHODS.includes(text.toUpperCase())
      ? `did you mean ${text.toUpperCase()}?`
      : nearestHint(text, [...METHODS, ...MCP_METHODS]);
    this.#yaml.problem("policy-method", at, `unknown method ${text}`, hint);
    return undefined;
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
