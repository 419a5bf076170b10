import type { AuditFields } from "../audit/audit-log.js";
import { messageOf } from "../coded-error.js";
import { displayText } from "../control-api/display-text.js";
import type { IncomingRequest } from "../http/incoming-request.js";
import { Refusal } from "../http/refusal.js";
import type { AccessRequest, Decision, ShadowOutcome } from "../policy/access-request.js";
import { CONNECT } from "../policy/access-request-of.js";
import { auditValue, type DecidedCall } from "../policy/decided-call.js";
import { ownDecision } from "../policy/own-decision.js";
import { requestDigest } from "../policy/request-digest.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import type { Exchange, RelayParts } from "./exchange.js";
import { inlineJson } from "./inline-json.js";
import type { KnownCall, KnownCalls } from "./known-calls.js";
import { toolOf } from "./mcp-message.js";

const MAX_SUMMARY = 300;
const NOTHING: ReadonlySet<string> = new Set();

/** What of an exchange the record is about: a request, or a whole connection. */
export type Recorded = Pick<
  Exchange,
  "leg" | "service" | "startedAt" | "caller" | "strangerDetail" | "strangerUser" | "message" | "target" | "decision"
> & { readonly request: Partial<Pick<IncomingRequest, "method" | "url">>; readonly webSocket?: Exchange["webSocket"] };

/** `replayed`: the answer to an earlier request with the same key was given again. */
interface Outcome {
  readonly status?: number;
  readonly error?: string;
  readonly replayed?: true;
  readonly grpcStatus?: number;
}

/** A decision that the relay makes without asking a rule. `rule` names the reason: a refusal's code, or `reach`. */
export function relayDecision(parts: RelayParts, allowed: boolean, rule: string, reason: string): Decision {
  return ownDecision(parts.decisionPoint, { engine: "relay", allowed, rule, reason });
}

/**
 * Puts the exchange's decision on record and shows it, before anything is forwarded or answered (D20); what else is recorded in this turn of the event
 * loop is written with it. Rejects with Refusal `record-unwritable` (503): what cannot be recorded does not happen.
 */
export function recordDecision(
  parts: RelayParts,
  exchange: Recorded,
  decision: Decision,
  request: AccessRequest | undefined,
  known?: RecordedCall,
): Promise<void> {
  const seen = known === undefined ? seenOf(parts, exchange) : known.seen(() => seenOf(parts, exchange));
  const fieldsOf = () => decisionFields(exchange, decision, request, seen);
  const fields = known === undefined ? fieldsOf() : known.fieldsOf(decision, fieldsOf);
  const appended = parts.audit.appendInTurn("decision", fields);
  return appended.then(() => show(parts, exchange, decision, request, seen), refuseUnwritten);
}

/**
 * Puts a refusal on record and shows it, at once: what is refused is answered before anything that follows on the connection is looked at.
 * Throws Refusal `record-unwritable` (503).
 */
export function recordRefusal(parts: RelayParts, exchange: Recorded, refusal: Refusal): void {
  recordDenial(parts, exchange, refusal);
  const outcome = outcomeFields(exchange, { status: refusal.status, error: refusal.code });
  if (outcome !== undefined) atOnce(parts, "call", outcome);
}

/** As `recordRefusal`, where the outcome is recorded by itself; nothing where a decision is on record already, or it was counted with others like it. */
export function recordDenial(parts: RelayParts, exchange: Recorded, { code, message }: Refusal): void {
  if (exchange.decision !== undefined) return;
  if (exchange.caller === undefined && isCounted(parts, exchange, exchange.strangerDetail, { code, message })) return;
  const seen = seenOf(parts, exchange);
  const decision = relayDecision(parts, false, code, message);
  atOnce(parts, "decision", decisionFields(exchange, decision, undefined, seen));
  show(parts, exchange, decision, undefined, seen);
}

/** The call as people see it. */
type Seen = Omit<DecidedCall, "decision" | "request">;
/** What is known of a call that was made before. */
export type RecordedCall = KnownCall<Seen>;
export type RecordedCalls = KnownCalls<Seen>;

function seenOf(parts: RelayParts, exchange: Recorded): Seen {
  const { caller, service } = exchange;
  const seen: Seen = {
    caller: callerName(exchange),
    callerDetail: displayText(caller?.detail ?? exchange.strangerDetail, MAX_SUMMARY),
    service: service.name,
    ...describe(exchange, sensitiveOf(parts)),
  };
  if (caller === undefined) return seen;
  const { evidence, launchedBy } = caller;
  if (launchedBy.length === 0) return { ...seen, evidence };
  return { ...seen, evidence, launchedBy: launchedBy.map((id) => nameOf(SpiffeId.parse(id), exchange)) };
}

/** In the order of the record, which then need not be made. */
function decisionFields(
  { caller, leg, service, webSocket }: Recorded,
  decision: Decision,
  request: AccessRequest | undefined,
  seen: Seen,
): AuditFields {
  return {
    action: seen.action,
    at: decision.at ?? null,
    caller: caller?.id.toString() ?? "(none)",
    callerDetail: seen.callerDetail,
    decision: decision.id,
    ...(decision.deniedAbove === undefined ? undefined : { deniedAbove: decision.deniedAbove }),
    engine: decision.engine,
    evidence: caller?.evidence ?? null,
    ...(caller === undefined || caller.launchedBy.length === 0 ? undefined : { launchedBy: caller.launchedBy }),
    leg,
    policyDigest: decision.policyDigest,
    protocol: service.protocol,
    reason: decision.reason,
    // The digest binds the record to one request without keeping its arguments.
    requestDigest: request === undefined ? null : requestDigest(request),
    rule: decision.rule,
    service: service.name,
    serviceId: service.id.toString(),
    ...(decision.shadow === undefined ? undefined : { shadow: auditValue(decision.shadow) }),
    target: seen.target,
    ...(webSocket === undefined ? undefined : { upgrade: "websocket" }),
    values: auditValue(decision.values),
    verdict: decision.allowed ? "ALLOW" : "DENY",
  };
}

function show(
  parts: RelayParts,
  exchange: Recorded,
  decision: Decision,
  request: AccessRequest | undefined,
  seen: Seen,
): void {
  const { id, allowed, at, reason, rule, shadow } = decision;
  exchange.decision = decision;
  // What is spread comes last: V8 defines what stands behind it by the slow way.
  parts.emit({
    event: "call",
    verdict: allowed ? "ALLOW" : "DENY",
    decision: id,
    protocol: exchange.service.protocol,
    rule,
    reason: displayText(reason, MAX_SUMMARY),
    ...seen,
    ...(at === undefined ? undefined : { at }),
    ...(shadow === undefined ? undefined : { shadow: shadow.map(shadowSeen) }),
  });
  parts.onDecision?.({ decision, request, ...seen });
}

function shadowSeen({ rule, effect, would, differs }: ShadowOutcome) {
  return { rule, effect, would, differs };
}

const NOBODY = "(none)";

/** Of strangers' refusals that are alike only some are recorded one by one. */
function isCounted(
  { strangers }: RelayParts,
  { leg, service, strangerUser }: Pick<Exchange, "leg" | "service" | "strangerUser">,
  detail: string,
  { code, message }: { readonly code: string; readonly message: string },
): boolean {
  if (strangers === undefined) return false;
  const who = strangerUser === undefined ? NOBODY : `uid ${strangerUser}`;
  const shown = { detail: displayText(detail, MAX_SUMMARY), reason: displayText(message, MAX_SUMMARY) };
  return !strangers.isRecorded({ leg, service: service.name, code, who, ...shown });
}

interface RefusedConnection {
  readonly caller: string;
  readonly callerDetail: string;
  readonly code: string;
  readonly reason: string;
  readonly user?: number | undefined;
}

/** Puts on record, and shows, that a connection was refused before a request could be read from it. Never throws. */
export function recordRefusedConnection(
  parts: RelayParts,
  refused: Pick<Exchange, "leg" | "service"> & RefusedConnection,
): void {
  const { leg, service, caller, code } = refused;
  const stranger = { leg, service, strangerUser: refused.user };
  if (caller === NOBODY && isCounted(parts, stranger, refused.callerDetail, { code, message: refused.reason })) return;
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

/** Puts the outcome of a decided call on record, before the head of its answer goes out. Rejects with Refusal `record-unwritable` (503). */
export function recordOutcome(parts: RelayParts, exchange: Recorded, outcome: Outcome): Promise<unknown> {
  const fields = outcomeFields(exchange, outcome);
  if (fields === undefined) return Promise.resolve();
  return parts.audit.appendInTurn("call", fields).then(undefined, refuseUnwritten);
}

/** As `recordOutcome`, in this very moment: for who cannot let the event loop turn before the answer goes out. Throws Refusal `record-unwritable` (503). */
export function recordOutcomeAtOnce(parts: RelayParts, exchange: Recorded, outcome: Outcome): void {
  const fields = outcomeFields(exchange, outcome);
  if (fields !== undefined) atOnce(parts, "call", fields);
}

function outcomeFields(
  { decision, startedAt }: Recorded,
  { status, error, grpcStatus, replayed }: Outcome,
): AuditFields | undefined {
  if (decision === undefined) return undefined;
  if (error === undefined && grpcStatus === undefined && replayed === undefined) {
    return { decision: decision.id, durationMs: since(startedAt), status: status ?? null };
  }
  return {
    decision: decision.id,
    durationMs: since(startedAt),
    ...(error === undefined ? undefined : { error }),
    ...(grpcStatus === undefined ? undefined : { grpcStatus }),
    ...(replayed === undefined ? undefined : { replayed }),
    status: status ?? null,
  };
}

/** Shows that a decided call is over. */
export function showEnd(parts: RelayParts, exchange: Recorded, outcome: Outcome): void {
  const { decision } = exchange;
  if (decision === undefined) return;
  parts.emit({ event: "call.ended", decision: decision.id, durationMs: since(exchange.startedAt), ...outcome });
}

/** As events and screens name a caller: `agents/billing` in the service's own trust domain, the whole ID of a foreign one, `(none)`. */
function callerName(exchange: Recorded): string {
  const id: SpiffeId | undefined = exchange.caller?.id;
  return id === undefined ? "(none)" : nameOf(id, exchange);
}

function nameOf(id: SpiffeId, { service }: Recorded): string {
  return id.memberOf(service.id.trustDomain) ? id.name : id.toString();
}

function describe(
  exchange: Recorded,
  sensitive: ReadonlySet<string>,
): { action: string; target: string; summary: string } {
  const { message, request } = exchange;
  // Of a whole connection there is nothing else to say: its bytes are not read.
  if (exchange.service.protocol === "tcp") return { action: CONNECT, target: CONNECT, summary: CONNECT };
  const path = displayText(exchange.target?.raw ?? request.url ?? "", MAX_SUMMARY);
  if (message !== undefined && message.kind !== "response") {
    const method = displayText(message.method, 80);
    const tool = toolOf(message);
    if (tool !== undefined) {
      const name = displayText(tool.name, 80);
      return {
        action: method,
        target: name,
        summary: displayText(`${name} ${inlineJson(tool.args, "args", sensitive, 16 * MAX_SUMMARY)}`, MAX_SUMMARY),
      };
    }
    const named = message.params.name ?? message.params.uri;
    const target = typeof named === "string" ? displayText(named, MAX_SUMMARY) : path;
    return { action: method, target, summary: typeof named === "string" ? `${method} ${target}` : method };
  }
  const action = message === undefined ? (request.method ?? "") : "response";
  const plain = displayText(exchange.target?.path ?? path, MAX_SUMMARY);
  if (message !== undefined) return { action, target: plain, summary: action };
  const hidesQuery = [...sensitive].some((hidden) => hidden.startsWith("request"));
  const opened = exchange.webSocket === undefined ? "" : " (websocket)";
  return { action, target: plain, summary: `${action} ${hidesQuery ? plain : path}${opened}` };
}

/** A decision point that fails denies; what it would have hidden is not known then, so all of it is hidden. */
function sensitiveOf({ decisionPoint }: RelayParts): ReadonlySet<string> {
  try {
    const { sensitive = [] } = decisionPoint();
    return sensitive.length === 0 ? NOTHING : new Set(sensitive.map((path) => path.replaceAll(/\[\d+\]/g, "")));
  } catch {
    return new Set(["args", "request"]);
  }
}

function atOnce(parts: RelayParts, kind: "decision" | "call", fields: AuditFields): void {
  try {
    parts.audit.append(kind, fields);
  } catch (cause) {
    refuseUnwritten(cause);
  }
}

function refuseUnwritten(cause: unknown): never {
  throw new Refusal("record-unwritable", 503, `the call cannot be recorded: ${messageOf(cause)}`, { cause });
}

/** Milliseconds since `startedAt`, to the microsecond. */
function since(startedAt: number): number {
  return Math.round((performance.now() - startedAt) * 1000) / 1000;
}
