import { closest, distance } from "fastest-levenshtein";
import type { Config, Labels, Lock, ServiceProtocol } from "../config/config.js";
import type { PinnedTool } from "../config/tool-pin.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import type { IdentityParts } from "./pattern.js";

/** What a rule may name: the identities, services and egress targets of `agentid.yaml`. */
export interface PolicyNames {
  readonly trustDomain: TrustDomain;
  /** `agents/billing`. */
  readonly identities: readonly string[];
  /** Those of them that have instances: `agents/billing/X` is a name too. */
  readonly withInstances?: readonly string[];
  /** Egress targets among them: rules see no difference. */
  readonly services: readonly NamedService[];
  /** By name of the identity. */
  readonly labels?: ReadonlyMap<string, Labels>;
  /** Identities whose requests are let through where no rule allows them. */
  readonly shadowed?: readonly string[];
}

export interface NamedService {
  /** `payments`. */
  readonly name: string;
  /** Name of its identity, `mcp/payments`. */
  readonly identity: string;
  readonly protocol: "http" | "mcp" | "tcp";
  readonly labels?: Labels;
  /** An egress target that is reached by CONNECT. */
  readonly byHost?: true;
  /** Its tools, where `agentid.lock` pins them. */
  readonly tools?: Readonly<Record<string, PinnedTool>>;
}

export function policyNamesOf(config: Config, lock: Lock = { identities: {} }): PolicyNames {
  return {
    trustDomain: config.trustDomain,
    identities: config.identities.map((identity) => identity.name),
    withInstances: config.identities.filter(({ launch }) => launch?.instances === true).map(({ name }) => name),
    services: [
      ...config.services.map((service) => ({
        name: service.name,
        identity: service.id.name,
        protocol: ruledAs(service.protocol),
        ...(service.labels !== undefined && { labels: service.labels }),
        ...pinned(service.name, lock),
      })),
      ...config.egress.map(({ name, id, connect }) =>
        connect === true
          ? { name, identity: id.name, protocol: "tcp" as const, byHost: true as const }
          : { name, identity: id.name, protocol: "http" as const },
      ),
    ],
    labels: new Map(config.identities.flatMap(({ name, labels }) => (labels === undefined ? [] : [[name, labels]]))),
    shadowed: config.identities.filter(({ shadow }) => shadow === true).map(({ name }) => name),
  };
}

/** A call of gRPC is a POST in HTTP: rules speak of both alike. */
export function ruledAs(protocol: ServiceProtocol): Exclude<ServiceProtocol, "grpc"> {
  return protocol === "grpc" ? "http" : protocol;
}

/** The labels of whoever is seen in a request; an instance has those of its entry. */
export interface KnownLabels {
  ofIdentity(identity: IdentityParts | undefined): Labels;
  ofService(identity: IdentityParts | undefined): Labels;
}

const NO_LABELS: Labels = {};

export function knownLabels(names: PolicyNames): KnownLabels {
  const own = (identity: IdentityParts | undefined) => identity?.trustDomain === names.trustDomain.name;
  const services = new Map(names.services.map(({ identity, labels }) => [identity, labels]));
  return {
    ofIdentity(identity) {
      if (identity === undefined || !own(identity)) return NO_LABELS;
      return names.labels?.get(entryOf(identity.name, names)) ?? NO_LABELS;
    },
    ofService(identity) {
      if (identity === undefined || !own(identity)) return NO_LABELS;
      return services.get(identity.name) ?? NO_LABELS;
    },
  };
}

/** The name of the entry in `agentid.yaml` that an identity is from: its own, or that of which it is an instance. */
export function entryOf(name: string, { identities, withInstances = [] }: PolicyNames): string {
  if (withInstances.length === 0 || identities.includes(name)) return name;
  const above = name.slice(0, Math.max(0, name.lastIndexOf("/")));
  return withInstances.includes(above) ? above : name;
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
