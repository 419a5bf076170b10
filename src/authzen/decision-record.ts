import { hash } from "node:crypto";
import type { AuditFields } from "../audit/audit-log.js";
import { messageOf } from "../coded-error.js";
import { displayText } from "../control-api/display-text.js";
import { Refusal } from "../http/refusal.js";
import type { JsonObject } from "../http/strict-json.js";
import type { Pause } from "../platform/turns.js";
import type { AccessRequest, Decision } from "../policy/access-request.js";
import { auditValue } from "../policy/decided-call.js";
import { digestOf, ownDecision } from "../policy/own-decision.js";
import { jsonInTurns, requestDigest } from "../policy/request-digest.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import type { AuthzenParts, EnforcementPoint } from "./parts.js";

const MAX_SUMMARY = 300;

/** A denial that this layer makes without asking a rule. */
export function refusedHere(parts: AuthzenParts, rule: string, reason: string): Decision {
  return ownDecision(parts.decisionPoint, { engine: "authzen", allowed: false, rule, reason });
}

/**
 * Puts a decision on record and shows it; nobody is told of it before (D20). Resolves when it is written, in one write with what else is recorded in the
 * same turn. Rejects with Refusal `record-unwritable` (503): what cannot be recorded is not answered.
 */
export async function recordDecision(
  parts: AuthzenParts,
  point: EnforcementPoint,
  request: AccessRequest,
  decision: Decision,
): Promise<void> {
  const seen = describe(parts, request);
  const askedBy = `asked by ${point.name}${point.detail === "" ? "" : `: ${point.detail}`}`;
  const verdict = decision.allowed ? "ALLOW" : "DENY";
  // In the order of the canonical form, which then need not be made.
  await appended(parts, "decision", {
    action: seen.action,
    at: decision.at ?? null,
    caller: displayText(callerOf(request), MAX_SUMMARY),
    decision: decision.id,
    ...(decision.deniedAbove !== undefined && { deniedAbove: decision.deniedAbove }),
    enforcementPoint: point.id ?? point.name,
    enforcementPointDetail: displayText(point.detail, MAX_SUMMARY),
    engine: decision.engine,
    leg: "authzen",
    ...(decision.obligations.length > 0 && { obligations: decision.obligations.map(({ type }) => type) }),
    policyDigest: decision.policyDigest,
    reason: decision.reason,
    requestDigest: requestDigest(request),
    resourceType: displayText(request.resource.type, MAX_SUMMARY),
    rule: decision.rule,
    service: seen.service,
    serviceId: displayText(request.resource.id, MAX_SUMMARY),
    target: seen.target,
    values: auditValue(decision.values),
    verdict,
  });
  const common = { caller: seen.caller, callerDetail: displayText(askedBy, MAX_SUMMARY), service: seen.service };
  const { action, target, summary } = seen;
  parts.emit({
    event: "call",
    verdict,
    decision: decision.id,
    ...common,
    protocol: "authzen",
    action,
    target,
    summary,
    rule: decision.rule,
    ...(decision.at === undefined ? {} : { at: decision.at }),
    reason: displayText(decision.reason, MAX_SUMMARY),
  });
  parts.onDecision?.({ decision, request, ...common, action, target, summary });
}

export interface RefusedAdmission {
  readonly caller: string;
  readonly detail: string;
  /** The user of the process that asked, where the kernel says so. */
  readonly user: number | undefined;
  readonly path: string;
}

/**
 * Puts on record that somebody was refused before any question was read, or counts it with others like it: who asked is not known, or may not ask.
 * Throws Refusal `record-unwritable`.
 */
export async function recordRefusal(parts: AuthzenParts, refused: RefusedAdmission, refusal: Refusal): Promise<void> {
  if (isCounted(parts, refused, refusal)) return;
  const decision = refusedHere(parts, refusal.code, displayText(refusal.message, MAX_SUMMARY));
  const target = displayText(refused.path, MAX_SUMMARY);
  const callerDetail = displayText(refused.detail, MAX_SUMMARY);
  const common = { caller: refused.caller, callerDetail };
  const named = { ...common, decision: decision.id, verdict: "DENY" } as const;
  const seen = { service: "agentid", action: "ask", target, rule: refusal.code, reason: decision.reason };
  await appended(parts, "decision", { ...named, ...seen, leg: "authzen", policyDigest: decision.policyDigest });
  const summary = displayText(`ask the decision point: ${target}`, MAX_SUMMARY);
  parts.emit({ event: "call", ...named, ...seen, protocol: "authzen", summary });
  parts.onDecision?.({ decision, request: undefined, ...common, ...seen, summary });
}

function isCounted(
  { strangers }: AuthzenParts,
  { caller, user, detail }: RefusedAdmission,
  { code, message }: Refusal,
): boolean {
  if (strangers === undefined) return false;
  const who = caller === "(none)" && user !== undefined ? `uid ${user}` : caller;
  const shown = { detail: displayText(detail, MAX_SUMMARY), reason: displayText(message, MAX_SUMMARY) };
  return !strangers.isRecorded({ leg: "authzen", service: "agentid", code, who, ...shown });
}

/** Puts a search on record before it is answered. Throws Refusal `record-unwritable` (503). */
export async function recordSearch(
  parts: AuthzenParts,
  point: EnforcementPoint,
  { kind, digest, found }: { readonly kind: string; readonly digest: string; readonly found: number },
): Promise<void> {
  await appended(parts, "search", {
    leg: "authzen",
    enforcementPoint: point.id ?? point.name,
    enforcementPointDetail: displayText(point.detail, MAX_SUMMARY),
    search: kind,
    found,
    policyDigest: digestOf(parts.decisionPoint),
    requestDigest: digest,
  });
}

/** Hex SHA-256 of the body as JSON. */
export async function digestOfSearch(body: JsonObject, pause: Pause | undefined): Promise<string> {
  return hash("sha256", pause === undefined ? JSON.stringify(body) : await jsonInTurns(body, pause));
}

async function appended(parts: AuthzenParts, kind: "decision" | "search", fields: AuditFields): Promise<void> {
  try {
    await parts.audit.appendInTurn(kind, fields);
  } catch (cause) {
    throw new Refusal("record-unwritable", 503, `the answer cannot be recorded: ${messageOf(cause)}`, { cause });
  }
}

/** SPIFFE ID, or `user:alice`. */
function callerOf({ subject }: AccessRequest): string {
  return subject.type === "spiffe" ? subject.id : `${subject.type}:${subject.id}`;
}

interface Seen {
  readonly caller: string;
  readonly service: string;
  readonly action: string;
  readonly target: string;
  readonly summary: string;
}

/** As people see it: `agents/billing`, `payments`, `tools/call`, `get_invoice`. */
function describe(parts: AuthzenParts, request: AccessRequest): Seen {
  const { subject, action: asked, resource } = request;
  const action = displayText(asked.name, 80);
  const known = isService(resource.type) ? parts.services().find(({ id }) => id === resource.id) : undefined;
  const service = displayText(known?.name ?? `${resource.type}:${resource.id}`, MAX_SUMMARY);
  const named: unknown = resource.properties?.tool ?? resource.properties?.path;
  const target = displayText(typeof named === "string" ? named : resource.id, MAX_SUMMARY);
  const caller = subject.type === "spiffe" ? shortName(subject.id, parts) : callerOf(request);
  return { caller: displayText(caller, MAX_SUMMARY), service, action, target, summary: `${action} ${target}` };
}

function isService(type: string): boolean {
  return type === "mcp" || type === "mcp-tool" || type === "http" || type === "tcp";
}

function shortName(id: string, { trustDomain }: AuthzenParts): string {
  try {
    const parsed = SpiffeId.parse(id);
    return parsed.memberOf(trustDomain) ? parsed.name : id;
  } catch {
    return id;
  }
}
