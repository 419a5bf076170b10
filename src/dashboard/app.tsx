import type { SuspendTerminal } from "ink";
import { useApp, useInput, usePaste, useWindowSize } from "ink";
import { type ReactNode, useEffect, useSyncExternalStore } from "react";
import { actionFor, keyName } from "./keys.js";
import { dependsOnClock } from "./model.js";
import { Screen } from "./screen.js";
import type { Store } from "./store.js";

export interface AppProps {
  readonly store: Store;
  /** Called once with Ink's way to lend the terminal to the shell. */
  readonly onTerminal: (suspendTerminal: SuspendTerminal) => void;
}

/** The terminal's keys, size and seconds go into the store; its state comes out as the screen. */
export function App({ store, onTerminal }: AppProps): ReactNode {
  const state = useSyncExternalStore(store.subscribe, store.getState);
  const { suspendTerminal } = useApp();
  const { columns, rows } = useWindowSize();

  useEffect(() => onTerminal(suspendTerminal), [onTerminal, suspendTerminal]);
  useEffect(() => store.send({ is: "resized", size: { columns, rows } }), [store, columns, rows]);

  useInput((input, key) => {
    const name = keyName(input, key);
    if (name === "") return;
    const typed = key.ctrl || key.meta || key.return || key.escape ? "" : input;
    // Keys pressed faster than they are read arrive as one text.
    const several = actionFor(name) === undefined && typed.length > 1 && typed === name;
    for (const each of several ? typed : [name]) {
      store.send({ is: "key", key: each === " " ? "space" : each, text: several ? each : typed });
    }
  });
  // Pasted text is text: it never presses a key, so that nothing on the clipboard can accept a reload.
  usePaste((text) => store.send({ is: "pasted", text }));

  const ticking = dependsOnClock(state);
  useEffect(() => {
    if (!ticking) return undefined;
    const timer = setInterval(() => store.send({ is: "tick" }), 1000);
    return () => clearInterval(timer);
  }, [store, ticking]);

  return <Screen state={state} />;
}
