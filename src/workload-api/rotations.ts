import type { SpiffeId } from "../spiffe/spiffe-id.js";

/** The rotations of whatever identities a caller has at the moment. */
export interface FollowedRotations {
  /** From now on follow these; identities that the caller lost are no longer followed. */
  follow(ids: readonly SpiffeId[]): void;
  /** Calls `rotated` after each rotation of a followed identity; the returned function ends it all. */
  subscribe(rotated: () => void): () => void;
}

/** Follows rotations, as `onRotation` tells of them, of a set of identities that changes with the caller's entitlement. */
export function followRotations(onRotation: (id: SpiffeId, rotated: () => void) => () => void): FollowedRotations {
  const followed = new Map<string, () => void>();
  let notify: (() => void) | undefined;

  return {
    follow(ids) {
      if (notify === undefined) return;
      const wanted = new Map(ids.map((id) => [id.toString(), id]));
      for (const [id, unsubscribe] of followed) {
        if (wanted.has(id)) continue;
        unsubscribe();
        followed.delete(id);
      }
      for (const [text, id] of wanted) {
        if (!followed.has(text)) followed.set(text, onRotation(id, notify));
      }
    },
    subscribe(rotated) {
      notify = rotated;
      return () => {
        notify = undefined;
        for (const unsubscribe of followed.values()) unsubscribe();
        followed.clear();
      };
    },
  };
}
