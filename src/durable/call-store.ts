import { existsSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { CodedError, messageOf } from "../coded-error.js";
import type { Clock } from "../platform/clock.js";
import type { Found, KeptAnswer, KeyedRequest } from "./call-table.js";
import type { StoreAnswer, StoreTask } from "./store-messages.js";

/**
 * What requests with a key were answered, in a SQLite file that a thread of its own writes. What a promise here resolves for is synced to the disk. All
 * reject with CodedError `durable-store` where that cannot be done.
 */
export interface CallStore {
  /** Looks the request up, and writes down the intent to send it where nothing is known of it. Who may send it is the asker's to keep apart until it has ended. */
  claim(request: KeyedRequest, options: { again: boolean }): Promise<Found>;
  /** Keeps an answer; undefined: only that there was one. */
  answer(request: KeyedRequest, answer: KeptAnswer | undefined): Promise<void>;
  /** Forgets a request that was not sent. */
  release(request: KeyedRequest): Promise<void>;
  /** Ends the thread. */
  close(): Promise<void>;
}

export interface CallStoreOptions {
  /** Absolute; undefined keeps everything in memory. */
  readonly path: string | undefined;
  readonly maxBytes: number;
  /** How long a key is known. */
  readonly keepMs: () => number;
  readonly clock: Clock;
  /** Other than the built program's. */
  readonly thread?: { readonly entry: URL; readonly execArgv: readonly string[] };
}

const SWEEP_MS = 10 * 60_000;
/** A start must not wait for what was left by the last run. */
const FIRST_SWEEP_MS = 30_000;
/** After it could not be opened. */
const RETRY_MS = 1_000;
/** Until Node 24 its SQLite is called experimental; what it does here is tested on each. */
const QUIET = "--disable-warning=ExperimentalWarning";

interface Thread {
  ask(task: StoreTask): Promise<Found | undefined>;
  end(): Promise<void>;
}

/** Nothing is opened, and no thread runs, before the first key; but what an earlier run left is swept. */
export function createCallStore(options: CallStoreOptions): CallStore {
  const { clock, path } = options;
  let opening: Promise<Thread> | undefined;
  let failed: { readonly why: unknown; readonly at: number } | undefined;
  let closed = false;
  let cancelSweep = path !== undefined && existsSync(path) ? clock.after(FIRST_SWEEP_MS, sweep) : () => undefined;

  function thread(): Promise<Thread> {
    if (closed) return Promise.reject(new Error("it is closed"));
    if (failed !== undefined && Math.abs(clock.now() - failed.at) < RETRY_MS) return Promise.reject(failed.why);
    if (opening === undefined) {
      const started = startThread(options, () => {
        if (opening === started) opening = undefined;
      });
      opening = started;
      started.then(sweepLater, (why: unknown) => {
        failed = { why, at: clock.now() };
        if (opening === started) opening = undefined;
      });
    }
    return opening;
  }

  function sweepLater(): void {
    cancelSweep();
    if (!closed) cancelSweep = clock.after(SWEEP_MS, sweep);
  }

  function sweep(): void {
    ask({ ask: "sweep", now: clock.now() }).then(sweepLater, sweepLater);
  }

  async function ask(task: StoreTask): Promise<Found | undefined> {
    try {
      return await (await thread()).ask(task);
    } catch (cause) {
      const where = path === undefined ? "" : ` ${path}`;
      throw new CodedError("durable-store", `the store of answers${where} cannot be used: ${messageOf(cause)}`, {
        cause,
      });
    }
  }

  const expires = () => clock.now() + options.keepMs();
  return {
    async claim(request, { again }) {
      const found = await ask({ ask: "claim", request, now: clock.now(), expires: expires(), again });
      if (found === undefined) throw new CodedError("durable-store", "the store of answers has no answer");
      return found;
    },
    async answer(request, answer) {
      await ask({ ask: "answer", request, answer, expires: expires() });
    },
    async release(request) {
      await ask({ ask: "release", request });
    },
    async close() {
      closed = true;
      cancelSweep();
      const running = await opening?.catch(() => undefined);
      await running?.end();
    },
  };
}

/** Resolves when the file is open. `ended` is called when the thread is gone, for whatever reason. */
function startThread({ path, maxBytes, thread }: CallStoreOptions, ended: () => void): Promise<Thread> {
  const worker = new Worker(thread?.entry ?? new URL("../durable/store-worker.js", import.meta.url), {
    execArgv: [QUIET, ...(thread?.execArgv ?? [])],
    // Nothing of the environment is of use to it.
    env: {},
    workerData: { path, maxBytes },
  });
  // What it has under way is waited for by name; the process need not stay for it.
  worker.unref();
  const waiting = new Map<number, { resolve: (found: Found | undefined) => void; reject: (why: Error) => void }>();
  let number = 0;
  let why: Error | undefined;
  const exited = new Promise<void>((resolve) => worker.once("exit", () => resolve()));

  const started: Thread = {
    ask: (task) =>
      new Promise((resolve, reject) => {
        if (why !== undefined) return reject(why);
        number += 1;
        waiting.set(number, { resolve, reject });
        worker.postMessage({ ...task, number });
      }),
    async end() {
      if (why === undefined) worker.postMessage({ ask: "close", number: 0 });
      await exited;
    },
  };
  return new Promise((resolve, reject) => {
    const over = (error: Error) => {
      why ??= error;
      ended();
      reject(why);
      for (const one of waiting.values()) one.reject(why);
      waiting.clear();
    };
    worker.on("error", (thrown) => over(thrown instanceof Error ? thrown : new Error(messageOf(thrown))));
    worker.once("exit", () => over(new Error("its thread has ended")));
    worker.on("message", (message: StoreAnswer | "ready") => {
      if (message === "ready") return resolve(started);
      const one = waiting.get(message.number);
      waiting.delete(message.number);
      if (message.failed === undefined) one?.resolve(message.found);
      else one?.reject(new Error(message.failed));
    });
  });
}
