import type { IdentityPattern } from "./pattern.js";
import type { Rule, RuledRequest } from "./rule.js";

/** A rule with its place in the order of names: where several speak of one request, the first by name is the one that a decision names. */
export interface RankedRule {
  readonly rule: Rule;
  readonly rank: number;
}

/**
 * Finds the rules that may speak of a request without looking at the others: by service, then caller, then action. What a rule writes
 * literally is a key of a hash map; what it leaves out or writes as a pattern is under the empty key of that level, so a request looks into
 * at most eight buckets however many rules there are.
 */
export class RuleIndex {
  readonly #services = new Map<string, Map<string, Map<string, RankedRule[]>>>();

  constructor(rules: readonly Rule[]) {
    rules.forEach((rule, rank) => {
      this.#add({ rule, rank });
    });
  }

  /** Calls `visit` for every rule that may speak of this caller, service and action. */
  forRequest(request: RuledRequest, visit: (ranked: RankedRule) => void): void {
    this.#visit(request.service.id, request.caller.id, actionKey(request), visit);
  }

  /** Calls `visit` for every rule that may speak of this caller at this service, whatever the action; some more than once. */
  between(caller: string, service: string, visit: (ranked: RankedRule) => void): void {
    for (const callers of [this.#services.get(service), this.#services.get(ANY)]) {
      for (const actions of [callers?.get(caller), callers?.get(ANY)]) {
        for (const bucket of actions?.values() ?? []) bucket.forEach(visit);
      }
    }
  }

  #visit(service: string, caller: string, action: string, visit: (ranked: RankedRule) => void): void {
    for (let s = 0; s < 2; s += 1) {
      const callers = this.#services.get(s === 0 ? service : ANY);
      if (callers === undefined) continue;
      for (let c = 0; c < 2; c += 1) {
        const actions = callers.get(c === 0 ? caller : ANY);
        if (actions === undefined) continue;
        actions.get(action)?.forEach(visit);
        actions.get(ANY)?.forEach(visit);
      }
    }
  }

  #add(ranked: RankedRule): void {
    const { rule } = ranked;
    let services = literalIds(rule.to);
    let callers = literalIds(rule.from);
    let actions = literalActions(rule);
    // A list times a list times a list could fill memory; such a rule is cheaper under fewer keys.
    if (services.length * callers.length * actions.length > MAX_KEYS) actions = [ANY];
    if (services.length * callers.length > MAX_KEYS) callers = [ANY];
    if (services.length > MAX_KEYS) services = [ANY];
    for (const service of services) {
      const byCaller = getOrAdd(this.#services, service, () => new Map<string, Map<string, RankedRule[]>>());
      for (const caller of callers) {
        const byAction = getOrAdd(byCaller, caller, () => new Map<string, RankedRule[]>());
        for (const action of actions) getOrAdd(byAction, action, () => []).push(ranked);
      }
    }
  }
}

const ANY = "";
const MAX_KEYS = 1024;

function actionKey(request: RuledRequest): string {
  return request.tool === undefined ? request.action : toolKey(request.tool);
}

// A tool's name comes from outside: the prefix keeps it from being read as an action.
function toolKey(tool: string): string {
  return `tool:${tool}`;
}

function literalIds(patterns: readonly IdentityPattern[] | undefined): readonly string[] {
  if (patterns === undefined || patterns.some((pattern) => !pattern.path.literal)) return [ANY];
  return [...new Set(patterns.map((pattern) => pattern.text))];
}

function literalActions(rule: Rule): readonly string[] {
  if (rule.tools !== undefined) {
    return rule.tools.every((tool) => tool.literal)
      ? [...new Set(rule.tools.map((tool) => toolKey(tool.text)))]
      : [ANY];
  }
  // A request for `tools/call` is looked up by its tool, so a rule about the method as such is no literal.
  if (rule.methods === undefined || rule.methods.includes("tools/call")) return [ANY];
  return [...new Set(rule.methods)];
}

function getOrAdd<Key, Value>(map: Map<Key, Value>, key: Key, make: () => Value): Value {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
