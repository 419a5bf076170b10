import { messageOf } from "../coded-error.js";
import type { CallStore } from "../durable/call-store.js";
import type { Found, KeptAnswer, KeyedRequest } from "../durable/call-table.js";
import { Refusal } from "../http/refusal.js";
import type { DurableRequest } from "./durable-request.js";

/** The calls with a key that run now, and the store of those that ran. */
export interface DurableCalls {
  /** The call that runs now under this scope. */
  runningAs(scope: string): RunningCall | undefined;
  /**
   * Takes the scope and looks the request up. Where it is the asker's to send, its `call` runs until it has ended; else nothing runs.
   * Throws Refusal `in-flight` (409), `key-reused` (422), `durable-busy`, `durable-store` (503).
   */
  begin(request: DurableRequest): Promise<Begun>;
}

export type Begun =
  | { readonly found: "nothing"; readonly call: RunningCall }
  | Exclude<Found, { readonly found: "nothing" | "other-request" | "full" }>;

/** A call under way; it ends once. */
export interface RunningCall {
  readonly fingerprint: string;
  /** Until the store has said what is known of it: undefined from then on. */
  lookUp: Promise<Begun> | undefined;
  /** Resolves when it has ended. */
  readonly over: Promise<void>;
  /** It was answered; undefined: by an answer that is not kept. Resolves when that is in the store, or cannot be. */
  answered(answer: KeptAnswer | undefined): Promise<void>;
  /** Nothing was sent: the key is free. Resolves when the store knows. */
  unsent(): Promise<void>;
  /** It was sent, and nobody knows what became of it. */
  lost(): void;
}

/** Each may hold a request and an answer in memory, and goes on when its caller is gone. */
const MAX_RUNNING = 512;
const MAX_RUNNING_OF_CALLER = 64;

export function createDurableCalls(store: CallStore, onProblem: (message: string) => void): DurableCalls {
  const running = new Map<string, RunningCall>();
  const ofCallers = new Map<string, number>();

  function run(keyed: KeyedRequest): RunningCall {
    const { scope, caller, fingerprint } = keyed;
    let end: () => void = () => undefined;
    const over = new Promise<void>((resolve) => {
      end = () => {
        running.delete(scope);
        const left = (ofCallers.get(caller) ?? 1) - 1;
        if (left === 0) ofCallers.delete(caller);
        else ofCallers.set(caller, left);
        resolve();
      };
    });
    let ended = false;
    const ending = async (last: () => Promise<void>): Promise<void> => {
      if (ended) return;
      ended = true;
      // What is on the disk says "sent": whoever asks again hears that nobody knows, and nothing runs twice.
      await last().catch((thrown: unknown) => onProblem(messageOf(thrown)));
      end();
    };
    const call: RunningCall = {
      fingerprint,
      lookUp: undefined,
      over,
      answered: (answer) => ending(() => store.answer(keyed, answer)),
      unsent: () => ending(() => store.release(keyed)),
      lost() {
        if (!ended) end();
        ended = true;
      },
    };
    running.set(scope, call);
    ofCallers.set(caller, (ofCallers.get(caller) ?? 0) + 1);
    return call;
  }

  async function lookUp({ keyed, mayRepeat }: DurableRequest, call: RunningCall): Promise<Begun> {
    let found: Found;
    try {
      found = await store.claim(keyed, { again: mayRepeat });
    } catch (cause) {
      call.lost();
      throw new Refusal("durable-store", 503, `a call with a key is not sent: ${messageOf(cause)}`, { cause });
    }
    if (found.found === "nothing") return { found: "nothing", call };
    call.lost();
    if (found.found === "other-request") throw keyReused();
    if (found.found === "full") {
      throw new Refusal("durable-store", 503, "a call with a key is not sent: the store of answers is full");
    }
    return found;
  }

  return {
    runningAs: (scope) => running.get(scope),
    async begin(request) {
      const { scope, caller, fingerprint } = request.keyed;
      for (;;) {
        const other = running.get(scope);
        if (other === undefined) break;
        if (other.lookUp !== undefined) {
          // It may be about another request, or only ask for the answer: what is in the store says it.
          await other.lookUp.catch(() => undefined);
          continue;
        }
        if (other.fingerprint !== fingerprint) throw keyReused();
        throw new Refusal("in-flight", 409, "the first call with this Idempotency-Key is still under way: ask again");
      }
      if (running.size >= MAX_RUNNING || (ofCallers.get(caller) ?? 0) >= MAX_RUNNING_OF_CALLER) {
        throw new Refusal("durable-busy", 503, "too many calls with an Idempotency-Key are under way: ask again");
      }
      const call = run(request.keyed);
      call.lookUp = lookUp(request, call).finally(() => {
        call.lookUp = undefined;
      });
      return call.lookUp;
    },
  };
}

function keyReused(): Refusal {
  return new Refusal(
    "key-reused",
    422,
    "another request was made with this Idempotency-Key: a new request needs a new key",
  );
}
