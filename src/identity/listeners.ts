/** Who wants to hear of something. One that throws is reported and does not keep the others from hearing. */
export interface Listeners<Value> {
  /** The returned function unsubscribes. */
  add(listener: (value: Value) => void): () => void;
  notify(value: Value): void;
  readonly size: number;
}

export function createListeners<Value>(onProblem: ((thrown: unknown) => void) | undefined): Listeners<Value> {
  // One entry for each subscription: the same function may subscribe twice, and each unsubscribes for itself.
  const subscriptions = new Set<{ readonly listener: (value: Value) => void }>();
  return {
    add(listener) {
      const subscription = { listener };
      subscriptions.add(subscription);
      return () => subscriptions.delete(subscription);
    },
    notify(value) {
      for (const { listener } of [...subscriptions]) {
        try {
          listener(value);
        } catch (thrown) {
          onProblem?.(thrown);
        }
      }
    },
    get size() {
      return subscriptions.size;
    },
  };
}
