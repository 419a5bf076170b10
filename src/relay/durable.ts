import { Refusal } from "../http/refusal.js";
import { withdraw } from "../policy/settlement.js";
import { recordOutcome, showEnd } from "./decision-record.js";
import { keepAnswer } from "./durable-answer.js";
import type { DurableCalls, RunningCall } from "./durable-calls.js";
import { idempotencyKeyOf } from "./durable-key.js";
import { replay } from "./durable-replay.js";
import { type DurableRequest, durableRequestOf, isDurable } from "./durable-request.js";
import { type Exchange, filled, type RelayParts, type Step, type StepResult } from "./exchange.js";
import { readBody } from "./request-steps.js";

const MOST = { bytes: 1024 * 1024, words: "a request with an Idempotency-Key may have a body of at most 1 MiB" };
/** Well below what clients wait for an answer. */
const WAIT_MS = 20_000;
/** JSON-RPC's codes for what is told of a key: the HTTP status, outside the codes that JSON-RPC and MCP reserve. */
const TOLD = new Set([
  "idempotency-key",
  "key-reused",
  "in-flight",
  "outcome-unknown",
  "answer-too-large",
  "durable-busy",
  "durable-store",
]);

/**
 * Reads a request with a key as a whole, before it is decided, and lets it wait while the first with that key is under way: so what is decided is decided
 * when its answer goes out. Nothing is done for requests without a key.
 */
export function holdDurable(parts: RelayParts): Step {
  return (exchange) => {
    try {
      const key = idempotencyKeyOf(exchange.request.rawHeaders);
      if (key === undefined || !isDurable(exchange)) return undefined;
      return hold(parts, exchange, key).catch((thrown: unknown) => tell(exchange, thrown));
    } catch (thrown) {
      return tell(exchange, thrown);
    }
  };
}

async function hold(parts: RelayParts, exchange: Exchange, key: string): Promise<StepResult> {
  const calls = durableCalls(parts);
  const { request, message } = exchange;
  const body = message === undefined && request.hasBody ? (await readBody(request, parts.clock, MOST)).bytes() : null;
  const asked = await durableRequestOf(exchange, key, body);
  exchange.durable = asked;
  const first = calls.runningAs(asked.keyed.scope);
  if (first?.fingerprint === asked.keyed.fingerprint) await untilOver(parts, exchange, first);
  if (hasGone(exchange)) throw new Refusal("in-flight", 409, "the caller went away before it was decided");
  return undefined;
}

/** Resolves when the first is over, too slow to wait for, or nobody waits any more. */
function untilOver({ clock }: RelayParts, { response }: Exchange, first: RunningCall): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      cancel();
      response.off("close", done);
      resolve();
    };
    const cancel = clock.after(WAIT_MS, done);
    response.once("close", done);
    void first.over.then(done);
  });
}

/** Sends a request with a key on by `goOn` if it is the first, and answers it from what is known of the first if it is not. */
export function durably(parts: RelayParts, goOn: Step): Step {
  return (exchange) => {
    const { durable } = exchange;
    return durable === undefined ? goOn(exchange) : once(parts, exchange, durable, goOn);
  };
}

async function once(parts: RelayParts, exchange: Exchange, asked: DurableRequest, goOn: Step): Promise<StepResult> {
  try {
    const point = parts.decisionPoint();
    const begun = await durableCalls(parts).begin(asked);
    // A narrowing does not wait for the disk.
    if (parts.decisionPoint() !== point) {
      if (begun.found === "nothing") await begun.call.unsent();
      withdraw(filled(exchange.decision, "decision"));
      throw new Refusal("decision-failed", 503, "the policy has changed since the call was decided: ask again");
    }
    if (begun.found === "answer") return await replay(parts, exchange, begun.answer);
    if (begun.found === "unkept") {
      throw new Refusal(
        "answer-too-large",
        409,
        "the call was answered; the answer was too large to be kept. It is not sent again",
      );
    }
    if (begun.found === "sent") {
      throw new Refusal(
        "outcome-unknown",
        409,
        "the call was sent, and nobody knows whether it was done. It is not sent again",
      );
    }
    return await send(parts, exchange, asked, { call: begun.call, goOn });
  } catch (thrown) {
    return tell(exchange, thrown);
  }
}

async function send(
  parts: RelayParts,
  exchange: Exchange,
  asked: DurableRequest,
  { call, goOn }: { call: RunningCall; goOn: Step },
): Promise<StepResult> {
  if (hasGone(exchange)) {
    await call.unsent();
    await recordOutcome(parts, exchange, { error: "caller-gone" });
    showEnd(parts, exchange, { error: "caller-gone" });
    return "answered";
  }
  let dispatched = false;
  asked.observe = (dispatcher, answerHeaders = (headers) => [...headers]) => {
    dispatched = true;
    return keepAnswer(parts, exchange, { dispatcher, call, answerHeaders });
  };
  try {
    return await goOn(exchange);
  } finally {
    // From there on whoever looks on at the answer ends the call.
    if (!dispatched) await call.unsent();
  }
}

function hasGone({ request, response }: Exchange): boolean {
  return request.socket.destroyed || response.destroyed;
}

function durableCalls({ durable }: RelayParts): DurableCalls {
  if (durable === undefined) throw new Refusal("durable-store", 503, "there is no store for answers here");
  return durable;
}

/** A client of MCP reads JSON-RPC errors; and who may ask again is told when. */
function tell({ service, response }: Exchange, thrown: unknown): never {
  if (!(thrown instanceof Refusal) || !TOLD.has(thrown.code)) throw thrown;
  const { code, status, message, cause } = thrown;
  if (code === "in-flight" || code === "durable-busy") response.setHeader("Retry-After", "1");
  throw service.protocol === "mcp" ? new Refusal(code, status, message, { cause, jsonRpcCode: status }) : thrown;
}
