import { messageOf } from "../coded-error.js";
import { Refusal } from "../http/refusal.js";
import { answerJsonRpcError, answerProblem, titleOf } from "./answer.js";
import { recordRefusal, showEnd } from "./decision-record.js";
import type { Exchange, RelayParts, Step } from "./exchange.js";

/** Runs the steps in order until one has answered. Whatever is thrown on the way is a denial on record and an answer, never a pass (D13). */
export async function runPipeline(parts: RelayParts, steps: readonly Step[], exchange: Exchange): Promise<void> {
  try {
    for (const step of steps) {
      const result = step(exchange);
      // Most steps are synchronous: awaiting each would cost every call a turn of the loop.
      if ((result instanceof Promise ? await result : result) === "answered") return;
    }
    throw new Error("relay pipeline: no step answered");
  } catch (thrown) {
    refuse(parts, exchange, asRefusal(thrown));
  }
}

function refuse(parts: RelayParts, exchange: Exchange, refusal: Refusal): void {
  let answer = refusal;
  // What was not fit to be decided on: whatever comes behind it could have been meant as a part of it.
  if (exchange.decision === undefined) exchange.response.beLast();
  try {
    recordRefusal(parts, exchange, refusal);
  } catch (unwritable) {
    answer = asRefusal(unwritable);
  }
  const { response, decision, message } = exchange;
  if (answer.jsonRpcCode !== undefined) {
    answerJsonRpcError(response, {
      status: answer.status,
      id: message?.kind === "request" ? message.id : null,
      code: answer.jsonRpcCode,
      message: answer.message,
      data: { code: answer.code, decision: decision?.id },
      ...(decision === undefined ? {} : { decision: decision.id }),
    });
  } else {
    answerProblem(response, {
      status: answer.status,
      title: titleOf(answer),
      code: answer.code,
      detail: answer.message,
      ...(decision === undefined ? {} : { rule: decision.rule, decision: decision.id }),
    });
  }
  showEnd(parts, exchange, { status: answer.status, error: answer.code });
}

function asRefusal(thrown: unknown): Refusal {
  if (thrown instanceof Refusal) return thrown;
  return new Refusal("decision-failed", 503, `refused after an error: ${messageOf(thrown)}`, { cause: thrown });
}
