import type { PinnedTool } from "../config/tool-pin.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import { pathText } from "./condition-syntax.js";
import { identityParts, matchesIdentity, matchesName } from "./pattern.js";
import { type NamedService, nearestHint } from "./policy-names.js";
import type { PolicySet } from "./policy-set.js";
import type { Rule } from "./rule.js";

interface Finding {
  readonly message: string;
  readonly hint: string | undefined;
}

interface AgainstPins {
  /** Tools that a service whose tools are pinned does not have. */
  readonly unpinned: readonly Finding[];
  /** Arguments that none of the tools has of which the rule speaks. */
  readonly unknownArguments: readonly (Finding & { readonly position: number })[];
}

const NOTHING: AgainstPins = { unpinned: [], unknownArguments: [] };

/** What the tools of a rule and the arguments in its condition are, by the pins of `services`, which are those that the rule is about. */
export function againstPins(rule: Rule, services: readonly NamedService[]): AgainstPins {
  const { tools: patterns, condition } = rule;
  if (patterns === undefined || services.length === 0) return NOTHING;
  const pinned = services.filter((service) => service.tools !== undefined);
  // A service that is not pinned may have any tool with any argument.
  if (pinned.length < services.length) return NOTHING;
  const known = pinned.flatMap(({ tools = {} }) => Object.entries(tools));
  const names = known.map(([name]) => name);
  const unpinned = patterns
    .filter((pattern) => !names.some((name) => matchesName(pattern, name)))
    .map(({ text }) => ({
      message: `tool ${text} of ${pinned.map(({ name }) => name).join(", ")} is not pinned in agentid.lock`,
      hint: nearestHint(text, names),
    }));
  if (unpinned.length > 0 || condition === undefined) return { unpinned, unknownArguments: [] };
  const tools = known.filter(([name]) => patterns.some((pattern) => matchesName(pattern, name)));
  const unknownArguments = condition.argumentsRead.flatMap(({ path, position }) => {
    const missing = tools.map(([name, tool]) => missingFrom(name, tool, path));
    const [first] = missing;
    return first === undefined || missing.includes(undefined) ? [] : [{ ...first, position }];
  });
  return { unpinned, unknownArguments };
}

/**
 * MCP services of which rules name tools while not one of them is pinned, by name: what the rules say of those tools and their arguments is held against
 * nothing.
 */
export function unpinnedServices({ rules, names }: Pick<PolicySet, "rules" | "names">): readonly string[] {
  const { trustDomain, services } = names;
  const unpinned = services.filter(({ protocol, tools }) => protocol === "mcp" && tools === undefined);
  const isNamed = ({ identity }: NamedService) => {
    const id = identityParts(SpiffeId.of(trustDomain, identity).toString());
    return rules.some(({ tools, to }) => tools !== undefined && to?.some((pattern) => matchesIdentity(pattern, id)));
  };
  return unpinned.filter(isNamed).map(({ name }) => name);
}

/** Undefined where the tool's schema has, or may have, what `path` leads to. */
function missingFrom(name: string, { inputSchema }: PinnedTool, path: readonly string[]): Finding | undefined {
  let schemas = alternatives(inputSchema, inputSchema);
  for (const [depth, member] of path.entries()) {
    const found = schemas.map((schema) => membersOf(schema, member));
    if (found.some((each) => each === "any")) return undefined;
    const next = found.flatMap((each) => (each === undefined || each === "any" ? [] : [each]));
    if (next.length === 0) {
      const known = schemas.flatMap((schema) => Object.keys(asRecord(schema.properties) ?? {}));
      return {
        message: `${name} has no argument ${pathText(["args", ...path.slice(0, depth + 1)]).slice("args.".length)}`,
        hint: nearestHint(member, known),
      };
    }
    schemas = next.flatMap((schema) => alternatives(schema, inputSchema));
  }
  return undefined;
}

type Schema = Readonly<Record<string, unknown>>;

/** The schema of a member; `any` where the schema does not say, undefined where it has none. */
function membersOf(schema: Schema, member: string): unknown | "any" | undefined {
  const properties = asRecord(schema.properties);
  if (properties !== undefined && Object.hasOwn(properties, member)) return properties[member];
  if (schema.items !== undefined || schema.prefixItems !== undefined) {
    return /^\d+$/.test(member) && schema.prefixItems === undefined ? schema.items : "any";
  }
  if (properties === undefined && schema.additionalProperties !== false) return "any";
  const { additionalProperties = false, patternProperties } = schema;
  return additionalProperties === false && patternProperties === undefined ? undefined : "any";
}

const UNKNOWN: Schema = {};
const MAX_ALTERNATIVES = 100;

/** What may hold of a value: the schema itself without its alternatives, and each of them, references resolved within the pinned schema. */
function alternatives(schema: unknown, root: unknown, depth = 0): readonly Schema[] {
  const record = asRecord(schema);
  if (record === undefined || depth > 16 || record.$dynamicRef !== undefined || record.if !== undefined)
    return [UNKNOWN];
  const { $ref, allOf, anyOf, oneOf, ...own } = record;
  const parts = [allOf, anyOf, oneOf].flatMap((list) => (Array.isArray(list) ? list : []));
  const target = typeof $ref === "string" ? [referenced($ref, root)] : [];
  const others = [...target, ...parts].flatMap((part) => alternatives(part, root, depth + 1));
  if (others.length > MAX_ALTERNATIVES) return [UNKNOWN];
  return others.length > 0 && own.properties === undefined ? others : [own, ...others];
}

function referenced(reference: string, root: unknown): unknown {
  if (!reference.startsWith("#")) return UNKNOWN;
  let at: unknown = root;
  for (const part of reference.slice(1).split("/").slice(1)) {
    const key = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
    const record = asRecord(at);
    if (record === undefined || !Object.hasOwn(record, key)) return UNKNOWN;
    at = record[key];
  }
  return at;
}

function asRecord(value: unknown): Schema | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Schema) : undefined;
}
