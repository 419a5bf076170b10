import type { AuditFields } from "../audit/audit-log.js";
import { messageOf } from "../coded-error.js";
import { displayText } from "../control-api/display-text.js";
import { Refusal } from "../http/refusal.js";
import type { Json } from "../http/strict-json.js";
import type { AccessRequest, Decision } from "../policy/access-request.js";
import { auditValue } from "../policy/decided-call.js";
import { ownDecision } from "../policy/own-decision.js";
import { requestDigest } from "../policy/replay.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import type { Call, RelayParts } from "./exchange.js";
import { toolOf } from "./mcp-message.js";

const MAX_SUMMARY = 300;

/** A decision that the relay makes without asking a rule. `rule` names the reason: a refusal's code, or `reach`. */
export function relayDecision(parts: RelayParts, allowed: boolean, rule: string, reason: string): Decision {
  return ownDecision(parts.decisionPoint, { engine: "relay", allowed, rule, reason });
}

/**
 * Puts the exchange's decision on record and shows it, before anything is forwarded or answered (D20).
 * Throws Refusal `record-unwritable` (503): what cannot be recorded does not happen.
 */
export function recordDecision(
  parts: RelayParts,
  exchange: Call,
  decision: Decision,
  request: AccessRequest | undefined,
): void {
  const { service } = exchange;
  const caller = callerName(exchange);
  const callerDetail = displayText(exchange.caller?.detail ?? exchange.strangerDetail, MAX_SUMMARY);
  const { action, target, summary } = describe(exchange);
  const launchedBy = exchange.caller?.launchedBy ?? [];
  const how = {
    ...(exchange.caller !== undefined && { evidence: exchange.caller.evidence }),
    ...(launchedBy.length > 0 && { launchedBy: launchedBy.map((id) => nameOf(SpiffeId.parse(id), exchange)) }),
  };
  appended(parts, "decision", {
    decision: decision.id,
    verdict: decision.allowed ? "ALLOW" : "DENY",
    leg: exchange.leg,
    caller: exchange.caller?.id.toString() ?? "(none)",
    callerDetail,
    evidence: exchange.caller?.evidence ?? null,
    ...(launchedBy.length > 0 && { launchedBy }),
    service: service.name,
    serviceId: service.id.toString(),
    protocol: service.protocol,
    ...(exchange.webSocket !== undefined && { upgrade: "websocket" }),
    action,
    target,
    engine: decision.engine,
    rule: decision.rule,
    ...(decision.deniedAbove !== undefined && { deniedAbove: decision.deniedAbove }),
    at: decision.at ?? null,
    reason: decision.reason,
    policyDigest: decision.policyDigest,
    values: auditValue(decision.values),
    ...(decision.shadow !== undefined && { shadow: auditValue(decision.shadow) }),
    // The digest binds the record to one request without keeping its arguments.
    requestDigest: request === undefined ? null : requestDigest(request),
  });
  exchange.decision = decision;
  parts.emit({
    event: "call",
    verdict: decision.allowed ? "ALLOW" : "DENY",
    decision: decision.id,
    caller,
    callerDetail,
    ...how,
    service: service.name,
    protocol: service.protocol,
    action,
    target,
    summary,
    rule: decision.rule,
    ...(decision.at === undefined ? {} : { at: decision.at }),
    ...(decision.shadow !== undefined && {
      shadow: decision.shadow.map(({ rule, effect, would, differs }) => ({ rule, effect, would, differs })),
    }),
    reason: displayText(decision.reason, MAX_SUMMARY),
  });
  const { name } = service;
  parts.onDecision?.({ decision, request, caller, callerDetail, ...how, service: name, action, target, summary });
}

/** Puts on record, and shows, that a connection was refused before a request could be read from it. Never throws. */
export function recordRefusedConnection(
  parts: RelayParts,
  refused: Pick<Call, "leg" | "service"> & { caller: string; callerDetail: string; code: string; reason: string },
): void {
  const { leg, service, caller, code } = refused;
  const decision = relayDecision(parts, false, code, displayText(refused.reason, MAX_SUMMARY));
  const callerDetail = displayText(refused.callerDetail, MAX_SUMMARY);
  const common = { decision: decision.id, leg, caller, callerDetail, service: service.name, rule: code };
  const seen = { action: "connect", target: "", summary: "connection refused" };
  try {
    parts.audit.append("decision", {
      ...common,
      ...seen,
      verdict: "DENY",
      serviceId: service.id.toString(),
      reason: decision.reason,
      policyDigest: decision.policyDigest,
    });
  } catch {
    // The connection is refused whether or not that can be recorded; the log's owner reports that it cannot be written.
  }
  const { protocol } = service;
  const { reason } = decision;
  parts.emit({
    event: "call",
    verdict: "DENY",
    ...seen,
    decision: decision.id,
    caller,
    callerDetail,
    service: service.name,
    protocol,
    rule: code,
    reason,
  });
}

/** Puts the outcome of an allowed call on record before the head of its answer goes out. Throws Refusal `record-unwritable` (503). */
export function recordOutcome(
  parts: RelayParts,
  exchange: Call,
  outcome: { status?: number; error?: string; grpcStatus?: number },
): void {
  const { decision } = exchange;
  if (decision === undefined) return;
  appended(parts, "call", {
    decision: decision.id,
    status: outcome.status ?? null,
    ...(outcome.grpcStatus !== undefined && { grpcStatus: outcome.grpcStatus }),
    durationMs: sinceStart(exchange),
    ...(outcome.error === undefined ? {} : { error: outcome.error }),
  });
}

/** Shows that a decided call is over. */
export function showEnd(parts: RelayParts, exchange: Call, outcome: { status?: number; error?: string }): void {
  const { decision } = exchange;
  if (decision === undefined) return;
  parts.emit({ event: "call.ended", decision: decision.id, durationMs: sinceStart(exchange), ...outcome });
}

/** As events and screens name a caller: `agents/billing` in the service's own trust domain, the whole ID of a foreign one, `(none)`. */
function callerName(exchange: Call): string {
  const id: SpiffeId | undefined = exchange.caller?.id;
  return id === undefined ? "(none)" : nameOf(id, exchange);
}

function nameOf(id: SpiffeId, { service }: Call): string {
  return id.memberOf(service.id.trustDomain) ? id.name : id.toString();
}

function describe(exchange: Call): { action: string; target: string; summary: string } {
  const { message, request } = exchange;
  const path = displayText(exchange.target?.raw ?? request.url ?? "", MAX_SUMMARY);
  if (message !== undefined && message.kind !== "response") {
    const method = displayText(message.method, 80);
    const tool = toolOf(message);
    if (tool !== undefined) {
      const name = displayText(tool.name, 80);
      return { action: method, target: name, summary: displayText(`${name} ${inline(tool.args)}`, MAX_SUMMARY) };
    }
    const named = message.params.name ?? message.params.uri;
    const target = typeof named === "string" ? displayText(named, MAX_SUMMARY) : path;
    return { action: method, target, summary: typeof named === "string" ? `${method} ${target}` : method };
  }
  const action = message === undefined ? (request.method ?? "") : "response";
  const plain = displayText(exchange.target?.path ?? path, MAX_SUMMARY);
  if (message !== undefined) return { action, target: plain, summary: action };
  const opened = exchange.webSocket === undefined ? "" : " (websocket)";
  return { action, target: plain, summary: `${action} ${path}${opened}` };
}

/** `{invoice:1017, amount:4200}`: JSON as a person would jot it down. */
function inline(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(inline).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const members = Object.entries(value).map(([key, member]) => `${key}:${inline(member)}`);
  return `{${members.join(", ")}}`;
}

function appended(parts: RelayParts, kind: "decision" | "call", fields: AuditFields): void {
  try {
    parts.audit.append(kind, fields);
  } catch (cause) {
    throw new Refusal("record-unwritable", 503, `the call cannot be recorded: ${messageOf(cause)}`, { cause });
  }
}

function sinceStart(exchange: Call): number {
  return Math.round((performance.now() - exchange.startedAt) * 1000) / 1000;
}
