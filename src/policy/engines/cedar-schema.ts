import type { EntityType, SchemaJson, Type } from "@cedar-policy/cedar-wasm/nodejs";
import type { CedarLibrary } from "./cedar-library.js";
import { type EngineFile, EngineFileError, textOf } from "./engine-files.js";
import { placeIn } from "./text-places.js";

type Source = string | SchemaJson<string>;

/**
 * What a schema declares. Attributes that it does not declare are not handed to Cedar: no policy that is valid under it can see them, and Cedar
 * refuses requests that hold them. What is inside of a declared attribute is Cedar's to check.
 */
export interface CedarSchema {
  readonly source: Source;
  /** Undefined: the schema does not say, so all are handed on. */
  attributesOf(entityType: string): ReadonlySet<string> | undefined;
  contextOf(actionType: string, action: string): ReadonlySet<string> | undefined;
  declares(entityType: string): boolean;
  /** Types that entities of a type may have above them. */
  parentTypesOf(entityType: string): ReadonlySet<string>;
  /** The groups that an action is in, at any height, as `Action::"id"`. */
  groupsOf(actionType: string, action: string): readonly string[];
}

/** Reads a schema in Cedar's syntax, or in JSON where the file's name ends in `.json`. Throws EngineFileError with the place. */
export function readCedarSchema(cedar: CedarLibrary, file: EngineFile): CedarSchema {
  const text = textOf(file);
  const json = file.shown.endsWith(".json");
  const wrong = (message: string, offset: number | undefined, hint?: string): EngineFileError =>
    new EngineFileError("policy-cedar", `${file.shown}${placeIn(file.bytes, offset)}`, message, hint);
  let source: Source = text;
  if (json) {
    try {
      source = JSON.parse(text) as SchemaJson<string>;
    } catch (thrown) {
      throw wrong(String(thrown), undefined);
    }
  }
  const checked = cedar.checkParseSchema(source);
  if (checked.type === "failure") {
    const [error] = checked.errors;
    throw wrong(error?.message ?? "not a schema", error?.sourceLocations?.[0]?.start, error?.help ?? undefined);
  }
  // Names resolved, which only the textual form gives.
  const asText = json ? cedar.schemaToText(source) : undefined;
  if (asText?.type === "failure") throw wrong(asText.errors[0]?.message ?? "not a schema", undefined);
  const resolved = cedar.schemaToJsonWithResolvedTypes(asText?.text ?? text);
  if (resolved.type === "failure") throw wrong(resolved.errors[0]?.message ?? "not a schema", undefined);
  return schemaOf(source, resolved.json);
}

function schemaOf(source: Source, json: SchemaJson<string>): CedarSchema {
  const qualified = (namespace: string, name: string) => (namespace === "" ? name : `${namespace}::${name}`);
  const entityTypes = new Map<string, EntityType<string>>();
  const commonTypes = new Map<string, Type<string>>();
  const actions = new Map<string, { readonly groups: readonly string[]; readonly context: Type<string> | undefined }>();
  for (const [namespace, { entityTypes: types, commonTypes: common = {}, actions: acts }] of Object.entries(json)) {
    for (const [name, type] of Object.entries(types)) entityTypes.set(qualified(namespace, name), type);
    for (const [name, type] of Object.entries(common)) commonTypes.set(qualified(namespace, name), type);
    const actionType = qualified(namespace, "Action");
    for (const [id, { memberOf = [], appliesTo }] of Object.entries(acts)) {
      const groups = memberOf.map((group) => uidText(group.type ?? actionType, group.id));
      actions.set(uidText(actionType, id), { groups, context: appliesTo?.context });
    }
  }
  const attributesIn = (type: Type<string> | undefined, depth = 0): ReadonlySet<string> | undefined => {
    if (type === undefined) return new Set();
    if (type.type === "Record" && "attributes" in type) {
      return type.additionalAttributes === true ? undefined : new Set(Object.keys(type.attributes));
    }
    const named = commonTypes.get("name" in type && type.type === "EntityOrCommon" ? type.name : type.type);
    return named === undefined || depth > 16 ? undefined : attributesIn(named, depth + 1);
  };
  const groupsAbove = (uid: string, found: Set<string>): Set<string> => {
    for (const group of actions.get(uid)?.groups ?? []) {
      if (found.has(group)) continue;
      found.add(group);
      groupsAbove(group, found);
    }
    return found;
  };
  return {
    source,
    declares: (type) => entityTypes.has(type),
    attributesOf(type) {
      const declared = entityTypes.get(type);
      return declared === undefined || "enum" in declared ? new Set() : attributesIn(declared.shape);
    },
    parentTypesOf(type) {
      const declared = entityTypes.get(type);
      return new Set(declared === undefined || "enum" in declared ? [] : declared.memberOfTypes);
    },
    contextOf: (type, action) => attributesIn(actions.get(uidText(type, action))?.context),
    groupsOf: (type, action) => [...groupsAbove(uidText(type, action), new Set())],
  };
}

/** One text for one entity: types hold no quotes, so the first one ends the type. */
export function uidText(type: string, id: string): string {
  return `${type}::"${id}`;
}
