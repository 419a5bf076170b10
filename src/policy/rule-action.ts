import { METHODS } from "../platform/node-http.js";
import { CONNECT } from "./access-request-of.js";
import { MCP_METHODS } from "./mcp-methods.js";
import { matchesName, type NamePattern, parseNamePattern } from "./pattern.js";
import { nearestHint } from "./policy-names.js";
import type { Rule } from "./rule.js";
import type { ScopeText } from "./rule-file-schema.js";
import { SERVICE_TYPES } from "./rule-names.js";
import { type Place, propertyTerms, type ResourceScope } from "./rule-scope.js";
import type { PathInFile } from "./yaml-file.js";

const KNOWN_ACTIONS = [...METHODS.map((method) => `http:${method}`), ...MCP_METHODS, CONNECT];

/** Doing what: `method`, or `action` in full. */
export function readAction(scope: ScopeText, resource: ResourceScope, place: Place): Pick<Rule, "actions" | "terms"> {
  const { names, path } = place;
  const { action } = scope;
  if (action === undefined) {
    const actions = names.each(scope.method, [...path, "method"], (text, at) =>
      serviceAction(text, at, "method", place),
    );
    if (actions !== undefined && ofEntities(resource)) {
      place.yaml.problem("policy-rule", [...path, "method"], "method is of services", "use action");
    }
    return { actions, terms: [] };
  }
  const at = [...path, "action"];
  const isFull = typeof action === "object" && !Array.isArray(action);
  const { name, properties } = isFull ? action : { name: action, properties: undefined };
  return {
    actions: names.each(name, isFull ? [...at, "name"] : at, (text, where) =>
      ofEntities(resource) || (ofAnything(resource) && names.hasEntities && !isKnown(text))
        ? names.pattern(text, where, parseNamePattern)
        : serviceAction(text, where, "action", place),
    ),
    terms: propertyTerms("action", "", properties, place, [...at, "properties"]),
  };
}

function ofEntities({ resourceType }: ResourceScope): boolean {
  return resourceType !== undefined && !SERVICE_TYPES.includes(resourceType);
}

function ofAnything({ resourceType, to, tools, paths, uris, prompts }: ResourceScope): boolean {
  return [resourceType, to, tools, paths, uris, prompts].every((each) => each === undefined);
}

function isKnown(text: string): boolean {
  return METHODS.includes(text) || KNOWN_ACTIONS.includes(text);
}

function serviceAction(text: string, at: PathInFile, what: string, { yaml, names }: Place): NamePattern | undefined {
  if (METHODS.includes(text)) return parseNamePattern(`http:${text}`);
  if (text === CONNECT && what === "method") {
    yaml.problem("policy-method", at, "connect is the action of a tcp service, and no method", "write action: connect");
    return undefined;
  }
  if (KNOWN_ACTIONS.includes(text)) return parseNamePattern(text);
  if (text.includes("*")) {
    const pattern = names.pattern(text, at, parseNamePattern);
    if (pattern === undefined || KNOWN_ACTIONS.some((name) => matchesName(pattern, name))) return pattern;
  }
  const hint = METHODS.includes(text.toUpperCase())
    ? `did you mean ${text.toUpperCase()}?`
    : nearestHint(text, [...METHODS, ...MCP_METHODS, ...(what === "action" ? [CONNECT] : [])]);
  yaml.problem("policy-method", at, `unknown ${what} ${text}`, hint);
  return undefined;
}
