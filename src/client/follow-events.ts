import { setTimeout as after } from "node:timers/promises";
import { codeOf, messageOf } from "../coded-error.js";
import type { AgentidEvent } from "../control-api/events.js";
import type { Status } from "../control-api/routes.js";
import type { ControlClient } from "./control-client.js";

export interface FollowOptions {
  /** As in `EventsOptions`, for the first connection and for a restarted daemon. */
  readonly since?: number | undefined;
  readonly signal: AbortSignal;
}

export type FollowItem =
  /** The daemon answers; `restarted` when it is another process than the one seen before. */
  | { readonly kind: "connected"; readonly status: Status; readonly restarted: boolean }
  | { readonly kind: "event"; readonly event: AgentidEvent }
  /** It does not, or no longer; the next attempt is in `retryInMs`. Yielded once for each failed attempt. */
  | { readonly kind: "lost"; readonly code: string; readonly reason: string; readonly retryInMs: number };

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 5_000;

/**
 * The event stream across losses of the connection. After a loss it goes on behind the last event it saw; after a
 * restart of the daemon, whose sequence begins anew, it begins again at `since`.
 */
export async function* followEvents(client: ControlClient, options: FollowOptions): AsyncGenerator<FollowItem> {
  const { signal } = options;
  let daemon: string | undefined;
  let lastSequence: number | undefined;
  let delayMs = FIRST_DELAY_MS;
  while (!signal.aborted) {
    let lost: unknown = new Error("the daemon ended the event stream");
    try {
      const status = await client.call("status", {}, { signal });
      const seen = `${status.pid} ${status.startedAt}`;
      const restarted = daemon !== undefined && daemon !== seen;
      if (restarted) lastSequence = undefined;
      daemon = seen;
      yield { kind: "connected", status, restarted };
      for await (const event of client.events({
        since: lastSequence === undefined ? options.since : lastSequence + 1,
        signal,
      })) {
        delayMs = FIRST_DELAY_MS;
        lastSequence = event.sequence;
        yield { kind: "event", event };
      }
    } catch (thrown) {
      lost = thrown;
    }
    if (signal.aborted) return;
    yield { kind: "lost", code: codeOf(lost), reason: messageOf(lost), retryInMs: delayMs };
    // Not the clock of platform/: between two attempts this timer alone keeps the process alive.
    await after(delayMs, undefined, { signal }).catch(() => undefined);
    delayMs = Math.min(delayMs * 2, LONGEST_DELAY_MS);
  }
}
