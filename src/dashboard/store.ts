import { type Effect, type Message, update } from "./model.js";
import type { State } from "./state.js";

/** Holds the state for the views: messages in, a new state and its effects out. */
export interface Store {
  getState(): State;
  send(message: Message): void;
  subscribe(listener: () => void): () => void;
}

export function createStore(initial: State, now: () => number, perform: (effect: Effect) => void): Store {
  let state = initial;
  const listeners = new Set<() => void>();
  return {
    getState: () => state,
    send(message) {
      const next = update(state, message, now());
      state = next.state;
      for (const listener of listeners) listener();
      for (const effect of next.effects) perform(effect);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
