import type { AccessRequest, Properties } from "../policy/access-request.js";
import { isMcpNotification, isMcpRequest } from "../policy/mcp-methods.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import { understood } from "./coaz-request.js";
import type { AuthzenParts, EnforcementPoint } from "./parts.js";
import type { Quadruple } from "./request-shape.js";

/** A question with what is known here laid under it, or why nobody may be permitted what it asks. */
export type Grounded =
  | { readonly request: AccessRequest; readonly refusal?: undefined }
  | { readonly request: AccessRequest; readonly refusal: string };

const MCP: ReadonlySet<string> = new Set(["mcp", "mcp-tool"]);

/**
 * What only this trust domain can know of its workloads: how an identity was proven, who launched it, its labels. An enforcement point may not say it
 * of anybody with a SPIFFE ID.
 */
const ONLY_WE_KNOW: ReadonlySet<string> = new Set(["evidence", "launched_by", "labels"]);

/**
 * The question as the decision point gets it. What the enforcement point says of users and records goes over what `entities.yaml` says, key by key: it
 * is authenticated, and knows the moment. Of SPIFFE IDs our own facts stand.
 */
export function grounded(question: Quadruple, point: EnforcementPoint, parts: AuthzenParts): Grounded {
  const meant = understood(question, point, parts);
  if (typeof meant === "string") return { request: question, refusal: meant };
  const { name } = meant.action;
  // As at our relay: what no revision of MCP has, no rule permits, however wide.
  if (MCP.has(meant.resource.type) && !isMcpRequest(name) && !isMcpNotification(name)) {
    return { request: meant, refusal: `${JSON.stringify(name)} is no method of MCP` };
  }
  const resource = withEntity(meant.resource, parts);
  if (meant.subject.type !== "spiffe") {
    return { request: { ...meant, subject: withEntity(meant.subject, parts), resource } };
  }
  const { subject, refusal } = workload(meant.subject, parts);
  const request = { ...meant, subject, resource };
  return refusal === undefined ? { request } : { request, refusal };
}

function withEntity<One extends { readonly type: string; readonly id: string; readonly properties?: Properties }>(
  one: One,
  { entities }: AuthzenParts,
): One {
  const known = entities().get(one.type, one.id)?.properties;
  if (known === undefined) return one;
  return { ...one, properties: one.properties === undefined ? known : { ...known, ...one.properties } };
}

function workload(
  { id, properties = {} }: AccessRequest["subject"],
  { registry, trustDomain, launchedBy }: AuthzenParts,
): { readonly subject: AccessRequest["subject"]; readonly refusal?: string } {
  const said = Object.fromEntries(Object.entries(properties).filter(([key]) => !ONLY_WE_KNOW.has(key)));
  const subject = { type: "spiffe", id, properties: said };
  let parsed: SpiffeId;
  try {
    parsed = SpiffeId.parse(id);
  } catch {
    return { subject, refusal: `${JSON.stringify(id)} is no SPIFFE ID` };
  }
  if (!parsed.memberOf(trustDomain)) return { subject };
  if (registry.find(id) === undefined) return { subject, refusal: `agentid.yaml has no identity ${parsed.name}` };
  if (registry.isRevoked(parsed)) return { subject, refusal: `${parsed.name} is revoked` };
  // Which of its launches it is that asks, nobody can tell: every agent above any of them must be permitted it too.
  const above = [...new Set(launchedBy(parsed.name).flat())];
  if (above.length === 0) return { subject };
  const refusal = registry.refusalOf(parsed, above);
  const chained = { ...subject, properties: { ...said, launched_by: above } };
  return refusal === undefined ? { subject: chained } : { subject: chained, refusal };
}
