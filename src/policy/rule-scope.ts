import { CONNECT } from "./access-request-of.js";
import { type IdentityPattern, matchesName, parseNamePattern, parsePathPattern, parseUriPattern } from "./pattern.js";
import type { NamedService } from "./policy-names.js";
import type { Rule } from "./rule.js";
import type { ResourceText, ScopeText, SubjectText } from "./rule-file-schema.js";
import { type RuleNames, SERVICE_TYPES } from "./rule-names.js";
import { actorsTerm, evidenceTerm, type PropertyOf, propertyTerm, type Scalar, type Term, userTerm } from "./term.js";
import type { PathInFile, YamlFile } from "./yaml-file.js";

/** Where in which file a rule is being read, and what may be named there. */
export interface Place {
  readonly yaml: YamlFile;
  readonly names: RuleNames;
  readonly effect: Rule["effect"];
  readonly rule: string;
  /** Of the scope: `rules`, 0, `allow`. */
  readonly path: PathInFile;
}

type Subject = Pick<Rule, "subjectType" | "subjectIds" | "from" | "terms">;
/** To what, its terms aside. */
export type ResourceScope = Pick<Rule, "resourceType" | "resourceIds" | "to" | "tools" | "paths" | "uris" | "prompts">;
type Resource = ResourceScope & Pick<Rule, "terms">;

/** Who: `from`, or `subject` in full. */
export function readSubject(scope: ScopeText, place: Place): Subject {
  const { names, path } = place;
  const { subject } = scope;
  if (subject === undefined) {
    if (scope.from === undefined) requireSubject(place);
    const from = names.each(scope.from, [...path, "from"], (text, at) => names.caller(text, at));
    return { subjectType: undefined, subjectIds: undefined, from, terms: [] };
  }
  const at = [...path, "subject"];
  const terms = subjectTerms(subject, place, at);
  const { type = OF_IDENTITIES.some((key) => subject[key] !== undefined) ? "spiffe" : undefined } = subject;
  if (type !== undefined && type !== "spiffe") {
    return { ...entitySubject(type, subject, place, at), terms };
  }
  const from = identitiesOf(subject, place, at);
  if (from === undefined) requireSubject(place);
  return { subjectType: from === undefined ? type : undefined, subjectIds: undefined, from, terms };
}

/** What only identities have. */
const OF_IDENTITIES = ["id", "instance", "evidence", "labels"] as const;

function entitySubject(type: string, subject: SubjectText, place: Place, at: PathInFile): Omit<Subject, "terms"> {
  const { yaml, names } = place;
  if (type === "none") yaml.problem("policy-rule", [...at, "type"], "whoever has no identity is always refused");
  else names.entityType(type, ["spiffe"], [...at, "type"]);
  for (const key of OF_IDENTITIES) {
    if (key === "id" || subject[key] === undefined) continue;
    yaml.problem("policy-rule", [...at, key], `${key} is of identities: a ${type} has none`);
  }
  const subjectIds = names.each(subject.id, [...at, "id"], (text, where) => names.entity(type, text, where));
  return { subjectType: type, subjectIds, from: undefined };
}

function identitiesOf(subject: SubjectText, { names }: Place, at: PathInFile): readonly IdentityPattern[] | undefined {
  const { id, instance, labels } = subject;
  const named =
    instance === undefined
      ? names.each(id, [...at, "id"], (text, where) => names.caller(text, where))
      : names.instances(id, instance, [...at, "instance"]);
  return labels === undefined ? named : names.labelledIdentities(named, labels, [...at, "labels"]);
}

function subjectTerms(subject: SubjectText, place: Place, at: PathInFile): readonly Term[] {
  const { names, effect } = place;
  const { type = "spiffe", evidence, user, actors, properties } = subject;
  const chain = names.each(actors, [...at, "actors"], (text, where) => names.caller(text, where));
  return [
    ...(evidence === undefined ? [] : [evidenceTerm(listOf(evidence))]),
    ...(user === undefined ? [] : userTerms(user, place, [...at, "user"])),
    ...(chain === undefined ? [] : [actorsTerm(effect === "allow" ? "every" : "some", chain)]),
    ...propertyTerms("subject", type, properties, place, [...at, "properties"]),
  ];
}

function userTerms(user: NonNullable<SubjectText["user"]>, place: Place, at: PathInFile): readonly Term[] {
  const { names } = place;
  const isFull = typeof user === "object" && !Array.isArray(user);
  const { id, properties } = isFull ? user : { id: user, properties: undefined };
  const ids = names.each(id, isFull ? [...at, "id"] : at, (text, where) => names.entity("user", text, where));
  return [
    ...(ids === undefined ? [] : [userTerm(ids)]),
    ...propertyTerms("user", "user", properties, place, [...at, "properties"]),
  ];
}

/** To what: `to`, `tools` and `path`, or `resource` in full. */
export function readResource(scope: ScopeText, place: Place): Resource {
  const { names, path } = place;
  const { resource } = scope;
  if (resource === undefined) {
    if (scope.to === undefined) requireResource(place);
    return {
      ...{ resourceType: undefined, resourceIds: undefined, uris: undefined, prompts: undefined, terms: [] },
      to: names.each(scope.to, [...path, "to"], (text, at) => names.service(text, at)),
      tools: names.each(scope.tools, [...path, "tools"], (text, at) => names.pattern(text, at, parseNamePattern)),
      paths: names.each(scope.path, [...path, "path"], (text, at) => names.pattern(text, at, parsePathPattern)),
    };
  }
  const at = [...path, "resource"];
  const { type } = resource;
  const terms = propertyTerms("resource", type ?? "", resource.properties, place, [...at, "properties"]);
  if (type !== undefined && !SERVICE_TYPES.includes(type))
    return { ...entityResource(type, resource, place, at), terms };
  const to = servicesOf(resource, place, at);
  if (to === undefined) requireResource(place);
  return {
    resourceType: type,
    resourceIds: undefined,
    to,
    tools: names.each(resource.tool, [...at, "tool"], (text, where) => names.pattern(text, where, parseNamePattern)),
    paths: names.each(resource.path, [...at, "path"], (text, where) => names.pattern(text, where, parsePathPattern)),
    uris: names.each(resource.resource, [...at, "resource"], (text, where) =>
      names.pattern(text, where, parseUriPattern),
    ),
    prompts: names.each(resource.prompt, [...at, "prompt"], (text, where) =>
      names.pattern(text, where, parseNamePattern),
    ),
    terms,
  };
}

const OF_SERVICES = ["service", "server", "path", "tool", "resource", "prompt", "labels"] as const;

function entityResource(type: string, resource: ResourceText, place: Place, at: PathInFile): ResourceScope {
  const { yaml, names } = place;
  names.entityType(type, SERVICE_TYPES, [...at, "type"]);
  for (const key of OF_SERVICES) {
    if (resource[key] === undefined) continue;
    yaml.problem("policy-rule", [...at, key], `${key} is of services: a ${type} has none`);
  }
  return {
    resourceType: type,
    resourceIds: names.each(resource.id, [...at, "id"], (text, where) => names.entity(type, text, where)),
    ...{ to: undefined, tools: undefined, paths: undefined, uris: undefined, prompts: undefined },
  };
}

function servicesOf(
  resource: ResourceText,
  { yaml, names }: Place,
  at: PathInFile,
): readonly IdentityPattern[] | undefined {
  const given = (["id", "service", "server"] as const).filter((key) => resource[key] !== undefined);
  const [key, another] = given;
  if (another !== undefined) {
    yaml.problem("policy-rule", [...at, another], `${key} and ${another} say the same: write one of them`);
  }
  if (key === "id" && resource.type === undefined) {
    yaml.problem(
      "policy-rule",
      [...at, "id"],
      "id needs the type of what it names",
      "service or server names a service",
    );
    return undefined;
  }
  const named =
    key === undefined
      ? undefined
      : names.each(resource[key], [...at, key], (text, where) => names.service(text, where));
  if (key === "server" && names.servicesAmong(named).some(({ protocol }) => protocol !== "mcp")) {
    yaml.problem("policy-rule", [...at, "server"], "this is no MCP server", "service: names one that speaks HTTP");
  }
  return resource.labels === undefined ? named : names.labelledServices(named, resource.labels, [...at, "labels"]);
}

export function propertyTerms(
  of: PropertyOf,
  type: string,
  properties: Readonly<Record<string, Scalar | readonly Scalar[]>> | undefined,
  { names }: Place,
  at: PathInFile,
): readonly Term[] {
  return Object.entries(properties ?? {}).map(([key, values]) => {
    if (of !== "action") names.property(type, key, [...at, key]);
    return propertyTerm(of, key, listOf(values));
  });
}

function listOf<Value extends Scalar>(given: Value | readonly Value[]): readonly Value[] {
  return Array.isArray(given) ? (given as readonly Value[]) : [given as Value];
}

// An allow that forgets who or what would be the widest of all rules; a deny that forgets it is only the strictest.
function requireSubject({ yaml, effect, rule, path }: Place): void {
  if (effect !== "allow") return;
  const hint = path.length > 0 ? 'every identity: from: "**"' : undefined;
  yaml.problem("policy-rule", path, `allow of ${rule} does not say from whom`, hint);
}

function requireResource({ yaml, effect, rule, path }: Place): void {
  if (effect !== "allow") return;
  yaml.problem("policy-rule", path, `allow of ${rule} does not say to which service`);
}

/** What a rule asks together and no request can have. */
export function checkProtocols(rule: Rule, scope: ScopeText, { yaml, names, path }: Place): void {
  const http = rule.paths !== undefined || rule.actions?.some(({ text }) => text.startsWith("http:")) === true;
  const mcpMethods =
    rule.actions?.some(
      ({ text }) => !text.startsWith("http:") && text !== "tools/call" && text !== CONNECT && !text.includes("*"),
    ) === true;
  const isService = rule.resourceType === undefined || SERVICE_TYPES.includes(rule.resourceType);
  if (!isService) return;
  const mcpParts = [rule.tools, rule.uris, rule.prompts].filter((part) => part !== undefined).length;
  if (rule.tools !== undefined && (http || mcpMethods)) {
    yaml.problem("policy-rule", path, `rule ${rule.name} never matches: tools together with method or path`);
  }
  if (mcpMethods && rule.paths !== undefined) {
    yaml.problem("policy-rule", path, `rule ${rule.name} never matches: a method of MCP together with a path`);
  }
  if (mcpParts > 1 || (mcpParts === 1 && rule.tools === undefined && http)) {
    yaml.problem(
      "policy-rule",
      path,
      `rule ${rule.name} never matches: a tool, a resource, a prompt, a path: one of them`,
    );
  }
  checkTcp(rule, scope, { yaml, names, path });
  warnOfTargetsByHost(rule, { yaml, names, path });
  const services = names.servicesAmong(rule.to);
  if ((scope.to === undefined && scope.resource === undefined) || services.length === 0) return;
  const key = scope.resource === undefined ? [...path, "tools"] : [...path, "resource"];
  if (mcpParts > 0 && services.every((service) => service.protocol === "http")) {
    yaml.problem("policy-rule", key, `${services[0]?.name} is an http service and has no tools`);
  }
  if (http && services.every((service) => service.protocol === "mcp")) {
    const where = scope.resource !== undefined ? "resource" : scope.path === undefined ? "method" : "path";
    yaml.problem("policy-rule", [...path, where], `${services[0]?.name} is an mcp service: use tools`);
  }
}

/** Of the bytes of a tcp service nothing is read: its one action is that somebody connects. */
function checkTcp(rule: Rule, scope: ScopeText, { yaml, names, path }: Pick<Place, "yaml" | "names" | "path">): void {
  const services = names.servicesAmong(rule.to);
  const [service] = services;
  const asked = rule.condition?.references.find(([root = ""]) => root === "request" || root === "args");
  if (asked !== undefined && services.some(({ byHost }) => byHost === true) && services.every(isTcp)) {
    const message = `CONNECT can only decide by host: ${service?.name} has no ${asked.join(".")}`;
    yaml.problem("policy-rule", path, message, "a target without `connect` is decided request by request");
    return;
  }
  const connects = rule.actions?.some(({ text }) => text === CONNECT) === true;
  const onlyConnects = connects && rule.actions?.every(({ text }) => text === CONNECT) === true;
  const inside = [rule.tools, rule.paths, rule.uris, rule.prompts].some((part) => part !== undefined);
  if (onlyConnects && inside) {
    yaml.problem("policy-rule", path, `rule ${rule.name} never matches: connect together with a tool or a path`);
    return;
  }
  if (service === undefined) return;
  if (services.every(isTcp)) {
    const other = rule.resourceType !== undefined && rule.resourceType !== "tcp";
    const speaksOfConnect = rule.actions === undefined || rule.actions.some((name) => matchesName(name, CONNECT));
    if (speaksOfConnect && !inside && !other) return;
    const key = TCP_HAS_NOT.find((each) => scope[each] !== undefined);
    const [byHost] = services.filter((one) => one.byHost === true);
    const what =
      byHost !== undefined
        ? "reached by CONNECT, which can only decide by host"
        : other
          ? `no ${rule.resourceType} service`
          : `a tcp service and has no ${key === "tools" ? "tools" : "methods, paths or tools"}`;
    const hint = "its one action is connect: write action: connect, or leave it out";
    yaml.problem("policy-rule", [...path, ...(key === undefined ? [] : [key])], `${service.name} is ${what}`, hint);
    return;
  }
  const noTcp = services.every(({ protocol }) => protocol !== "tcp");
  if (noTcp && (onlyConnects || rule.resourceType === "tcp")) {
    const key = onlyConnects ? "action" : "resource";
    const message = `${service.name} is an ${service.protocol} service, and connect is the action of tcp services`;
    yaml.problem("policy-rule", [...path, key], message, service.protocol === "mcp" ? "use tools" : "use method");
  }
}

/** A rule about targets of both kinds that asks for more than a host says less of those reached by CONNECT than it seems to. */
function warnOfTargetsByHost(rule: Rule, { yaml, names, path }: Pick<Place, "yaml" | "names" | "path">): void {
  if (rule.to !== undefined && names.servicesAmong(rule.to).every(isTcp)) return;
  const targets = names.targetsByHost(rule.to).map(({ name }) => name);
  if (targets.length === 0) return;
  const inside = [rule.tools, rule.paths, rule.uris, rule.prompts].some((part) => part !== undefined);
  const elsewhere = rule.actions?.every((name) => !matchesName(name, CONNECT)) === true;
  const otherType = rule.resourceType !== undefined && rule.resourceType !== "tcp";
  const asked = rule.condition?.references.find(([root = ""]) => root === "request" || root === "args");
  const which = `${targets.join(", ")}, reached by CONNECT, which can only decide by host`;
  const hint = "a rule of its own with action: connect";
  if (inside || elsewhere || otherType) {
    yaml.warning("policy-by-host", path, `rule ${rule.name} says nothing about ${which}`, hint);
  } else if (asked !== undefined) {
    const message = `rule ${rule.name} asks for ${asked.join(".")}, and there is none of ${which}`;
    yaml.warning("policy-by-host", path, message, hint);
  }
}

function isTcp({ protocol }: NamedService): boolean {
  return protocol === "tcp";
}

const TCP_HAS_NOT = ["tools", "path", "method", "action", "resource"] as const;
