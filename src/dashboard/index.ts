import { createControlClient } from "../client/control-client.js";
import { streamLog } from "./log-stream.js";

export interface DashboardOptions {
  /** The daemon's control socket. */
  readonly socketPath: string;
  readonly stdin?: NodeJS.ReadStream;
  readonly stdout?: NodeJS.WriteStream;
  /** A log stream also where there is a terminal. */
  readonly plain?: boolean;
  /** NDJSON, one event a line. */
  readonly json?: boolean;
  /** Ctrl-Z stops the process group. Only where the daemon is not in it. */
  readonly suspendable?: boolean;
  /** The loss of the daemon ends it with `daemon-gone`; without this it waits for the daemon to come back. */
  readonly endsWithDaemon?: boolean;
  /** Ends it, as `q` does. */
  readonly signal?: AbortSignal;
}

/**
 * Shows a running daemon until the user quits: as a screen in a terminal, as lines where there is none (D23).
 * Resolves with `quit`, or with `daemon-gone` where `endsWithDaemon` asks for it; then the terminal is as it was before.
 */
export async function runDashboard(options: DashboardOptions): Promise<"quit" | "daemon-gone"> {
  const client = createControlClient(options.socketPath);
  const stdin = options.stdin ?? process.stdin;
  const stdout = options.stdout ?? process.stdout;
  const ending = new AbortController();
  const stop = (): void => ending.abort();
  const signals = ["SIGTERM", "SIGINT", "SIGHUP"] as const;
  // `on`, not `once`: Ink's own handler ends the process where it finds itself the only one left.
  for (const name of signals) process.on(name, stop);
  options.signal?.addEventListener("abort", stop, { once: true });
  if (options.signal?.aborted === true) stop();
  try {
    const isScreen = stdin.isTTY && stdout.isTTY && process.env.TERM !== "dumb";
    const shared = { client, stdout, endsWithDaemon: options.endsWithDaemon === true, signal: ending.signal };
    if (!isScreen || options.plain === true || options.json === true) {
      return await streamLog({ ...shared, json: options.json === true });
    }
    // React reads this once when it is loaded; its development build takes twice the processor time and memory.
    process.env.NODE_ENV = "production";
    // Loaded only for a screen: a log stream needs neither React nor Ink.
    const { runScreen } = await import("./run-screen.js");
    return await runScreen({ ...shared, stdin, suspendable: options.suspendable === true });
  } finally {
    for (const name of signals) process.off(name, stop);
    options.signal?.removeEventListener("abort", stop);
  }
}
