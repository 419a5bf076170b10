import type { ControlClient } from "../client/control-client.js";
import type { AgentidEvent } from "../control-api/events.js";
import type { Message } from "./model.js";

/** Events of this long go into the state together: one new state and one drawing for all of them. */
const BATCH_MS = 100;
/** The status is asked for again at most this often, and only after events. */
const STATUS_MS = 2_000;

/**
 * Sends what the daemon tells into the dashboard until `signal` ends it: events in batches, connection changes, and
 * from time to time the status, which corrects what events alone cannot tell (processes, counts).
 */
export async function feedFromDaemon(
  client: ControlClient,
  send: (message: Message) => void,
  signal: AbortSignal,
): Promise<void> {
  let batch: AgentidEvent[] = [];
  let batchTimer: NodeJS.Timeout | undefined;
  let statusTimer: NodeJS.Timeout | undefined;

  function flush(): void {
    clearTimeout(batchTimer);
    batchTimer = undefined;
    if (batch.length === 0) return;
    const events = batch;
    batch = [];
    send({ is: "events", events });
    statusTimer ??= setTimeout(refreshStatus, STATUS_MS);
  }

  function refreshStatus(): void {
    client
      .call("status", {}, { signal })
      .then((status) => {
        flush();
        send({ is: "status", status });
      })
      // The event stream notices by itself that the daemon is gone, and says so.
      .catch(() => undefined)
      .finally(() => {
        statusTimer = undefined;
      });
  }

  try {
    for await (const item of client.follow({ since: 0, signal })) {
      if (item.kind === "event") {
        batch.push(item.event);
        batchTimer ??= setTimeout(flush, BATCH_MS);
        continue;
      }
      flush();
      if (item.kind === "connected") send({ is: "connected", status: item.status, restarted: item.restarted });
      else send({ is: "lost", reason: item.reason, retryInMs: item.retryInMs });
    }
  } finally {
    clearTimeout(batchTimer);
    clearTimeout(statusTimer);
  }
}
