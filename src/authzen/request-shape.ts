import type { BodyBytes } from "../http/body-bytes.js";
import { Refusal } from "../http/refusal.js";
import { type Json, type JsonObject, parseStrictJson, parseStrictJsonInTurns } from "../http/strict-json.js";
import type { Pause } from "../platform/turns.js";
import type { AccessRequest, Properties } from "../policy/access-request.js";

/** The four members of a request as AuthZEN Authorization API 1.0 §5 has them, each checked when it is asked for. */
export type Quadruple = Pick<AccessRequest, "subject" | "action" | "resource" | "context">;

/** "The top level of every body MUST be an object." Throws Refusal (400): `json-…`, `request-invalid`. */
export function parseBody(bytes: Buffer): JsonObject {
  if (bytes.length === 0) throw invalid("the body is empty");
  return objectOf(parseStrictJson(bytes), "the body");
}

/** The same without keeping the event loop. */
export async function parseBodyInTurns(body: BodyBytes, pause: Pause): Promise<JsonObject> {
  return objectOf(await parseStrictJsonInTurns(body, pause), "the body");
}

/** Unknown members are ignored (§5, forward compatibility). Throws Refusal `request-invalid` (400) naming the member. */
export function questionOf(body: JsonObject): Quadruple {
  const subject = subjectOf(body);
  const action = actionOf(body);
  const resource = resourceOf(body);
  const context = contextOf(body);
  return context === undefined ? { subject, action, resource } : { subject, action, resource, context };
}

export function subjectOf(body: JsonObject): AccessRequest["subject"] {
  return entityOf(body, "subject");
}

export function resourceOf(body: JsonObject): AccessRequest["resource"] {
  return entityOf(body, "resource");
}

export function actionOf(body: JsonObject): AccessRequest["action"] {
  const action = objectOf(body.action, "action");
  return withProperties({ name: textOf(action.name, "action.name") }, action, "action");
}

export function contextOf(body: JsonObject): Properties | undefined {
  return body.context === undefined ? undefined : objectOf(body.context, "context");
}

/** What a search looks for: its `id` "SHOULD be omitted", and is ignored where it is given. */
export interface Wanted {
  readonly type: string;
  readonly properties?: Properties;
}

export function wantedOf(body: JsonObject, member: "subject" | "resource"): Wanted {
  const wanted = objectOf(body[member], member);
  return withProperties({ type: textOf(wanted.type, `${member}.type`) }, wanted, member);
}

function entityOf(body: JsonObject, member: "subject" | "resource") {
  const entity = objectOf(body[member], member);
  const named = { type: textOf(entity.type, `${member}.type`), id: textOf(entity.id, `${member}.id`) };
  return withProperties(named, entity, member);
}

function withProperties<Named extends object>(
  named: Named,
  entity: JsonObject,
  member: string,
): Named & { readonly properties?: Properties } {
  if (entity.properties === undefined) return named;
  return { ...named, properties: objectOf(entity.properties, `${member}.properties`) };
}

function objectOf(value: Json | undefined, name: string): JsonObject {
  if (isObject(value)) return value;
  throw invalid(value === undefined ? `${name} is missing` : `${name} must be an object`);
}

/** A text that names something is matched and shown as a whole: nobody needs a longer one. */
const MAX_NAME_LENGTH = 256 * 1024;

function textOf(value: Json | undefined, name: string): string {
  if (typeof value === "string" && value.length > MAX_NAME_LENGTH) {
    throw invalid(`${name} may have at most ${MAX_NAME_LENGTH} characters`);
  }
  if (typeof value === "string" && value !== "") return value;
  throw invalid(value === undefined ? `${name} is missing` : `${name} must be a string that is not empty`);
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function invalid(message: string): Refusal {
  return new Refusal("request-invalid", 400, message);
}
