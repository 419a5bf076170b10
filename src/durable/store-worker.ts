/** The thread that keeps the answers of calls with a key; `call-store.ts` starts it and ends it. */
import { parentPort, workerData } from "node:worker_threads";
import { messageOf } from "../coded-error.js";
import { type Found, openCallTable } from "./call-table.js";
import type { StoreAnswer, StoreQuestion } from "./store-messages.js";

const { path, maxBytes } = workerData as { path: string | undefined; maxBytes: number };
const table = openCallTable({ path, maxBytes });
let waiting: StoreQuestion[] = [];

parentPort?.on("message", (question: StoreQuestion) => {
  waiting.push(question);
  // One transaction for what has come in one turn: the disk takes as long for one as for many.
  if (waiting.length === 1) setImmediate(answerAll);
});
parentPort?.postMessage("ready");

function answerAll(): void {
  const questions = waiting;
  waiting = [];
  let answers: StoreAnswer[];
  try {
    const found: StoreAnswer[] = [];
    table.together(() => {
      for (const question of questions) found.push({ number: question.number, found: done(question) });
    });
    answers = found;
  } catch {
    // One of them cannot be done: each by itself, so that it stops no other.
    answers = questions.map(alone);
  }
  for (const answer of answers) parentPort?.postMessage(answer);
  for (const question of questions) if (question.ask === "sweep") sweep(question.now);
  if (questions.some(({ ask }) => ask === "close")) {
    table.close();
    parentPort?.close();
  }
}

function alone(question: StoreQuestion): StoreAnswer {
  const { number } = question;
  try {
    let found: Found | undefined;
    table.together(() => {
      found = done(question);
    });
    return { number, found };
  } catch (thrown) {
    return { number, failed: messageOf(thrown) };
  }
}

function done(question: StoreQuestion): Found | undefined {
  if (question.ask === "claim") return table.claim(question.request, question);
  if (question.ask === "answer") table.answer(question.request, question.answer, question.expires);
  if (question.ask === "release") table.release(question.request);
  return undefined;
}

function sweep(now: number): void {
  try {
    table.sweep(now);
  } catch {
    // What cannot be removed now has expired all the same: no question finds it.
  }
}
