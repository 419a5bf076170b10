import type { IdentityPattern, NamePattern, SegmentPattern } from "./pattern.js";
import type { Rule, RuledRequest } from "./rule.js";

/** A rule with its place in the order of names: where several speak of one request, the first by name is the one that a decision names. */
export interface RankedRule {
  readonly rule: Rule;
  readonly rank: number;
}

/** Rules by the segments with which their paths begin, as far as those are literal. */
interface PathNode {
  readonly rules: RankedRule[];
  children: Map<string, PathNode> | undefined;
}

type ByAction = Map<string, PathNode>;
type BySubject = Map<string, ByAction>;

/**
 * Finds the rules that may speak of a request without looking at the others: by resource, then subject, then action, then path. What a rule writes
 * literally is a key of a hash map; what it leaves out or writes as a pattern is under the empty key of that level, and what names a whole type
 * of entities under the key of the type. So a request looks into a number of buckets that depends on its path alone, however many rules there are.
 */
export class RuleIndex {
  readonly #resources = new Map<string, BySubject>();

  constructor(rules: readonly Rule[]) {
    rules.forEach((rule, rank) => {
      this.#add({ rule, rank });
    });
  }

  /** Calls `visit` for every rule that may speak of this subject, resource and action. */
  forRequest(request: RuledRequest, visit: (ranked: RankedRule) => void): void {
    const { service, resourceType, resourceId } = request;
    if (service !== undefined) {
      this.#visitSubjects(this.#resources.get(service.id), request, visit);
    } else {
      this.#visitSubjects(this.#resources.get(entityKey(resourceType, resourceId)), request, visit);
      this.#visitSubjects(this.#resources.get(typeKey(resourceType)), request, visit);
    }
    this.#visitSubjects(this.#resources.get(ANY), request, visit);
  }

  /** Calls `visit` for every rule that may speak of this caller at this service, whatever the action; some more than once. */
  between(caller: string, service: string, visit: (ranked: RankedRule) => void): void {
    for (const subjects of [this.#resources.get(service), this.#resources.get(ANY)]) {
      for (const actions of [subjects?.get(caller), subjects?.get(ANY)]) {
        for (const paths of actions?.values() ?? []) visitAll(paths, visit);
      }
    }
  }

  #visitSubjects(subjects: BySubject | undefined, request: RuledRequest, visit: (ranked: RankedRule) => void): void {
    if (subjects === undefined) return;
    const { caller, subjectType, subjectId } = request;
    if (caller !== undefined) {
      visitActions(subjects.get(caller.id), request, visit);
    } else {
      visitActions(subjects.get(entityKey(subjectType, subjectId)), request, visit);
      visitActions(subjects.get(typeKey(subjectType)), request, visit);
    }
    visitActions(subjects.get(ANY), request, visit);
  }

  #add(ranked: RankedRule): void {
    const { rule } = ranked;
    let resources = keysOf(rule.to, rule.resourceType, rule.resourceIds);
    let subjects = keysOf(rule.from, rule.subjectType, rule.subjectIds);
    let actions = literalActions(rule);
    // A list times a list times a list could fill memory; such a rule is cheaper under fewer keys.
    if (resources.length * subjects.length * actions.length > MAX_KEYS) actions = [ANY];
    if (resources.length * subjects.length > MAX_KEYS) subjects = [ANY];
    if (resources.length > MAX_KEYS) resources = [ANY];
    for (const resource of resources) {
      const bySubject = getOrAdd(this.#resources, resource, () => new Map<string, ByAction>());
      for (const subject of subjects) {
        const byAction = getOrAdd(bySubject, subject, () => new Map<string, PathNode>());
        for (const action of actions) addByPath(getOrAdd(byAction, action, newNode), ranked);
      }
    }
  }
}

const ANY = "";
const MAX_KEYS = 1024;

function visitActions(
  actions: ByAction | undefined,
  { action, tool, pathSegments }: RuledRequest,
  visit: (ranked: RankedRule) => void,
): void {
  if (actions === undefined) return;
  visitPath(actions.get(tool === undefined ? action : toolKey(tool)), pathSegments, visit);
  visitPath(actions.get(ANY), pathSegments, visit);
}

function visitPath(root: PathNode | undefined, segments: readonly string[], visit: (ranked: RankedRule) => void): void {
  let node = root;
  node?.rules.forEach(visit);
  for (let depth = 0; node?.children !== undefined && depth < segments.length; depth += 1) {
    node = node.children.get(segments[depth] ?? "");
    node?.rules.forEach(visit);
  }
}

function visitAll({ rules, children }: PathNode, visit: (ranked: RankedRule) => void): void {
  rules.forEach(visit);
  for (const child of children?.values() ?? []) visitAll(child, visit);
}

function newNode(): PathNode {
  return { rules: [], children: undefined };
}

/** Under the beginnings of its paths; none of them is below another one, so that no request comes upon a rule twice. */
function addByPath(root: PathNode, ranked: RankedRule): void {
  const beginnings = (ranked.rule.paths ?? [{ segments: [] }]).map(literalBeginning);
  beginnings.sort((one, other) => one.length - other.length);
  const taken: (readonly string[])[] = [];
  for (const beginning of beginnings) {
    if (taken.some((above) => above.every((segment, depth) => segment === beginning[depth]))) continue;
    taken.push(beginning);
    let node = root;
    for (const segment of beginning) {
      node.children ??= new Map();
      node = getOrAdd(node.children, segment, newNode);
    }
    node.rules.push(ranked);
  }
}

function literalBeginning({ segments }: Pick<SegmentPattern, "segments">): readonly string[] {
  const end = segments.findIndex(({ literal }) => !literal);
  return segments.slice(0, end === -1 ? undefined : end).map(({ text }) => text);
}

// A tool's name comes from outside: the prefix keeps it from being read as an action.
function toolKey(tool: string): string {
  return `tool:${tool}`;
}

// Neither a type nor a SPIFFE ID holds a NUL, so that no key of one sort is read as one of another.
function entityKey(type: string, id: string): string {
  return `${type}\0${id}`;
}

function typeKey(type: string): string {
  return `${type}\0`;
}

function keysOf(
  identities: readonly IdentityPattern[] | undefined,
  type: string | undefined,
  ids: readonly NamePattern[] | undefined,
): readonly string[] {
  if (identities !== undefined) {
    if (identities.some((pattern) => !pattern.path.literal)) return [ANY];
    return [...new Set(identities.map((pattern) => pattern.text))];
  }
  // Identities and services are found by their IDs, not by type.
  if (type === undefined || OF_AGENTID.has(type)) return [ANY];
  if (ids === undefined || ids.some((pattern) => !pattern.literal)) return [typeKey(type)];
  return [...new Set(ids.map(({ text }) => entityKey(type, text)))];
}

const OF_AGENTID: ReadonlySet<string> = new Set(["spiffe", "http", "mcp", "mcp-tool", "tcp"]);

function literalActions(rule: Rule): readonly string[] {
  if (rule.tools !== undefined) {
    return rule.tools.every((tool) => tool.literal)
      ? [...new Set(rule.tools.map((tool) => toolKey(tool.text)))]
      : [ANY];
  }
  if (rule.actions === undefined || rule.actions.some(({ literal }) => !literal)) return [ANY];
  const names = rule.actions.map(({ text }) => text);
  // A request for `tools/call` is looked up by its tool, so a rule about the method as such is no literal.
  return names.includes("tools/call") ? [ANY] : [...new Set(names)];
}

function getOrAdd<Key, Value>(map: Map<Key, Value>, key: Key, make: () => Value): Value {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
