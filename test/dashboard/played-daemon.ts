import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CodedError } from "../../src/coded-error.js";
import type { AgentidEvent, NewEvent } from "../../src/control-api/events.js";
import { routes, type Status } from "../../src/control-api/routes.js";
import { type ControlHandlers, createControlServer } from "../../src/daemon/control-server.js";
import { createEventBus, type EventBus } from "../../src/daemon/event-bus.js";
import { systemClock } from "../../src/platform/clock.js";
import { numbered, trustDomainStatus, waitingReload, whyDenied } from "./recorded-events.js";

type ReloadEvent = Extract<AgentidEvent, { event: "reload" }>;

export interface PlayedDaemon {
  readonly socketPath: string;
  emit(event: NewEvent): AgentidEvent;
  setStatus(changes: Partial<Status>): void;
  /** Each accepted or refused reload: `accept 3`. */
  readonly answers: readonly string[];
  /** Closes the socket; `start` listens on it again, as another process would. */
  stop(): Promise<void>;
  start(pid?: number): Promise<void>;
  remove(): Promise<void>;
}

const notPlayed = (): never => {
  throw new CodedError("not-found", "not played here");
};
const everyRouteNotPlayed = Object.fromEntries(
  Object.keys(routes).map((name) => [name, notPlayed]),
) as unknown as ControlHandlers;

/** The project's own control server and event bus on a real Unix socket; only what it says is written by the test. */
export async function playDaemon(): Promise<PlayedDaemon> {
  const directory = mkdtempSync(join(tmpdir(), "agentid-played-"));
  const socketPath = join(directory, "control.sock");
  const answers: string[] = [];
  let bus: EventBus = createEventBus(systemClock);
  let changes: Partial<Status> = {};
  let pendingReload: ReloadEvent | undefined;
  const problems: Status["problems"] = [];
  let pid = 4000;
  const startedAt = new Date().toISOString();
  let server = newServer();

  /** What the daemon's status says of the events that it told. */
  function remember(event: AgentidEvent): void {
    if (event.event === "reload") pendingReload = event.outcome === "waiting" ? event : undefined;
    if (event.event === "problem") problems.push(event);
  }

  function newServer(): ReturnType<typeof createControlServer> {
    const answerReload =
      (word: string, outcome: "applied" | "refused") => (input: { sequence?: number | undefined }) => {
        answers.push(`${word} ${input.sequence}`);
        pendingReload = undefined;
        return bus.emit(waitingReload({ outcome })) as ReloadEvent;
      };
    return createControlServer({
      handlers: {
        ...everyRouteNotPlayed,
        status: () =>
          trustDomainStatus(Date.now(), { pid, startedAt, nextEvent: bus.next, pendingReload, problems, ...changes }),
        explain: ({ decision }) => {
          if (decision === "unknown000000000") throw new CodedError("decision-unknown", "no such decision");
          return whyDenied(decision);
        },
        acceptReload: answerReload("accept", "applied"),
        refuseReload: answerReload("refuse", "refused"),
      },
      subscribe: (since, listener) => bus.subscribe(since, listener),
      admit: () => "administrator",
    });
  }

  await server.listen(socketPath);
  return {
    socketPath,
    answers,
    emit: (event) => {
      const emitted = bus.emit(event);
      const checked = numbered(event, emitted.sequence, emitted.time);
      remember(checked);
      return checked;
    },
    setStatus: (next) => {
      changes = next;
    },
    stop: () => server.close(),
    async start(newPid) {
      if (newPid !== undefined) {
        pid = newPid;
        bus = createEventBus(systemClock);
      }
      server = newServer();
      await server.listen(socketPath);
    },
    async remove() {
      await server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
