import type { AgentidEvent, NewEvent } from "../control-api/events.js";
import { type Clock, isoTimes } from "../platform/clock.js";

/** The live events of a trust domain: numbered, kept in a bounded ring for late subscribers, handed to each subscriber in order. */
export interface EventBus {
  emit(event: NewEvent): AgentidEvent;
  /**
   * Calls `listener` with every kept event numbered `since` or later, then with each new one. Returns the unsubscription.
   * A listener that throws is removed: one broken dashboard never stops another.
   */
  subscribe(since: number | undefined, listener: (event: AgentidEvent) => void): () => void;
  /** Number that the next event will get. */
  readonly next: number;
}

const KEPT_EVENTS = 5_000;

export function createEventBus(clock: Clock): EventBus {
  const kept: AgentidEvent[] = [];
  const listeners = new Set<(event: AgentidEvent) => void>();
  let next = 0;
  const timeText = isoTimes();

  return {
    get next() {
      return next;
    },
    emit(newEvent) {
      const event = { ...newEvent, time: timeText(clock.now()), sequence: next } as AgentidEvent;
      next += 1;
      kept.push(event);
      // Trimmed in blocks, so that a busy relay does not shift a long array at every call.
      if (kept.length > KEPT_EVENTS * 1.2) kept.splice(0, kept.length - KEPT_EVENTS);
      for (const listener of listeners) {
        try {
          listener(event);
        } catch {
          listeners.delete(listener);
        }
      }
      return event;
    },
    subscribe(since, listener) {
      if (since !== undefined) for (const event of kept) if (event.sequence >= since) listener(event);
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
