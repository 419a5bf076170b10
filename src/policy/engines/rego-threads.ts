import { createHash } from "node:crypto";
import { Worker } from "node:worker_threads";
import { CodedError, messageOf } from "../../coded-error.js";
import { FairQueue } from "./fair-queue.js";
import type { RegoAnswer, RegoQuestion, RegoThreadData } from "./rego-thread.js";

/** Evaluates one compiled policy off the event loop. */
export interface RegoThreads {
  /**
   * The entrypoint's value as JSON, or undefined. Rejects with CodedError `engine-failed` for what the policy throws, `engine-timeout` for what takes
   * too long, `engine-busy` where too many wait. `owner` is who asks: what one of them makes long, the others do not wait for.
   */
  evaluate(question: RegoQuestion, owner: string): Promise<string | undefined>;
  /** Starts a thread now. Rejects with what keeps the policy from running. */
  check(): Promise<void>;
}

/** The second goes on where one decision is slow. */
const MAX_THREADS = 2;
/** A question may hold a megabyte. */
const MAX_WAITING = { each: 100, all: 1_000 };
/** Starting a thread and compiling the policy in it is no part of a decision. */
const START_MILLIS = 10_000;
/** A thread that nobody has asked anything for so long ends; the next question starts another. */
const IDLE_MILLIS = 5 * 60_000;
const MEBIBYTES = { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 16, stackSizeMb: 4 };

interface Waiting {
  readonly question: RegoQuestion;
  resolve(value: string | undefined): void;
  reject(error: CodedError): void;
}

const known = new Map<string, WeakRef<RegoThreads>>();

/** The threads of this policy: a project that is loaded again with the same one goes on with them. */
export function regoThreads(data: RegoThreadData, timeoutMillis: number): RegoThreads {
  const { wasm, entrypoint, data: json } = data;
  const key = createHash("sha256")
    .update(wasm)
    .update(JSON.stringify([entrypoint, json, timeoutMillis]))
    .digest("hex");
  const there = known.get(key)?.deref();
  if (there !== undefined) return there;
  for (const [each, threads] of known) if (threads.deref() === undefined) known.delete(each);
  const made = createRegoThreads(data, timeoutMillis);
  known.set(key, new WeakRef(made));
  return made;
}

function createRegoThreads(data: RegoThreadData, timeoutMillis: number): RegoThreads {
  const threads = new Set<Thread>();
  const waiting = new FairQueue<Waiting>(MAX_WAITING);

  /** Gives what waits to threads that are free, and starts one more where there is none. */
  const serve = (): void => {
    for (const thread of threads) {
      if (!thread.free) continue;
      const next = waiting.next();
      if (next === undefined) return;
      thread.ask(next);
    }
    const starting = [...threads].filter((thread) => thread.starting).length;
    if (waiting.length > starting && threads.size < MAX_THREADS) start();
  };

  const start = (): Thread => {
    const thread = new Thread(data, timeoutMillis, {
      onFree: serve,
      onEnd: (error) => {
        threads.delete(thread);
        // Nobody else will start for those who wait, if a start fails.
        if (error !== undefined && threads.size === 0) for (const each of waiting.drain()) each.reject(error);
        if (waiting.length > 0) serve();
      },
    });
    threads.add(thread);
    return thread;
  };

  return {
    evaluate(question, owner) {
      return new Promise((resolve, reject) => {
        if (waiting.add(owner, { question, resolve, reject })) serve();
        else reject(new CodedError("engine-busy", "too many decisions wait for the policy"));
      });
    },
    async check() {
      const thread = [...threads][0] ?? start();
      await thread.ready;
    },
  };
}

interface ThreadEvents {
  onFree(): void;
  /** `error`: it never started. */
  onEnd(error: CodedError | undefined): void;
}

type ThreadState =
  | { readonly kind: "starting" }
  | { readonly kind: "free" }
  | { readonly kind: "busy"; readonly with: Waiting }
  | { readonly kind: "ended" };

class Thread {
  readonly ready: Promise<void>;
  readonly #worker: Worker;
  readonly #events: ThreadEvents;
  readonly #timeoutMillis: number;
  #state: ThreadState = { kind: "starting" };
  #timer: NodeJS.Timeout;
  #started: { resolve(): void; reject(error: CodedError): void };

  constructor(data: RegoThreadData, timeoutMillis: number, events: ThreadEvents) {
    this.#events = events;
    this.#timeoutMillis = timeoutMillis;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    // Nobody may be waiting for the start itself.
    promise.catch(() => undefined);
    this.ready = promise;
    this.#started = { resolve, reject };
    // What a policy prints is for nobody, and a policy has no business with the environment.
    this.#worker = new Worker(program(), {
      workerData: data,
      stdout: true,
      stderr: true,
      env: {},
      resourceLimits: MEBIBYTES,
    });
    this.#worker.on("message", (answer: RegoAnswer) => this.#heard(answer));
    this.#worker.on("error", (error) => this.#end(`the policy's thread failed: ${messageOf(error)}`));
    this.#worker.on("exit", () => this.#end("the policy's thread ended"));
    this.#timer = setTimeout(() => this.#end("the policy's thread did not start"), START_MILLIS);
  }

  get free(): boolean {
    return this.#state.kind === "free";
  }

  get starting(): boolean {
    return this.#state.kind === "starting";
  }

  ask(waiting: Waiting): void {
    clearTimeout(this.#timer);
    this.#state = { kind: "busy", with: waiting };
    this.#worker.ref();
    this.#timer = setTimeout(() => {
      this.#state = { kind: "ended" };
      waiting.reject(new CodedError("engine-timeout", `the policy took longer than ${this.#timeoutMillis} ms`));
      this.#end("");
    }, this.#timeoutMillis);
    this.#worker.postMessage(waiting.question);
  }

  #heard(answer: RegoAnswer): void {
    const state = this.#state;
    if (state.kind === "starting" && answer.kind === "ready") {
      this.#started.resolve();
      this.#rest();
    } else if (state.kind === "starting") {
      this.#end(answer.kind === "failed" ? answer.message : "the policy's thread answers before it is asked");
    } else if (state.kind === "busy") {
      this.#rest(() => {
        if (answer.kind === "value") state.with.resolve(answer.json);
        else
          state.with.reject(new CodedError("engine-failed", answer.kind === "failed" ? answer.message : "no answer"));
      });
    }
  }

  #rest(before?: () => void): void {
    clearTimeout(this.#timer);
    this.#state = { kind: "free" };
    this.#worker.unref();
    this.#timer = setTimeout(() => this.#end(""), IDLE_MILLIS);
    this.#timer.unref();
    before?.();
    this.#events.onFree();
  }

  #end(message: string): void {
    clearTimeout(this.#timer);
    const state = this.#state;
    const first = this.#ended === false;
    this.#ended = true;
    this.#state = { kind: "ended" };
    if (!first) return;
    const error = new CodedError("engine-failed", message);
    if (state.kind === "busy") state.with.reject(error);
    if (state.kind === "starting") this.#started.reject(error);
    void this.#worker.terminate();
    this.#events.onEnd(state.kind === "starting" ? error : undefined);
  }

  #ended = false;
}

/** Beside this file in the sources; of the joined program a file of its own. */
function program(): URL {
  const here = import.meta.url;
  return new URL(here.endsWith(".ts") ? "./rego-thread.ts" : "../policy/engines/rego-thread.js", here);
}
