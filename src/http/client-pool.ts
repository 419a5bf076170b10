import type { Socket } from "node:net";
import { CodedError } from "../coded-error.js";
import { OutgoingCall } from "./client-call.js";
import { ClientConnection, type ConnectionOwner, type ReadsInto } from "./client-connection.js";
import type { AnswerHandler, Onward, OutgoingRequest } from "./outgoing-call.js";

/** Connects one socket, which reads into what is given, and calls `settled` once. */
export type Connect = (reads: ReadsInto, settled: (outcome: Socket | Error) => void) => void;

export interface ClientPoolOptions {
  readonly connect: Connect;
  readonly maxConnections: number;
  /** How long an answer may take to begin, after the last of the request went out. */
  readonly answerTimeoutMs: number;
  /** How long a connection stays that nobody uses, where the server does not say how long it keeps it. */
  readonly keepAliveMs: number;
}

/** A server closes what is idle a little earlier than it says, and a request may cross that. */
const BEFORE_HINT_MS = 2_000;
const MAX_HINT_MS = 600_000;
const MAX_SWEEP_MS = 1_000;
/** Servers soon end what was opened and asks nothing. */
const UNUSED_MS = 4_000;

/** Connections to one server, each used again when its answer is complete; beyond `maxConnections` calls wait, first come, first served. */
export class ClientPool implements Onward, ConnectionOwner {
  readonly #options: ClientPoolOptions;
  readonly #connections = new Set<ClientConnection>();
  /** The last one used is the next one used: the others can end. */
  readonly #idle: ClientConnection[] = [];
  readonly #waiting: OutgoingCall[] = [];
  #connecting = 0;
  #sweep: NodeJS.Timeout | undefined;
  #isClosed = false;
  #onEmpty: (() => void) | undefined;

  constructor(options: ClientPoolOptions) {
    this.#options = options;
  }

  dispatch(request: OutgoingRequest, handler: AnswerHandler): void {
    const call = new OutgoingCall(request, handler);
    if (this.#isClosed) {
      call.fail(new CodedError("connection-closed", "there are no connections to there any more"));
      return;
    }
    this.#waiting.push(call);
    this.#goOn();
  }

  /** Lets calls finish, also those that wait, and takes no more. */
  close(): Promise<void> {
    this.#isClosed = true;
    for (const connection of [...this.#connections]) if (!connection.isBusy) connection.destroy();
    return this.#whenEmpty();
  }

  /** Ends all calls at once. */
  destroy(): Promise<void> {
    this.#isClosed = true;
    const reason = new CodedError("connection-closed", "the connections to there were closed");
    const waiting = this.#waiting.splice(0);
    setImmediate(() => {
      for (const call of waiting) call.fail(reason);
    });
    for (const connection of [...this.#connections]) connection.destroy(reason);
    return this.#whenEmpty();
  }

  idle(connection: ClientConnection, keepAliveSeconds: number | undefined): void {
    const hinted = keepAliveSeconds === undefined ? undefined : keepAliveSeconds * 1_000 - BEFORE_HINT_MS;
    this.#keep(connection, hinted === undefined ? this.#options.keepAliveMs : Math.min(hinted, MAX_HINT_MS));
  }

  #keep(connection: ClientConnection, forMs: number): void {
    connection.deadline = performance.now() + forMs;
    this.#putBack(connection);
  }

  /** As it is to be used, or ended, later. */
  #putBack(connection: ClientConnection): void {
    if (this.#isClosed && this.#waiting.length === 0) {
      connection.destroy();
      return;
    }
    this.#idle.push(connection);
    if (this.#waiting.length > 0) this.#goOn();
  }

  closed(connection: ClientConnection): void {
    this.#connections.delete(connection);
    const index = this.#idle.indexOf(connection);
    if (index >= 0) this.#idle.splice(index, 1);
    this.#goOn();
    this.#settle();
  }

  /** Gives calls that wait the connections that are free, and opens more for the rest. */
  #goOn(): void {
    while (this.#waiting.length > 0) {
      const connection = this.#takeIdle();
      if (connection === undefined) break;
      this.#use(connection);
    }
    const most = this.#options.maxConnections - this.#connections.size - this.#connecting;
    for (let more = Math.min(this.#waiting.length - this.#connecting, most); more > 0; more -= 1) this.#connect();
  }

  #use(connection: ClientConnection): void {
    for (let call = this.#waiting.shift(); call !== undefined; call = this.#waiting.shift()) {
      if (call.aborted) continue;
      if (connection.send(call, this.#options.answerTimeoutMs)) return;
    }
    // Nobody wants it any more.
    this.#putBack(connection);
  }

  #takeIdle(): ClientConnection | undefined {
    const now = performance.now();
    for (let connection = this.#idle.pop(); connection !== undefined; connection = this.#idle.pop()) {
      if (connection.isUsable && connection.deadline > now) return connection;
      connection.destroy();
    }
    return undefined;
  }

  #connect(): void {
    this.#connecting += 1;
    const connection = new ClientConnection(this);
    this.#options.connect(connection.readsInto(), (outcome) => {
      this.#connecting -= 1;
      if (!(outcome instanceof Error)) {
        this.#connections.add(connection);
        connection.open(outcome);
        this.#watch();
        if (connection.isUsable) {
          this.#keep(connection, Math.min(UNUSED_MS, this.#options.keepAliveMs));
          return;
        }
      }
      // It was opened for one of them.
      this.#waiting.shift()?.fail(outcome instanceof Error ? outcome : closedAtOnce());
      this.#goOn();
      this.#settle();
    });
  }

  /** Ends what has waited too long. */
  #watch(): void {
    if (this.#sweep !== undefined) return;
    const every = Math.min(
      MAX_SWEEP_MS,
      Math.ceil(Math.min(this.#options.answerTimeoutMs, this.#options.keepAliveMs) / 4),
    );
    this.#sweep = setInterval(() => {
      const now = performance.now();
      for (const connection of [...this.#connections]) {
        if (connection.deadline > now) continue;
        connection.destroy(new CodedError("answer-timeout", "no answer began in time"));
      }
    }, every);
    this.#sweep.unref();
  }

  #whenEmpty(): Promise<void> {
    return new Promise((resolve) => {
      const before = this.#onEmpty;
      this.#onEmpty = () => {
        before?.();
        resolve();
      };
      this.#settle();
    });
  }

  #settle(): void {
    // A connection that opens when nobody waits any more is closed again.
    if (this.#connections.size > 0 || (this.#connecting > 0 && this.#waiting.length > 0)) return;
    clearInterval(this.#sweep);
    this.#sweep = undefined;
    this.#onEmpty?.();
    this.#onEmpty = undefined;
  }
}

function closedAtOnce(): CodedError {
  return new CodedError("ECONNRESET", "the connection was closed as it opened");
}
