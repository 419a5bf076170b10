import type { CedarValueJson, EntityJson, TypeAndId } from "@cedar-policy/cedar-wasm/nodejs";
import { CodedError } from "../../coded-error.js";
import { SpiffeId } from "../../spiffe/spiffe-id.js";
import type { AccessRequest, Properties } from "../access-request.js";
import { type Entities, isOwnType } from "../entities.js";
import { identityParts } from "../pattern.js";
import type { PolicyNames } from "../policy-names.js";
import { isSessionMethod } from "../ruled-request.js";
import type { Keys } from "./cedar-policies.js";
import { type CedarSchema, uidText } from "./cedar-schema.js";
import { Budget, cedarRecord } from "./cedar-values.js";
import type { KnownUser } from "./known-request.js";

export interface CedarQuestion {
  readonly principal: TypeAndId;
  readonly action: TypeAndId;
  readonly resource: TypeAndId;
  readonly context: Record<string, CedarValueJson>;
  readonly entities: EntityJson[];
  /** How much it holds, as characters of a text. */
  readonly size: number;
  readonly keys: { readonly action: Keys; readonly principal: Keys; readonly resource: Keys };
}

export interface CedarMapping {
  readonly namespace: string | undefined;
  /** Types of AuthZEN → types of Cedar, where they are not the standard ones. */
  readonly types: Readonly<Record<string, string>>;
  readonly names: PolicyNames;
  readonly entities: Entities;
  readonly schema: CedarSchema | undefined;
  /** Of the engine's own file of entities, by `uidText`. */
  readonly more: ReadonlyMap<string, EntityJson>;
}

const STANDARD_TYPES: Readonly<Record<string, string>> = {
  spiffe: "Agent",
  http: "Service",
  mcp: "Service",
  "mcp-tool": "Tool",
  tcp: "Service",
  user: "User",
  group: "Group",
};

const SERVICES: ReadonlySet<string> = new Set(["http", "mcp", "tcp"]);
/** Cedar's own type, of what is done. */
const ACTION = "Action";

/** Names, values and entities of one request; more would make others wait. */
const MAX_UNITS = 64 * 1024;
const MAX_ENTITIES = 500;

/** How requests look to Cedar. Throws CodedError `cedar-types` where two types of subjects or resources would be one there. */
export function cedarMapping(mapping: CedarMapping): (request: AccessRequest, now: Date) => CedarQuestion {
  const { namespace, names, entities, schema, more } = mapping;
  const qualified = (type: string) => (namespace === undefined ? type : `${namespace}::${type}`);
  const typeNames = knownTypes(mapping);
  const taken = new Set([...typeNames.values(), ACTION]);
  const services = new Map(
    names.services.map(({ name, identity }) => [SpiffeId.of(names.trustDomain, identity).toString(), name]),
  );
  const actionType = qualified(ACTION);

  const typeOf = (type: string): string => {
    const known = typeNames.get(type);
    if (known !== undefined) return qualified(known);
    const made = pascalCase(type);
    // Whoever may name types must not be able to name somebody else's.
    if (made === undefined || taken.has(made))
      throw new CodedError("cedar-types", `${type} has no type of its own in Cedar`);
    return qualified(made);
  };

  return (request, now) => {
    const budget = new Budget(MAX_UNITS);
    const slice = new Slice(schema, more, entities, typeOf, budget);
    const { subject, action, resource } = request;
    const principal = { type: typeOf(subject.type), id: subject.id };
    slice.add(principal, subjectAttributes(subject), groupsOf(subject.properties));
    const service = { type: typeOf("mcp"), id: services.get(resource.id) ?? resource.id };
    const asked = resourceOf(resource, service, typeOf);
    if (resource.type === "mcp-tool") slice.add(service, { name: service.id }, []);
    slice.add(
      asked,
      isOwnType(resource.type)
        ? { ...resource.properties, name: asked.id }
        : { name: asked.id, ...resource.properties },
      resource.type === "mcp-tool" ? [service] : groupsOf(resource.properties),
    );
    const declared = schema?.contextOf(actionType, action.name);
    const { user, ...context } = { ...request.context };
    const known = user as KnownUser | undefined;
    const delegated = known && { type: typeOf("user"), id: known.id };
    if (known !== undefined && delegated !== undefined)
      slice.add(delegated, known.properties, groupsOf(known.properties));
    const ours: Record<string, CedarValueJson> = {
      now: { __extn: { fn: "datetime", arg: now.toISOString() } },
      ...(delegated !== undefined && { user: { __entity: delegated } }),
    };
    const uid = { type: actionType, id: action.name };
    const groups = schema?.groupsOf(actionType, action.name) ?? sessionGroup(actionType, request);
    if (schema === undefined && groups.length > 0) slice.addAction(uid, { type: actionType, id: SESSION });
    const asContext = only(declared, { ...cedarRecord(without(context, declared), "context", budget), ...ours });
    return {
      principal,
      action: uid,
      resource: asked,
      context: asContext,
      size: budget.used,
      entities: slice.entities,
      keys: {
        action: ["*", uidText(uid.type, uid.id), ...groups],
        principal: ["*", `is ${principal.type}`, ...slice.upFrom(principal)],
        resource: ["*", `is ${asked.type}`, ...slice.upFrom(asked)],
      },
    };
  };
}

/** The group of the methods that only open a session: `action in Action::"session"`. */
const SESSION = "session";

function sessionGroup(actionType: string, { action, resource }: AccessRequest): readonly string[] {
  return resource.type === "mcp" && isSessionMethod(action.name) ? [uidText(actionType, SESSION)] : [];
}

function resourceOf(
  { type, id, properties }: AccessRequest["resource"],
  service: TypeAndId,
  typeOf: (type: string) => string,
): TypeAndId {
  if (SERVICES.has(type)) return { type: typeOf(type), id: service.id };
  if (type !== "mcp-tool") return { type: typeOf(type), id };
  const tool: unknown = properties?.tool;
  if (typeof tool !== "string" || tool === "") throw new CodedError("request-invalid", "tools/call names no tool");
  return { type: typeOf(type), id: `${service.id}/${tool}` };
}

function subjectAttributes({ type, id, properties }: AccessRequest["subject"]): Properties {
  if (type !== "spiffe") return { ...properties };
  const { name, trustDomain } = identityParts(id);
  return { ...properties, name, trustDomain };
}

/** `groups: [finance]` of a user are `Group::"finance"` above them. */
function groupsOf(properties: Properties | undefined): readonly string[] {
  const groups = properties?.groups;
  if (groups === undefined) return [];
  if (!Array.isArray(groups) || groups.some((group) => typeof group !== "string")) {
    throw new CodedError("cedar-value", "groups are no list of names");
  }
  return groups as readonly string[];
}

function knownTypes({ types, entities }: CedarMapping): ReadonlyMap<string, string> {
  const known = new Map(Object.entries({ ...STANDARD_TYPES, ...types }));
  for (const type of entities.types) {
    const made = known.get(type) ?? pascalCase(type);
    if (made === undefined)
      throw new CodedError(
        "cedar-types",
        `the type ${type} of entities.yaml has no name in Cedar: give it one in types`,
      );
    known.set(type, made);
  }
  const owners = new Map<string, string>();
  for (const [type, name] of known) {
    if (name === ACTION)
      throw new CodedError("cedar-types", `${type} would be Action in Cedar: give it another name in types`);
    const other = owners.get(name);
    // Whatever they speak, services are one type: services by name.
    const both = [type, other].every((each) => each !== undefined && SERVICES.has(each));
    if (other !== undefined && !both)
      throw new CodedError(
        "cedar-types",
        `${type} and ${other} would both be ${name} in Cedar: give one another name in types`,
      );
    owners.set(name, type);
  }
  return known;
}

/** `finance-record` → `FinanceRecord`. */
function pascalCase(type: string): string | undefined {
  const name = type
    .split(/[._-]/)
    .map((part) => part.charAt(0).toUpperCase() + part.slice(1))
    .join("");
  return /^[A-Za-z]\w*$/.test(name) ? name : undefined;
}

function only<Value>(declared: ReadonlySet<string> | undefined, record: Record<string, Value>): Record<string, Value> {
  if (declared === undefined) return record;
  return Object.fromEntries(Object.entries(record).filter(([key]) => declared.has(key)));
}

/** What the schema does not declare is not looked at either: a fraction in an argument that no policy can see denies nothing. */
function without(record: Properties, declared: ReadonlySet<string> | undefined): Properties {
  return declared === undefined ? record : only(declared, { ...record });
}

/** Of all entities those that a request can reach. */
class Slice {
  readonly #found = new Map<string, EntityJson>();
  readonly #schema: CedarSchema | undefined;
  readonly #more: ReadonlyMap<string, EntityJson>;
  readonly #known: Entities;
  readonly #typeOf: (type: string) => string;
  readonly #budget: Budget;

  constructor(
    schema: CedarSchema | undefined,
    more: ReadonlyMap<string, EntityJson>,
    known: Entities,
    typeOf: (type: string) => string,
    budget: Budget,
  ) {
    this.#schema = schema;
    this.#more = more;
    this.#known = known;
    this.#typeOf = typeOf;
    this.#budget = budget;
  }

  get entities(): EntityJson[] {
    return [...this.#found.values()];
  }

  /** `above`: names of groups, or uids. */
  add(uid: TypeAndId, attributes: Properties, above: readonly (string | TypeAndId)[]): void {
    const key = uidText(uid.type, uid.id);
    // Principal, user and resource may be one entity: the first to say so knows most.
    if (this.#found.has(key)) return;
    if (this.#schema?.declares(uid.type) === false) return;
    if (this.#found.size >= MAX_ENTITIES) throw new CodedError("cedar-value", "the request reaches too many entities");
    const declared = this.#schema?.attributesOf(uid.type);
    const more = this.#more.get(key);
    const group = this.#typeOf("group");
    const parents = [
      ...above.map((each) => (typeof each === "string" ? { type: group, id: each } : each)),
      ...(more?.parents ?? []).map(plain),
    ].filter((parent) => this.#mayBeAbove(uid.type, parent.type));
    const own = cedarRecord(without(attributes, declared), uid.type, this.#budget);
    const attrs = { ...more?.attrs, ...own };
    this.#found.set(key, { uid, attrs, parents, ...(more?.tags !== undefined && { tags: more.tags }) });
    for (const parent of parents) this.#reach(parent);
    for (const reference of referencesIn(more?.attrs)) this.#reach(reference);
    for (const reference of referencesIn(more?.tags)) this.#reach(reference);
  }

  addAction(uid: TypeAndId, group: TypeAndId): void {
    this.#found.set(uidText(uid.type, uid.id), { uid, attrs: {}, parents: [group] });
  }

  /** The entity itself and everything above it. */
  upFrom(uid: TypeAndId): readonly string[] {
    const found = new Set([uidText(uid.type, uid.id)]);
    for (const key of found) {
      for (const parent of this.#found.get(key)?.parents ?? []) {
        const { type, id } = plain(parent);
        found.add(uidText(type, id));
      }
    }
    return [...found];
  }

  #mayBeAbove(type: string, parent: string): boolean {
    return this.#schema === undefined || this.#schema.parentTypesOf(type).has(parent);
  }

  #reach(uid: TypeAndId): void {
    const key = uidText(uid.type, uid.id);
    if (this.#found.has(key)) return;
    const group = uid.type === this.#typeOf("group") ? this.#known.get("group", uid.id) : undefined;
    if (group === undefined && !this.#more.has(key)) return;
    this.add(uid, group?.properties ?? {}, groupsOf(group?.properties));
  }
}

export function plain(uid: EntityJson["uid"]): TypeAndId {
  return "__entity" in uid ? uid.__entity : uid;
}

/** What looks like a reference to another entity: with a schema also without `__entity`. */
function* referencesIn(value: unknown): Generator<TypeAndId> {
  if (typeof value !== "object" || value === null) return;
  const { type, id } = value as Partial<TypeAndId>;
  if (typeof type === "string" && typeof id === "string") yield { type, id };
  for (const member of Object.values(value)) yield* referencesIn(member);
}
