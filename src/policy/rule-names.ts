import { messageOf } from "../coded-error.js";
import type { Labels } from "../config/config.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import type { Entities } from "./entities.js";
import {
  coversIdentity,
  type IdentityParts,
  type IdentityPattern,
  identityParts,
  matchesIdentity,
  matchesName,
  matchesSegments,
  type NamePattern,
  parseIdentityPattern,
  parseNamePattern,
  type SegmentPattern,
} from "./pattern.js";
import { isIdentityName, type NamedService, nearestHint, type PolicyNames } from "./policy-names.js";
import type { PathInFile, YamlFile } from "./yaml-file.js";

/** Types of resources that are services of `agentid.yaml`. */
export const SERVICE_TYPES: readonly string[] = ["http", "mcp", "mcp-tool", "tcp"];

type Written = string | readonly string[] | undefined;

/** Turns the names in a rule file into patterns, and says of each name that cannot exist which one is nearest. */
export class RuleNames {
  readonly #yaml: YamlFile;
  readonly #names: PolicyNames;
  readonly #entities: Entities;
  readonly #services: ReadonlyMap<string, NamedService>;
  readonly #identities: readonly IdentityParts[];
  /** Names of properties by type of entity. */
  readonly #properties = new Map<string, readonly string[]>();

  constructor(yaml: YamlFile, names: PolicyNames, entities: Entities) {
    this.#yaml = yaml;
    this.#names = names;
    this.#entities = entities;
    this.#services = new Map(names.services.map((service) => [service.name, service]));
    // An instance has any name: a pattern about instances is seen to match one.
    const known = [...names.identities, ...(names.withInstances ?? []).map((name) => `${name}/instance`)];
    this.#identities = known.map((name) => identityParts(SpiffeId.of(names.trustDomain, name).toString()));
  }

  each<Value>(
    given: Written,
    at: PathInFile,
    read: (text: string, at: PathInFile) => Value | undefined,
  ): readonly Value[] | undefined {
    if (given === undefined) return undefined;
    if (typeof given === "string") return [read(given, at)].filter((value) => value !== undefined);
    return given.map((text, index) => read(text, [...at, index])).filter((value) => value !== undefined);
  }

  pattern<Value extends NamePattern | SegmentPattern | IdentityPattern>(
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

  /** Whoever calls, or one of the actors. */
  caller(text: string, at: PathInFile): IdentityPattern | undefined {
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

  /** `instance: blue-*` of `id: agents/billing` is `agents/billing/blue-*`. */
  instances(ids: Written, given: Written, at: PathInFile): readonly IdentityPattern[] | undefined {
    const entries = ids === undefined ? [] : typeof ids === "string" ? [ids] : ids;
    const known = this.#names.withInstances ?? [];
    const wrong = entries.find((name) => !known.includes(name));
    if (entries.length === 0 || wrong !== undefined) {
      const message = wrong === undefined ? "instance needs the id of its identity" : `${wrong} has no instances`;
      this.#yaml.problem(
        "policy-rule",
        at,
        message,
        known.length === 0 ? undefined : `with instances: ${known.join(", ")}`,
      );
      return undefined;
    }
    return this.each(given, at, (text, where) => {
      if (!text.includes("/")) return text;
      this.#yaml.problem("policy-pattern", where, `${JSON.stringify(text)} is no name of an instance`);
      return undefined;
    })?.flatMap((text) => entries.flatMap((name) => this.#identityPattern(`${name}/${text}`, at) ?? []));
  }

  /** Those of `ids` (all identities, where it is undefined) that have the labels, with their instances. */
  labelledIdentities(
    ids: readonly IdentityPattern[] | undefined,
    wanted: Readonly<Record<string, string | readonly string[]>>,
    at: PathInFile,
  ): readonly IdentityPattern[] {
    const { labels = new Map<string, Labels>(), withInstances = [] } = this.#names;
    const names = this.#labelled([...labels], wanted, at).flatMap((name) =>
      withInstances.includes(name) ? [name, `${name}/*`] : [name],
    );
    const found = names.flatMap((name) => this.#identityPattern(name, at) ?? []);
    return this.#within(found, ids, "identity", at);
  }

  /** Those of `ids` (all services, where it is undefined) that have the labels. */
  labelledServices(
    ids: readonly IdentityPattern[] | undefined,
    wanted: Readonly<Record<string, string | readonly string[]>>,
    at: PathInFile,
  ): readonly IdentityPattern[] {
    const declared = this.#names.services.map(({ identity, labels = {} }) => [identity, labels] as const);
    const found = this.#labelled(declared, wanted, at).flatMap((name) => this.#identityPattern(name, at) ?? []);
    return this.#within(found, ids, "service", at);
  }

  /** A label that a condition reads must be one that somebody has. `offset` is that of the condition in its file. */
  checkLabel(label: string, of: "caller" | "resource", at: PathInFile, offset: number): void {
    const declared =
      of === "caller"
        ? [...(this.#names.labels?.values() ?? [])]
        : this.#names.services.map(({ labels = {} }) => labels);
    const keys = [...new Set(declared.flatMap((labels) => Object.keys(labels)))].sort();
    if (keys.includes(label)) return;
    const whose = of === "caller" ? "no identity" : "no service";
    const hint = nearestHint(label, keys) ?? "labels are declared in agentid.yaml";
    this.#yaml.problem("policy-unknown-name", at, `when: ${whose} has the label ${label}`, hint, offset);
  }

  #labelled(
    declared: readonly (readonly [string, Labels])[],
    wanted: Readonly<Record<string, string | readonly string[]>>,
    at: PathInFile,
  ): readonly string[] {
    const keys = [...new Set(declared.flatMap(([, labels]) => Object.keys(labels)))].sort();
    const terms = Object.entries(wanted).map(([key, given]) => {
      const known = [...new Set(declared.flatMap(([, labels]) => own(labels, key) ?? []))].sort();
      if (known.length === 0) {
        const hint = nearestHint(key, keys) ?? "labels are declared in agentid.yaml";
        this.#yaml.problem("policy-unknown-name", [...at, key], `nobody has the label ${key}`, hint);
      }
      const values = typeof given === "string" ? [given] : given;
      for (const value of values) {
        if (known.length === 0 || known.includes(value)) continue;
        this.#yaml.problem(
          "policy-unknown-name",
          [...at, key],
          `nobody has the label ${key}: ${value}`,
          nearestHint(value, known),
        );
      }
      return { key, values };
    });
    return declared
      .filter(([, labels]) => terms.every(({ key, values }) => values.includes(own(labels, key) ?? "")))
      .map(([name]) => name);
  }

  #within(
    found: readonly IdentityPattern[],
    ids: readonly IdentityPattern[] | undefined,
    what: string,
    at: PathInFile,
  ): readonly IdentityPattern[] {
    const common = ids === undefined ? found : found.flatMap((each) => ids.flatMap((id) => this.#common(each, id, at)));
    const both = [...new Map(common.map((each) => [each.text, each])).values()];
    if (both.length === 0) this.#yaml.warning("policy-unknown-name", at, `no ${what} has all of these labels`);
    return both;
  }

  /** What an identity with a label, or all of its instances, and an `id` have in common: either may be the narrower one. */
  #common(labelled: IdentityPattern, id: IdentityPattern, at: PathInFile): readonly IdentityPattern[] {
    if (coversIdentity(id, labelled)) return [labelled];
    if (coversIdentity(labelled, id)) return [id];
    if (labelled.path.literal || id.trustDomain !== labelled.trustDomain) return [];
    // All instances of one entry, and a pattern that names some of them: `agents/planner/*` and `agents/*/blue`.
    const entry = labelled.path.segments.slice(0, -1).map(({ text }) => text);
    const instance = id.path.segments.at(-1)?.text ?? "";
    if (!matchesSegments({ ...id.path, segments: id.path.segments.slice(0, -1) }, entry)) return [];
    return [this.#identityPattern([...entry, instance].join("/"), at) ?? []].flat();
  }

  service(text: string, at: PathInFile): IdentityPattern | undefined {
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

  servicesAmong(patterns: readonly IdentityPattern[] | undefined): readonly NamedService[] {
    return this.#names.services.filter((service) =>
      patterns?.some((pattern) => matchesIdentity(pattern, this.#identityOf(service))),
    );
  }

  /** The targets among what `patterns` name that are reached by CONNECT; undefined names everything. */
  targetsByHost(patterns: readonly IdentityPattern[] | undefined): readonly NamedService[] {
    const services = patterns === undefined ? this.#names.services : this.servicesAmong(patterns);
    return services.filter(({ byHost }) => byHost === true);
  }

  /** A type of `entities.yaml`. */
  entityType(type: string, others: readonly string[], at: PathInFile): void {
    if (this.#entities.types.includes(type)) return;
    const hint = nearestHint(type, [...this.#entities.types, ...others]);
    this.#yaml.problem("policy-unknown-name", at, `unknown type ${type}: no entity in entities.yaml has it`, hint);
  }

  /** An entity that is not in the file may come with a request: worth a look, no error. */
  entity(type: string, text: string, at: PathInFile): NamePattern | undefined {
    const pattern = this.pattern(text, at, parseNamePattern);
    if (pattern?.literal && this.#entities.get(type, text) !== undefined) return pattern;
    const known = this.#entities.ofType(type).map(({ id }) => id);
    if (pattern === undefined || known.length === 0 || known.some((id) => matchesName(pattern, id))) return pattern;
    const message = pattern.literal
      ? `no ${type} ${text} in entities.yaml`
      : `${text} matches no ${type} in entities.yaml`;
    this.#yaml.warning("policy-unknown-name", at, message, pattern.literal ? nearestHint(text, known) : undefined);
    return pattern;
  }

  /** A property that no entity of the type has may come with a request too. */
  property(type: string, key: string, at: PathInFile): void {
    const known = this.#propertiesOf(type);
    if (known.length === 0 || known.includes(key)) return;
    this.#yaml.warning("policy-unknown-name", at, `no ${type} in entities.yaml has ${key}`, nearestHint(key, known));
  }

  #propertiesOf(type: string): readonly string[] {
    let known = this.#properties.get(type);
    if (known === undefined) {
      const members = this.#entities.ofType(type);
      known = [...new Set(members.flatMap(({ properties }) => Object.keys(properties)))].sort();
      this.#properties.set(type, known);
    }
    return known;
  }

  get hasEntities(): boolean {
    return this.#entities.types.length > 0;
  }

  #identityPattern(text: string, at: PathInFile): IdentityPattern | undefined {
    return this.pattern(text, at, (given) => parseIdentityPattern(given, this.#names.trustDomain));
  }

  #identityOf(service: NamedService): IdentityParts {
    return identityParts(SpiffeId.of(this.#names.trustDomain, service.identity).toString());
  }
}

function own(labels: Labels, key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined;
}
