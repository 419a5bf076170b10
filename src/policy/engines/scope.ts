import { messageOf } from "../../coded-error.js";
import type { ScopeItem } from "../../config/config.js";
import { SpiffeId } from "../../spiffe/spiffe-id.js";
import type { AccessRequest } from "../access-request.js";
import { type Entities, isOwnType } from "../entities.js";
import { type IdentityPattern, identityParts, matchesIdentity, parseIdentityPattern } from "../pattern.js";
import { nearestHint, type PolicyNames } from "../policy-names.js";

/** What an engine is asked about. */
export type Scope = (request: AccessRequest) => boolean;

/** What our own rules are asked about; `items` as `agentid.yaml` has them, undefined for everything. */
export interface RulesScope {
  readonly isAsked: Scope;
  readonly items: readonly ScopeItem[] | undefined;
}

interface ReadScope {
  readonly isAsked: Scope;
  readonly errors: readonly string[];
  readonly warnings: readonly string[];
}

/** The scope that `items` name; everything where undefined. Identities are those of services, types those of other resources. */
export function readScope(items: readonly ScopeItem[] | undefined, names: PolicyNames, entities: Entities): ReadScope {
  if (items === undefined) return { isAsked: () => true, errors: [], warnings: [] };
  const errors: string[] = [];
  const warnings: string[] = [];
  const patterns: IdentityPattern[] = [];
  const types = new Set<string>();
  for (const item of items) {
    if ("type" in item) {
      types.add(item.type);
      const wrong = wrongType(item.type, entities);
      if (wrong !== undefined) warnings.push(wrong);
      continue;
    }
    const service = names.services.find(({ name }) => name === item.identity);
    try {
      const pattern = parseIdentityPattern(service?.identity ?? item.identity, names.trustDomain);
      patterns.push(pattern);
      if (!matchesSomeService(pattern, names)) {
        const known = names.services.flatMap(({ name, identity }) => [name, identity]);
        const hint = pattern.path.literal ? nearestHint(item.identity, known) : undefined;
        warnings.push(`scope ${item.identity} is that of no service${hint === undefined ? "" : ` (${hint})`}`);
      }
    } catch (thrown) {
      errors.push(`scope ${item.identity}: ${messageOf(thrown)}`);
    }
  }
  const isAsked: Scope = ({ resource }) => {
    if (types.has(resource.type)) return true;
    // A tool is part of its MCP server.
    if (resource.type === "mcp-tool" && types.has("mcp")) return true;
    if (patterns.length === 0 || !isOwnType(resource.type)) return false;
    const service = identityParts(resource.id);
    return patterns.some((pattern) => matchesIdentity(pattern, service));
  };
  return { isAsked, errors, warnings };
}

function matchesSomeService(pattern: IdentityPattern, names: PolicyNames): boolean {
  return names.services.some(({ identity }) =>
    matchesIdentity(pattern, identityParts(SpiffeId.of(names.trustDomain, identity).toString())),
  );
}

/** Enforcement points may ask about types of which nothing is known here: worth a look, no error. */
function wrongType(type: string, entities: Entities): string | undefined {
  if (isOwnType(type) || entities.types.includes(type)) return undefined;
  const hint = nearestHint(type, entities.types);
  return `scope type ${type}: entities.yaml has nothing of this type${hint === undefined ? "" : ` (${hint})`}`;
}
