import type { CallerAttestor } from "../attestation/caller.js";
import type { Evidence } from "../attestation/process-facts.js";
import type { AuditLog } from "../audit/audit-log.js";
import type { StrangerRefusals } from "../audit/stranger-refusals.js";
import type { NewEvent } from "../control-api/events.js";
import type { IncomingRequest } from "../http/incoming-request.js";
import type { OutgoingAnswer } from "../http/outgoing-answer.js";
import type { IdentityRegistry } from "../identity/entitlement.js";
import type { X509BundleSource, X509SvidSource } from "../identity/svid-source.js";
import type { Clock } from "../platform/clock.js";
import type { Decision, DecisionPoint } from "../policy/access-request.js";
import type { DecidedCall } from "../policy/decided-call.js";
import type { Secrets } from "../secrets/secrets.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import type { CallSpan, CallTracer } from "../telemetry/call-tracer.js";
import type { DurableCalls } from "./durable-calls.js";
import type { DurableRequest } from "./durable-request.js";
import type { Resolve } from "./egress-connection.js";
import type { McpMessage } from "./mcp-message.js";
import type { OpenWebSockets } from "./open-websocket.js";
import type { RequestTarget } from "./request-target.js";
import type { RunningService } from "./running-service.js";

/** What the relay is made of; the daemon gives it. */
export interface RelayParts {
  readonly attestor: CallerAttestor;
  readonly registry: IdentityRegistry;
  readonly svids: X509SvidSource;
  readonly bundles: X509BundleSource;
  /** The decision point of the policy set in force now. */
  readonly decisionPoint: () => DecisionPoint;
  readonly audit: AuditLog;
  readonly clock: Clock;
  readonly emit: (event: NewEvent) => void;
  /** Called after each decision is on record, with the request it was about: what `agentid explain` explains later. */
  readonly onDecision?: (decided: DecidedCall) => void;
  /** Keeps callers without an identity from filling the record; without it each of their refusals is recorded by itself. */
  readonly strangers?: Pick<StrangerRefusals, "isRecorded">;
  /** Who collects spans of calls now. */
  readonly tracer?: () => CallTracer | undefined;
  /** What egress targets are sent as credentials. */
  readonly secrets?: Pick<Secrets, "valueOf">;
  /** Addresses of egress targets; the system's resolver where it is not given. */
  readonly resolve?: Resolve;
  readonly projectDirectory: string;
  /** Answers requests with an `Idempotency-Key` once; without it they are refused. */
  readonly durable?: DurableCalls;
  /** How long an upstream may take to begin its answer. Default 300 s: a tool call may wait for a person. */
  readonly upstreamTimeoutMs?: number;
  /** How many connections each listener serves at a time. Default 1,024. */
  readonly maxConnections?: number;
  /** Of one relay, and made by it. */
  readonly webSockets?: OpenWebSockets;
}

const ANSWER_TIMEOUT_MS = 300_000;

export function answerTimeoutOf({ upstreamTimeoutMs = ANSWER_TIMEOUT_MS }: RelayParts): number {
  return upstreamTimeoutMs;
}

/** Who calls: an identity that was verified, by the kernel's word (outbound) or by certificate (inbound). */
interface VerifiedCaller {
  readonly id: SpiffeId;
  /** Who in kernel words; empty where the caller came by certificate from outside this daemon. */
  readonly detail: string;
  /** What the identity rests on, as far as this leg knows. */
  readonly evidence: Evidence | "certificate";
  /** SPIFFE IDs of the agents that launched it, nearest first. */
  readonly launchedBy: readonly string[];
  /** Lower-case hex SHA-256 of the certificate presented; undefined on the outbound leg. */
  readonly certificateSha256: string | undefined;
  /** What the service is told of that certificate: names and values of headers. */
  readonly certificateHeaders?: readonly string[];
}

/** One request on its way through a leg: each step fills in what it found out. */
export interface Exchange {
  readonly leg: "outbound" | "inbound";
  readonly service: RunningService;
  readonly request: IncomingRequest;
  readonly response: OutgoingAnswer;
  /** Of a request to open a WebSocket: what came behind its head. */
  readonly webSocket: { readonly head: Buffer } | undefined;
  /** `performance.now()` at the first step. */
  readonly startedAt: number;
  target: RequestTarget | undefined;
  caller: VerifiedCaller | undefined;
  /** Kernel words about a caller that has no identity. */
  strangerDetail: string;
  /** Their user, where the kernel has said so. */
  strangerUser?: number | undefined;
  message: McpMessage | undefined;
  decision: Decision | undefined;
  /** The call's span, begun when it is first asked for; undefined where nobody collects spans. */
  span: (() => CallSpan) | undefined;
  /** Of a request with an `Idempotency-Key`. */
  durable: DurableRequest | undefined;
}

/** What is found out about a call, whatever carries it. */
export interface Call extends Omit<Exchange, "request" | "response" | "span" | "durable"> {
  readonly request: Partial<Pick<IncomingRequest, "method" | "url">>;
}

/** `answered` ends the pipeline: an answer is out or under way. */
export type StepResult = "answered" | undefined;
export type Step = (exchange: Exchange) => StepResult | Promise<StepResult>;

export function newExchange(
  leg: Exchange["leg"],
  service: RunningService,
  request: IncomingRequest,
  response: OutgoingAnswer,
  webSocket?: Exchange["webSocket"],
): Exchange {
  return {
    leg,
    service,
    request,
    response,
    webSocket,
    startedAt: performance.now(),
    target: undefined,
    caller: undefined,
    strangerDetail: "",
    message: undefined,
    decision: undefined,
    span: undefined,
    durable: undefined,
  };
}

/** What an earlier step of the same pipeline has filled in. Throws if the pipeline is put together wrongly. */
export function filled<Value>(value: Value | undefined, name: string): Value {
  if (value === undefined) throw new Error(`relay pipeline: no earlier step fills in ${name}`);
  return value;
}
