import { z } from "zod";
import { CodedError } from "../coded-error.js";
import { type AgentidEvent, agentidEvent } from "../control-api/events.js";
import { type RouteName, routes } from "../control-api/routes.js";
import { connectionError, parseJson, readText, sendControlRequest } from "./control-connection.js";
import { type FollowItem, type FollowOptions, followEvents } from "./follow-events.js";
import { ndjsonLines } from "./ndjson.js";

/** The routes that answer once; `events` streams and has a method of its own. */
type CallName = Exclude<RouteName, "events">;
type CallInput<Name extends CallName> = z.input<(typeof routes)[Name]["input"]>;
type CallOutput<Name extends CallName> = z.output<(typeof routes)[Name]["output"]>;

interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Default 30,000. */
  readonly timeoutMs?: number;
}

interface EventsOptions {
  /** Events numbered `since` or later that the daemon still holds come first; 0 is all of them, absent is only new ones. */
  readonly since?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ControlClient {
  readonly socketPath: string;
  /**
   * Calls one route and resolves with its validated answer.
   *
   * @throws CodedError `daemon-not-running`, `control-not-permitted`, `control-connection-lost`, `control-timeout`,
   * `control-answer-invalid`, or the code of the daemon's problem document (its `hint` comes along)
   */
  call<Name extends CallName>(name: Name, input: CallInput<Name>, options?: CallOptions): Promise<CallOutput<Name>>;
  /**
   * The event stream until the daemon or `signal` ends it. An event of a kind that this version does not know is left
   * out, so that a newer daemon can be watched.
   *
   * @throws CodedError as `call`
   */
  events(options?: EventsOptions): AsyncIterable<AgentidEvent>;
  /** The event stream across daemon restarts: reconnects with back-off until `signal` ends it, and never throws. */
  follow(options: FollowOptions): AsyncIterable<FollowItem>;
}

/** A client of the control API on the Unix socket at `socketPath`. It holds no connection between calls. */
export function createControlClient(socketPath: string): ControlClient {
  const client: ControlClient = {
    socketPath,
    call: (name, input, options = {}) => callRoute(socketPath, name, input, options),
    events: (options = {}) => streamEvents(socketPath, options),
    follow: (options) => followEvents(client, options),
  };
  return client;
}

async function callRoute<Name extends CallName>(
  socketPath: string,
  name: Name,
  input: CallInput<Name>,
  options: CallOptions,
): Promise<CallOutput<Name>> {
  const route = routes[name];
  const timeoutMs = options.timeoutMs ?? 30_000;
  const timeout = AbortSignal.timeout(timeoutMs);
  const signal = options.signal === undefined ? timeout : AbortSignal.any([options.signal, timeout]);
  try {
    const response = await sendControlRequest({
      socketPath,
      method: route.method,
      path: route.path,
      input: route.input.parse(input),
      signal,
    });
    const text = await readText(response);
    const answer = route.output.safeParse(text === "" ? {} : parseJson(text));
    if (!answer.success) throw answerError(name, answer.error);
    return answer.data as CallOutput<Name>;
  } catch (thrown) {
    if (!timeout.aborted) throw thrown;
    throw new CodedError("control-timeout", `the daemon did not answer \`${name}\` within ${timeoutMs / 1000} s`, {
      cause: thrown,
    });
  }
}

async function* streamEvents(socketPath: string, options: EventsOptions): AsyncGenerator<AgentidEvent> {
  const response = await sendControlRequest({
    socketPath,
    method: routes.events.method,
    path: routes.events.path,
    input: { since: options.since },
    signal: options.signal,
  });
  try {
    for await (const line of ndjsonLines(response)) {
      const event = parseEvent(line);
      if (event !== undefined) yield event;
    }
  } catch (thrown) {
    if (options.signal?.aborted === true) return;
    throw thrown instanceof CodedError ? thrown : connectionError(socketPath, thrown);
  } finally {
    response.destroy();
  }
}

const knownEvents: ReadonlySet<string> = new Set(agentidEvent.options.map((option) => option.shape.event.value));
const anyEvent = z.object({ event: z.string() });

function parseEvent(line: string): AgentidEvent | undefined {
  const value = parseJson(line);
  const parsed = agentidEvent.safeParse(value);
  if (parsed.success) return parsed.data;
  const named = anyEvent.safeParse(value);
  if (named.success && !knownEvents.has(named.data.event)) return undefined;
  throw answerError("events", parsed.error);
}

function answerError(route: RouteName, error: z.ZodError): CodedError {
  const first = error.issues[0];
  const where = first === undefined || first.path.length === 0 ? "" : ` at ${first.path.join(".")}`;
  return new CodedError("control-answer-invalid", `the answer to \`${route}\` is not as agreed${where}`, {
    hint: "the daemon may be of another version: stop it with `agentid down` and start it again",
    cause: error,
  });
}
