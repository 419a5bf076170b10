import { CodedError } from "../coded-error.js";
import type { AccessRequest, Properties } from "./access-request.js";
import { type Entities, overlaid } from "./entities.js";
import { type IdentityParts, identityParts } from "./pattern.js";

/** On whose behalf the caller acts. */
export interface DelegatedUser {
  readonly id: string;
  readonly properties: Properties;
}

export interface Actor {
  readonly id: string;
  /** Undefined for one that is no SPIFFE ID: no pattern names it. */
  readonly identity: IdentityParts | undefined;
}

const NOTHING: Properties = {};
const NOBODY: readonly Actor[] = [];
const MAX_ACTORS = 64;

/** What a request says besides who, what and where, with what `entities.yaml` knows; read when first asked for. */
export class RequestFacts {
  readonly now: number;
  readonly #request: AccessRequest;
  readonly #entities: Entities;
  #user: DelegatedUser | undefined;
  #userIsRead = false;
  #actors: readonly Actor[] | undefined;

  /** `now` in milliseconds since the epoch. */
  constructor(request: AccessRequest, entities: Entities, now: number) {
    this.#request = request;
    this.#entities = entities;
    this.now = now;
  }

  get evidence(): string | undefined {
    const evidence: unknown = this.#request.subject.properties?.evidence;
    return typeof evidence === "string" ? evidence : undefined;
  }

  get context(): Properties {
    return propertiesIn(this.#request.context);
  }

  /** Throws CodedError `request-invalid` for what names nobody: a user that cannot be read is not the same as none. */
  get user(): DelegatedUser | undefined {
    if (!this.#userIsRead) {
      this.#user = this.#readUser();
      this.#userIsRead = true;
    }
    return this.#user;
  }

  /** Outermost first. Throws CodedError `request-invalid`. */
  get actors(): readonly Actor[] {
    this.#actors ??= readActors(this.#request.context?.actors);
    return this.#actors;
  }

  propertiesOf(of: "subject" | "user" | "action" | "resource"): Properties {
    const { subject, action, resource } = this.#request;
    if (of === "user") return this.user?.properties ?? NOTHING;
    if (of === "action") return propertiesIn(action.properties);
    const { type, id, properties } = of === "subject" ? subject : resource;
    return overlaid(this.#entities.get(type, id), properties && propertiesIn(properties));
  }

  #readUser(): DelegatedUser | undefined {
    const given: unknown = this.#request.context?.user;
    if (given === undefined || given === null) return undefined;
    const { id, properties } = (typeof given === "string" ? { id: given } : given) as Record<string, unknown>;
    if (typeof id !== "string" || id === "") throw new CodedError("request-invalid", "context.user names nobody");
    return {
      id,
      properties: overlaid(
        this.#entities.get("user", id),
        properties === undefined ? undefined : propertiesIn(properties),
      ),
    };
  }
}

function readActors(given: unknown): readonly Actor[] {
  if (given === undefined || given === null) return NOBODY;
  if (!Array.isArray(given) || given.length > MAX_ACTORS || given.some((id) => typeof id !== "string" || id === "")) {
    throw new CodedError("request-invalid", "context.actors is no list of names");
  }
  return (given as readonly string[]).map((id) => ({ id, identity: partsOf(id) }));
}

function partsOf(id: string): IdentityParts | undefined {
  try {
    return identityParts(id);
  } catch {
    // Whoever is no SPIFFE ID is nobody that a pattern names.
    return undefined;
  }
}

export function propertiesIn(value: unknown): Properties {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Properties) : NOTHING;
}
