import { mkdtempSync, rmSync } from "node:fs";
import { request as httpRequest, type IncomingMessage, type RequestListener } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { IdentityConfig } from "../../src/config/config.js";
import { type CallStore, createCallStore } from "../../src/durable/call-store.js";
import { type Clock, systemClock } from "../../src/platform/clock.js";
import { createDurableCalls } from "../../src/relay/durable-calls.js";
import type { RunningService } from "../../src/relay/running-service.js";
import { runRelay, runUpstream, testAgent } from "./running-relay.js";

/** For what a busy machine may take its time with. */
export const PATIENT = { timeout: 20_000 };

/** The thread of the store, from the sources. */
export const storeThread = {
  entry: new URL("../../src/durable/store-worker.ts", import.meta.url),
  execArgv: ["--import", new URL("../source-hooks.ts", import.meta.url).href],
};

export function storeFile(): { readonly path: string; remove(): void } {
  const directory = mkdtempSync(join(tmpdir(), "agentid-calls-"));
  return { path: join(directory, "calls.sqlite"), remove: () => rmSync(directory, { recursive: true, force: true }) };
}

export interface DurableRelayOptions {
  readonly protocol?: "http" | "mcp";
  readonly answer: RequestListener;
  readonly rules?: string;
  readonly path?: string;
  readonly clock?: Clock;
  readonly identities?: readonly IdentityConfig[];
  readonly service?: Partial<RunningService>;
  readonly withoutStore?: boolean;
  /** The store with something changed. */
  readonly store?: (store: CallStore) => CallStore;
}

export const RULES = "rules:\n  - { name: all, allow: { from: agents/*, to: orders } }\n";

/** A relay with a store before one service, `orders`. */
export async function runDurableRelay(options: DurableRelayOptions) {
  const clock = options.clock ?? systemClock;
  const orders = await runUpstream("orders", options.protocol ?? "http", options.answer);
  const store = createCallStore({
    path: options.path,
    maxBytes: 8 * 1024 * 1024,
    keepMs: () => 86_400_000,
    clock,
    thread: storeThread,
  });
  const problems: string[] = [];
  const durable = createDurableCalls(options.store?.(store) ?? store, (message) => problems.push(message));
  const running = await runRelay({
    services: [{ ...orders.service, ...options.service }],
    identities: [...(options.identities ?? [testAgent])],
    rules: options.rules ?? RULES,
    clock,
    change: (parts) => (options.withoutStore === true ? parts : { ...parts, durable }),
  });
  return {
    ...{ orders, running, store, problems },
    url: new URL(running.urlOf("orders")),
    /** What was recorded of the calls that were allowed, in order. */
    outcomes: () => running.record.entries.filter(({ kind }) => kind === "call").map(({ fields }) => fields),
    verdicts: () =>
      running.record.entries.filter(({ kind }) => kind === "decision").map(({ fields }) => fields.verdict),
    async close() {
      await running.close();
      await store.close();
      orders.close();
    },
  };
}

export type DurableRelay = Awaited<ReturnType<typeof runDurableRelay>>;

export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

export interface Call {
  readonly key?: string;
  readonly method?: string;
  readonly path?: string;
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** One request on a connection of its own; `body` undefined: none. */
export function send(base: URL, { key, method = "POST", path = "/v1/orders", body, headers = {} }: Call) {
  const request = httpRequest(new URL(path, base), {
    method,
    agent: false,
    headers: {
      ...headers,
      // Node's client frames the body of a DELETE only by a length that it is given.
      ...(body === undefined ? {} : { "Content-Length": Buffer.byteLength(body) }),
      ...(key === undefined ? {} : { "Idempotency-Key": key }),
    },
  });
  let text = "";
  const answer = new Promise<Answer>((resolve, reject) => {
    request.once("error", reject);
    request.once("response", (response) => {
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.once("error", reject);
      response.once("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
    });
  });
  // Some are cut on purpose, before anybody waits.
  answer.catch(() => undefined);
  request.end(body);
  return { request, answer, received: () => text };
}

export const ask = (base: URL, call: Call): Promise<Answer> => send(base, call).answer;

/** The code in a problem. */
export const codeOf = ({ body }: Answer): unknown => (JSON.parse(body) as { code?: unknown }).code;

/** A request listener that holds every request until it is told to answer. */
export function held() {
  const arrived: { request: IncomingMessage; body: string; response: Parameters<RequestListener>[1] }[] = [];
  let wake: () => void = () => undefined;
  const listener: RequestListener = (request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (chunk: string) => {
      body += chunk;
    });
    request.on("end", () => {
      arrived.push({ request, body, response });
      wake();
    });
  };
  return {
    listener,
    arrived,
    /** The request at `index`, once it is here. */
    async at(index: number) {
      while (arrived.length <= index) await new Promise<void>((resolve) => (wake = resolve));
      const one = arrived[index];
      if (one === undefined) throw new Error("it has not arrived");
      return one;
    },
  };
}
