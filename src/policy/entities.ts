import { z } from "zod";
import type { Properties } from "./access-request.js";
import { type PolicyProblem, YamlFile } from "./yaml-file.js";

export interface Entity {
  readonly type: string;
  readonly id: string;
  readonly properties: Properties;
}

/** The users, records and groups that policies and searches range over. */
export interface Entities {
  /** Every type that some entity has, in order. */
  readonly types: readonly string[];
  get(type: string, id: string): Entity | undefined;
  /** In the order of the file; empty for a type that there is not. */
  ofType(type: string): readonly Entity[];
}

/** Types that agentid itself gives meaning: their members are in `agentid.yaml`. */
const OWN_TYPES = ["spiffe", "none", "http", "mcp", "mcp-tool", "tcp"] as const;

export function isOwnType(type: string): boolean {
  return (OWN_TYPES as readonly string[]).includes(type);
}

const entity = z.strictObject({
  type: z
    .string()
    .regex(/^[A-Za-z][A-Za-z0-9._-]{0,63}$/, "must be letters, digits, dot, dash or underscore, at most 64")
    .describe("what it is: user, record, group"),
  id: z
    .string()
    .min(1)
    .max(1024)
    .regex(/^\P{C}*$/u, "must not hold control characters")
    .describe("its name among those of its type: alice"),
  properties: z.record(z.string(), z.unknown()).optional().describe("what is known of it: { department: finance }"),
});

/** `entities.yaml`: the one description from which types, messages and the editor's schema follow. */
export const entitiesFileSchema = z
  .strictObject({ entities: z.array(entity).nullable().describe("users, records, groups") })
  .meta({ title: "entities.yaml", description: "Users, records and groups that policies and searches range over." });

/** The entities in `text`, and what is wrong with them: a file with an error is not applied. */
export function readEntities(
  file: string,
  text: string,
): { readonly entities: Entities; readonly problems: readonly PolicyProblem[] } {
  const yaml = new YamlFile(file, text);
  if (text.trim() === "") return { entities: NO_ENTITIES, problems: [] };
  const written = yaml.parse(entitiesFileSchema)?.entities ?? [];
  const byType = new Map<string, Map<string, Entity>>();
  for (const [index, { type, id, properties }] of written.entries()) {
    const at = ["entities", index];
    if (isOwnType(type)) {
      yaml.problem(
        "policy-rule",
        [...at, "type"],
        `${type} is a type of agentid.yaml: identities and services are there`,
      );
    }
    const ofType = byType.get(type) ?? new Map<string, Entity>();
    if (ofType.has(id)) yaml.problem("policy-duplicate-name", [...at, "id"], `${type} ${id} is there already`);
    byType.set(type, ofType.set(id, { type, id, properties: properties ?? {} }));
  }
  return { entities: entitiesIn(byType), problems: yaml.problems };
}

function entitiesIn(byType: ReadonlyMap<string, ReadonlyMap<string, Entity>>): Entities {
  const lists = new Map([...byType].map(([type, members]) => [type, [...members.values()]]));
  return {
    types: [...byType.keys()].sort(),
    get: (type, id) => byType.get(type)?.get(id),
    ofType: (type) => lists.get(type) ?? [],
  };
}

export const NO_ENTITIES: Entities = entitiesIn(new Map());

/** What is laid over what: an enforcement point knows the moment, `entities.yaml` the rest. */
export function overlaid(entity: Entity | undefined, given: Properties | undefined): Properties {
  if (entity === undefined) return given ?? NOTHING;
  return given === undefined ? entity.properties : { ...entity.properties, ...given };
}

const NOTHING: Properties = {};
