import { once } from "node:events";
import type { ControlClient } from "../client/control-client.js";
import { logLine } from "./log-line.js";

export { logLine } from "./log-line.js";

export interface LogStreamOptions {
  readonly client: ControlClient;
  readonly stdout: NodeJS.WritableStream;
  /** NDJSON: each event as the daemon gave it. */
  readonly json: boolean;
  readonly endsWithDaemon: boolean;
  /** Ends the stream. */
  readonly signal: AbortSignal;
}

/**
 * Writes one line an event: the dashboard for pipes, files and scripts. Starts with the events that the daemon still
 * holds, goes on through restarts of the daemon, ends with `signal` or when nobody reads any more.
 */
export async function streamLog(options: LogStreamOptions): Promise<"quit" | "daemon-gone"> {
  const { client, stdout, json, endsWithDaemon } = options;
  const closed = new AbortController();
  stdout.once("error", () => closed.abort());
  const signal = AbortSignal.any([options.signal, closed.signal]);
  let toldLost = false;
  for await (const item of client.follow({ since: 0, signal })) {
    if (item.kind === "event") {
      const text = json ? JSON.stringify(item.event) : logLine(item.event);
      // A slow reader slows the reading here, never the daemon, which cuts off whoever is too slow for it.
      if (!stdout.write(`${text}\n`)) await drained(stdout, signal);
      continue;
    }
    if (item.kind === "lost" && endsWithDaemon) return "daemon-gone";
    // Said once, not at every attempt; the machine-readable stream carries events only.
    if (item.kind === "lost" && !toldLost && !json) stdout.write("-- daemon is gone, trying again\n");
    if (item.kind === "connected" && toldLost && !json) stdout.write("-- daemon is back\n");
    toldLost = item.kind === "lost";
  }
  return "quit";
}

async function drained(stdout: NodeJS.WritableStream, signal: AbortSignal): Promise<void> {
  await once(stdout, "drain", { signal }).catch(() => undefined);
}
