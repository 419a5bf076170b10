import { closest, distance } from "fastest-levenshtein";
import type { Config, Lock } from "../config/config.js";
import type { PinnedTool } from "../config/tool-pin.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";

/** What a rule may name: the identities and services of `agentid.yaml`. */
export interface PolicyNames {
  readonly trustDomain: TrustDomain;
  /** `agents/billing`. */
  readonly identities: readonly string[];
  /** Those of them that have instances: `agents/billing/X` is a name too. */
  readonly withInstances?: readonly string[];
  readonly services: readonly NamedService[];
}

export interface NamedService {
  /** `payments`. */
  readonly name: string;
  /** Name of its identity, `mcp/payments`. */
  readonly identity: string;
  readonly protocol: "http" | "mcp";
  /** Its tools, where `agentid.lock` pins them. */
  readonly tools?: Readonly<Record<string, PinnedTool>>;
}

export function policyNamesOf(config: Config, lock: Lock = { identities: {} }): PolicyNames {
  return {
    trustDomain: config.trustDomain,
    identities: config.identities.map((identity) => identity.name),
    withInstances: config.identities.filter(({ launch }) => launch?.instances === true).map(({ name }) => name),
    services: config.services.map((service) => ({
      name: service.name,
      identity: service.id.name,
      protocol: service.protocol,
      ...pinned(service.name, lock),
    })),
  };
}

function pinned(service: string, { tools = {} }: Lock): Pick<NamedService, "tools"> {
  const pins = Object.hasOwn(tools, service) ? tools[service] : undefined;
  return pins === undefined ? {} : { tools: pins };
}

/** Whether `name` is that of an identity, or of what could be an instance of one. */
export function isIdentityName(name: string, { identities, withInstances = [] }: PolicyNames): boolean {
  return identities.includes(name) || withInstances.includes(name.slice(0, Math.max(0, name.lastIndexOf("/"))));
}

/** `did you mean X?` for the nearest of `known`, or what there is when nothing is near. */
export function nearestHint(wrong: string, known: readonly string[]): string | undefined {
  if (known.length === 0) return undefined;
  const nearest = closest(wrong, [...known]);
  if (distance(wrong, nearest) <= Math.max(2, Math.floor(wrong.length / 3))) return `did you mean ${nearest}?`;
  return known.length <= 12 ? `known: ${known.join(", ")}` : undefined;
}
