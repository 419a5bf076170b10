import type { Duplex } from "node:stream";
import { messageOf } from "../coded-error.js";
import type { ListenerNames } from "../http/host-check.js";
import { Refusal } from "../http/refusal.js";
import { titleOf } from "./answer.js";
import { decideGrpc, withdrawing } from "./decide.js";
import { recordDecision, recordRefusal, showEnd } from "./decision-record.js";
import type { RelayParts } from "./exchange.js";
import { forwardGrpc, type GrpcHop } from "./forward-grpc.js";
import type { GrpcCall } from "./grpc-exchange.js";
import { asksInGrpc, parseGrpcRequest } from "./grpc-request.js";
import { GrpcStatus, grpcMessage, grpcStatusOf } from "./grpc-status.js";
import { endGrpcSpan, traceGrpcCall } from "./grpc-tracing.js";
import { DECISION_HEADER } from "./headers.js";
import { type IncomingStream, letGo } from "./http2-listener.js";
import type { RunningService } from "./running-service.js";

/** What a leg adds: who calls, and where to. */
export interface GrpcLeg {
  readonly leg: "outbound" | "inbound";
  readonly scheme: "http" | "https";
  readonly names: () => ListenerNames;
  readonly service: () => RunningService;
  /** Fills in the caller. Throws Refusal. */
  readonly identify: (call: GrpcCall) => void | Promise<void>;
  readonly decides: (service: RunningService) => boolean;
  /** Sends it on by `send`, and returns when it is over. */
  readonly sendOn: (call: GrpcCall, send: (hop: GrpcHop) => Promise<void>) => Promise<void>;
}

/** The path of one call: read, identify, decide, record, forward. Whatever is thrown on the way is a denial on record and an answer (D13). */
export async function runGrpcCall(
  parts: RelayParts,
  leg: GrpcLeg,
  incoming: IncomingStream,
  socket: Duplex,
): Promise<void> {
  const call = newCall(leg, incoming, socket);
  try {
    call.head = parseGrpcRequest(incoming.raw, leg.scheme, leg.names());
    call.target = call.head.target;
    traceGrpcCall(parts, call);
    await leg.identify(call);
    if (leg.decides(call.service) && !(await isAllowed(parts, call))) return;
    await leg.sendOn(call, (hop) => forwardGrpc(parts, call, hop));
  } catch (thrown) {
    refuse(parts, call, asRefusal(thrown));
  }
}

function newCall(leg: GrpcLeg, incoming: IncomingStream, socket: Duplex): GrpcCall {
  const pseudo = (name: string) => incoming.raw[incoming.raw.indexOf(name) + 1] ?? "";
  return {
    ...{ leg: leg.leg, service: leg.service(), incoming, socket },
    request: { method: pseudo(":method"), url: pseudo(":path") },
    startedAt: performance.now(),
    ...{ webSocket: undefined, message: undefined, strangerDetail: "" },
    ...{ head: undefined, target: undefined, caller: undefined, decision: undefined },
    span: undefined,
  };
}

async function isAllowed(parts: RelayParts, call: GrpcCall): Promise<boolean> {
  const { incoming, socket } = call;
  const hasGone = () => socket.destroyed || incoming.stream.destroyed;
  const { decision, request } = await decideGrpc(parts, call, hasGone);
  await recordDecision(parts, call, decision, request).catch(withdrawing(decision));
  if (decision.allowed) return true;
  const why = `denied by policy ${decision.rule} (${decision.reason})`;
  const message = decision.message === undefined ? why : `${decision.message}: ${why}`;
  answerStatus(call, GrpcStatus.permissionDenied, `${message}. Decision ${decision.id}`);
  showEnd(parts, call, { status: 200 });
  return false;
}

function refuse(parts: RelayParts, call: GrpcCall, refusal: Refusal): void {
  let answer = refusal;
  try {
    recordRefusal(parts, call, refusal);
  } catch (unwritable) {
    answer = asRefusal(unwritable);
  }
  if (asksInGrpc(call.incoming.raw)) answerStatus(call, grpcStatusOf(answer), `${answer.message} (${answer.code})`);
  else answerProblem(call, answer);
  showEnd(parts, call, { status: answer.status, error: answer.code });
}

/** A status without a body: `Trailers-Only`. */
function answerStatus(call: GrpcCall, status: number, message: string): void {
  const { stream } = call.incoming;
  const { decision } = call;
  if (stream.destroyed || stream.headersSent) {
    stream.destroy();
    return;
  }
  stream.respond(
    {
      ...{ ":status": 200, "content-type": "application/grpc" },
      ...{ "grpc-status": String(status), "grpc-message": grpcMessage(message) },
      ...(decision !== undefined && { [DECISION_HEADER.toLowerCase()]: decision.id }),
    },
    { endStream: true },
  );
  endGrpcSpan(call);
  letGo(stream);
}

/** Who does not speak gRPC is answered as by any HTTP server. */
function answerProblem({ incoming: { stream }, decision }: GrpcCall, refusal: Refusal): void {
  if (stream.destroyed || stream.headersSent) {
    stream.destroy();
    return;
  }
  const { status, code, message: detail } = refusal;
  const body = { type: `about:blank#${code}`, title: titleOf(refusal), status, code, detail, decision: decision?.id };
  stream.respond({
    ...{ ":status": status, "content-type": "application/problem+json", "cache-control": "no-store" },
    ...(decision !== undefined && { [DECISION_HEADER.toLowerCase()]: decision.id }),
  });
  stream.end(JSON.stringify(body));
  letGo(stream);
}

function asRefusal(thrown: unknown): Refusal {
  if (thrown instanceof Refusal) return thrown;
  return new Refusal("decision-failed", 503, `refused after an error: ${messageOf(thrown)}`, { cause: thrown });
}
