import { Worker } from "node:worker_threads";
import { messageOf } from "../coded-error.js";
import { nextTurn } from "../platform/turns.js";
import type { ConditionInput, ConditionOutcome } from "./condition.js";
import type { KeysOf } from "./condition-values.js";
import { jsonPieces } from "./json-pieces.js";

export interface ConditionThreadOptions {
  /** The program of the thread. */
  readonly entry: URL;
  /** Node's own options for the thread. */
  readonly execArgv?: readonly string[];
  /** One evaluation may take so long. */
  readonly deadlineMs: number;
}

const MAX_WAITING = 32;
const MAX_WAITING_OF_CALLER = 4;
const MAX_MEMORY_MB = 256;
/** The CEL library keeps every type that it has seen; a new thread has seen none. */
const EVALUATIONS_OF_THREAD = 1_000;
const PIECE_CHARACTERS = 16 * 1024;

interface Waiting {
  readonly source: string;
  readonly input: ConditionInput;
  readonly keysOf: KeysOf;
  readonly answer: (outcome: ConditionOutcome) => void;
}

/**
 * Evaluates conditions whose input is large, one at a time, in a thread that is ended when one takes too long. Callers take turns, and none can
 * have more than a few waiting. An evaluation that is not done is an error, as any that fails.
 */
export class ConditionThread {
  readonly #options: ConditionThreadOptions;
  readonly #waiting: Waiting[] = [];
  #isBusy = false;
  #lastCaller: string | undefined;
  #worker: Worker | undefined;
  #evaluations = 0;

  constructor(options: ConditionThreadOptions) {
    this.#options = options;
  }

  /** Never rejects. `keysOf` knows the keys of large maps already. */
  evaluate(source: string, input: ConditionInput, keysOf: KeysOf = Object.keys): Promise<ConditionOutcome> {
    const ofCaller = this.#waiting.filter((each) => each.input.caller.id === input.caller.id).length;
    if (this.#waiting.length >= MAX_WAITING || ofCaller >= MAX_WAITING_OF_CALLER) {
      return Promise.resolve(failed("too many conditions over large arguments are waiting"));
    }
    return new Promise((answer) => {
      this.#waiting.push({ source, input, keysOf, answer });
      if (!this.#isBusy) void this.#drain();
    });
  }

  /** Ends the thread; it is started again when it is needed. */
  async close(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }

  async #drain(): Promise<void> {
    this.#isBusy = true;
    for (;;) {
      const next = this.#next();
      if (next === undefined) break;
      next.answer(await this.#evaluate(next));
    }
    this.#isBusy = false;
  }

  /** The first that another caller waits for than the last one, else the first. */
  #next(): Waiting | undefined {
    const other = this.#waiting.findIndex(({ input }) => input.caller.id !== this.#lastCaller);
    const [next] = this.#waiting.splice(Math.max(0, other), 1);
    this.#lastCaller = next?.input.caller.id;
    return next;
  }

  async #evaluate({ source, input, keysOf }: Waiting): Promise<ConditionOutcome> {
    try {
      const worker = await this.#start();
      worker.ref();
      for (const text of jsonPieces(input, PIECE_CHARACTERS, keysOf)) {
        worker.postMessage({ text });
        await nextTurn();
      }
      const outcome = await this.#answerOf(worker, source, input.now);
      worker.unref();
      this.#evaluations += 1;
      if (this.#evaluations >= EVALUATIONS_OF_THREAD) await this.close();
      return outcome;
    } catch (thrown) {
      // Not awaited: it ends when the native code that it is in returns, and nobody else should wait for that.
      void this.close();
      const isMemory = (thrown as { code?: unknown }).code === "ERR_WORKER_OUT_OF_MEMORY";
      return failed(isMemory ? `needed more than ${MAX_MEMORY_MB} MiB` : messageOf(thrown));
    }
  }

  #answerOf(worker: Worker, source: string, now: Date): Promise<ConditionOutcome> {
    const { deadlineMs } = this.#options;
    return untilMessage<ConditionOutcome>(worker, deadlineMs, `took longer than ${deadlineMs / 1000} s`, () =>
      worker.postMessage({ source, now: now.getTime() }),
    );
  }

  async #start(): Promise<Worker> {
    if (this.#worker !== undefined) return this.#worker;
    const worker = new Worker(this.#options.entry, {
      execArgv: [...(this.#options.execArgv ?? [])],
      // Nothing of the environment is of use to it.
      env: {},
      resourceLimits: { maxOldGenerationSizeMb: MAX_MEMORY_MB },
    });
    this.#worker = worker;
    this.#evaluations = 0;
    // Whoever waits hears of it; when nobody does, the next evaluation starts another.
    worker.on("error", () => {
      if (this.#worker === worker) this.#worker = undefined;
    });
    await untilMessage(worker, START_DEADLINE_MS, "the thread for conditions did not start", () => undefined);
    return worker;
  }
}

const START_DEADLINE_MS = 10_000;

/** The next message of `worker` after `ask`. Rejects when the worker fails or ends, or with `late` after `deadlineMs`. */
function untilMessage<Message>(worker: Worker, deadlineMs: number, late: string, ask: () => void): Promise<Message> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void): void => {
      clearTimeout(timer);
      worker.off("message", onMessage).off("error", onError).off("exit", onExit);
      act();
    };
    const onMessage = (message: Message): void => settle(() => resolve(message));
    const onError = (error: Error): void => settle(() => reject(error));
    const onExit = (): void => settle(() => reject(new Error("the thread for conditions has ended")));
    const timer = setTimeout(() => settle(() => reject(new Error(late))), deadlineMs);
    worker.on("message", onMessage).on("error", onError).on("exit", onExit);
    ask();
  });
}

function failed(why: string): ConditionOutcome {
  return { outcome: "error", why };
}

const DEADLINE_MS = 2_000;
let shared: ConditionThread | undefined;

/** The thread of this process; started when a condition first needs it. */
export function conditionThread(): ConditionThread {
  // The same place seen from here and from a chunk of the bundle.
  shared ??= new ConditionThread({
    entry: new URL("../policy/condition-worker.js", import.meta.url),
    deadlineMs: DEADLINE_MS,
  });
  return shared;
}

/** Makes `thread` the one of this process. */
export function useConditionThread(thread: ConditionThread): void {
  shared = thread;
}
