/** The thread that evaluates conditions over large arguments; `condition-thread.ts` starts it and ends it. */
import { parentPort } from "node:worker_threads";
import { messageOf } from "../coded-error.js";
import { type ConditionInput, type ConditionOutcome, evaluateApart } from "./condition.js";

type Message = { readonly text: string } | { readonly source: string; readonly now: number };

const MAX_COMPILED = 256;
const compiled = new Map<string, (input: ConditionInput) => ConditionOutcome>();
let text = "";

parentPort?.on("message", (message: Message) => {
  if ("text" in message) {
    text += message.text;
    return;
  }
  const given = text;
  text = "";
  parentPort?.postMessage(outcomeOf(message.source, given, message.now));
});
parentPort?.postMessage("ready");

function outcomeOf(source: string, given: string, now: number): ConditionOutcome {
  try {
    const input: ConditionInput = { ...(JSON.parse(given) as ConditionInput), now: new Date(now) };
    return evaluatorOf(source)(input);
  } catch (thrown) {
    return { outcome: "error", why: messageOf(thrown) };
  }
}

function evaluatorOf(source: string): (input: ConditionInput) => ConditionOutcome {
  let evaluate = compiled.get(source);
  if (evaluate === undefined) {
    if (compiled.size >= MAX_COMPILED) compiled.clear();
    evaluate = evaluateApart(source);
    compiled.set(source, evaluate);
  }
  return evaluate;
}
