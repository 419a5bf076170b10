import { type Instance, render, type SuspendTerminal } from "ink";
import { createElement } from "react";
import type { ControlClient } from "../client/control-client.js";
import { messageOf } from "../coded-error.js";
import { App } from "./app.js";
import { feedFromDaemon } from "./daemon-feed.js";
import type { Effect, Message } from "./model.js";
import { initialState } from "./state.js";
import { createStore, type Store } from "./store.js";

export interface ScreenOptions {
  readonly client: ControlClient;
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  /** Ctrl-Z stops the process group. */
  readonly suspendable: boolean;
  /** The loss of the daemon ends the screen instead of waiting for it to come back. */
  readonly endsWithDaemon: boolean;
  /** Ends it, as `q` does. */
  readonly signal: AbortSignal;
}

/** More frames than this nobody reads; the terminal and the processor are left to the agents. */
const MAX_FPS = 10;

/** Draws the dashboard on the alternate screen until it ends, and gives the terminal back as it was. */
export async function runScreen(options: ScreenOptions): Promise<"quit" | "daemon-gone"> {
  const { client, stdin, stdout, signal } = options;
  const ending = new AbortController();
  let outcome: "quit" | "daemon-gone" = "quit";
  let suspendTerminal: SuspendTerminal | undefined;
  const size = { columns: stdout.columns, rows: stdout.rows };
  const store: Store = createStore(initialState(Date.now(), size), Date.now, perform);

  function perform(effect: Effect): void {
    switch (effect.do) {
      case "quit":
        ending.abort();
        break;
      case "suspend":
        if (options.suspendable) suspend();
        else store.send({ is: "notice", text: "Ctrl-Z is off here: q quits" });
        break;
      case "copy":
        stdout.write(clipboardSequence(effect.text));
        break;
      case "explain":
        explain(effect.decision);
        break;
      case "answerReload":
        answerReload(effect.accept, effect.sequence);
        break;
    }
  }

  function explain(decision: string): void {
    client.call("explain", { decision }, { signal: ending.signal }).then(
      (explanation) => store.send({ is: "explained", decision, answer: { explanation } }),
      (thrown: unknown) => store.send({ is: "explained", decision, answer: { error: messageOf(thrown) } }),
    );
  }

  function answerReload(accept: boolean, sequence: number): void {
    client.call(accept ? "acceptReload" : "refuseReload", { sequence }, { signal: ending.signal }).then(
      (reload) => store.send({ is: "notice", text: `reload ${reload.outcome}` }),
      (thrown: unknown) => store.send({ is: "notice", text: messageOf(thrown) }),
    );
  }

  function suspend(): void {
    suspendTerminal?.(stopProcessGroup).catch((thrown: unknown) => {
      store.send({ is: "notice", text: messageOf(thrown) });
    });
  }

  function send(message: Message): void {
    if (message.is === "lost" && options.endsWithDaemon) {
      outcome = "daemon-gone";
      ending.abort();
    }
    store.send(message);
  }

  if (signal.aborted) return outcome;
  signal.addEventListener("abort", () => ending.abort(), { once: true });
  const onTerminal = (lend: SuspendTerminal): void => {
    suspendTerminal = lend;
  };
  // Before the first frame, not after it as Ink does: what is typed at what one sees is a key, not an echo or a signal.
  stdin.setRawMode(true);
  const instance: Instance = render(createElement(App, { store, onTerminal }), {
    stdin,
    stdout,
    exitOnCtrlC: false,
    alternateScreen: true,
    // Also where the CI variable is set: whoever gives us a terminal wants to see it.
    interactive: true,
    incrementalRendering: true,
    maxFps: MAX_FPS,
  });
  ending.signal.addEventListener("abort", () => instance.unmount(), { once: true });
  const feeding = feedFromDaemon(client, send, ending.signal);
  try {
    await Promise.race([instance.waitUntilExit(), feeding]);
  } finally {
    ending.abort();
    instance.unmount();
    await instance.waitUntilExit();
    stdin.setRawMode(false);
  }
  return outcome;
}

/** OSC 52: the terminal itself puts the text into the clipboard, also over SSH. */
function clipboardSequence(text: string): string {
  return `\u001b]52;c;${Buffer.from(text, "utf8").toString("base64")}\u0007`;
}

/**
 * Stops the whole process group, as the terminal does at Ctrl-Z outside raw mode, so that the shell sees its job stop.
 * Goes on when the shell continues it; at once where the system ignores the signal (an orphaned group).
 */
async function stopProcessGroup(): Promise<void> {
  process.kill(0, "SIGTSTP");
  // The kernel stops us at the latest on the way back from the call or soon after; one turn of the timers is past it.
  await new Promise((resolve) => setTimeout(resolve, 20));
}
