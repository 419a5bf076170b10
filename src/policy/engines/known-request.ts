import { CodedError } from "../../coded-error.js";
import type { AccessRequest, Properties } from "../access-request.js";
import { type Entities, isOwnType, overlaid } from "../entities.js";
import { identityParts, isNormalisedPath } from "../pattern.js";

/** The delegated user of a call, as engines see it. */
export interface KnownUser {
  readonly id: string;
  readonly properties: Properties;
}

/**
 * The request as engines see it: what `entities.yaml` knows of subject, resource and delegated user laid under what the enforcement point says.
 * Throws CodedError `request-invalid` for a caller without an identity, a path that two servers could read as two, an unreadable user, and
 * SpiffeIdError for an identity or a service that is not named by its SPIFFE ID.
 */
export function knownRequest(request: AccessRequest, entities: Entities): AccessRequest {
  const { subject, action, resource, context } = request;
  if (typeof subject?.type !== "string" || typeof subject.id !== "string" || subject.type === "none") {
    throw new CodedError("request-invalid", "the caller has no identity");
  }
  if (typeof action?.name !== "string" || action.name === "") {
    throw new CodedError("request-invalid", "the request names no action");
  }
  // Other names of identities and services are nobody's: an engine could take one for what it only looks like.
  if (subject.type === "spiffe") identityParts(subject.id);
  if (isOwnType(resource.type)) identityParts(resource.id);
  if (resource.type === "http") {
    const path: unknown = resource.properties?.path;
    if (typeof path !== "string" || !isNormalisedPath(path)) {
      throw new CodedError("request-invalid", "the path is missing or could be read as another path");
    }
  }
  const user = knownUser(context?.user, entities);
  return {
    subject: { ...subject, properties: overlaid(entities.get(subject.type, subject.id), subject.properties) },
    action,
    resource: { ...resource, properties: overlaid(entities.get(resource.type, resource.id), resource.properties) },
    context: { ...context, ...(user !== undefined && { user }) },
  };
}

function knownUser(given: unknown, entities: Entities): KnownUser | undefined {
  if (given === undefined || given === null) return undefined;
  const { id, properties } = typeof given === "string" ? { id: given, properties: undefined } : partsOf(given);
  if (typeof id !== "string" || id === "") throw unreadableUser();
  if (
    properties !== undefined &&
    (typeof properties !== "object" || properties === null || Array.isArray(properties))
  ) {
    throw unreadableUser();
  }
  return { id, properties: overlaid(entities.get("user", id), properties as Properties | undefined) };
}

function partsOf(given: unknown): { readonly id?: unknown; readonly properties?: unknown } {
  if (typeof given !== "object" || given === null || Array.isArray(given)) throw unreadableUser();
  return given;
}

function unreadableUser(): CodedError {
  return new CodedError("request-invalid", "the delegated user of the request cannot be read");
}
