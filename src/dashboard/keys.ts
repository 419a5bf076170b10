/**
 * Every key of the dashboard, once: what a key does, what the footer shows and what the keys overlay says all come from
 * this table.
 */

export type ScreenName = "calls" | "denials" | "identities" | "services" | "policy" | "problems";

/** The screens in the order of their numbers. */
const SCREENS: readonly ScreenName[] = ["calls", "denials", "identities", "services", "policy", "problems"];

export type Action =
  | { readonly do: "screen"; readonly screen: ScreenName }
  | { readonly do: "move"; readonly by: "line" | "page" | "all"; readonly direction: -1 | 1 }
  | { readonly do: "filter" | "follow" | "pause" | "detail" | "why" | "copy" | "accept" | "refuse" | "yes" }
  | { readonly do: "keys" | "back" | "suspend" | "quit" };

export interface KeyBinding {
  /** Names as `keyName` makes them. */
  readonly keys: readonly string[];
  /** How the keys are written for people. */
  readonly shown: string;
  readonly help: string;
  readonly action: Action;
  /** Short form for the footer; keys without one are only in the overlay. */
  readonly footer?: string;
  /** The footer has room for it before the others. */
  readonly footerAlways?: boolean;
}

const screenKeys: readonly KeyBinding[] = SCREENS.map((screen, index) => ({
  keys: [String(index + 1)],
  shown: String(index + 1),
  help: `the ${screen} screen`,
  action: { do: "screen", screen },
  footer: screen,
  footerAlways: true,
}));

export const KEYS: readonly KeyBinding[] = [
  ...screenKeys,
  {
    keys: ["/"],
    shown: "/",
    help: "filter calls: text, verdict:deny, caller:NAME, service:NAME, tool:NAME",
    action: { do: "filter" },
    footer: "filter",
  },
  { keys: ["f"], shown: "f", help: "follow: the newest call stays on top", action: { do: "follow" }, footer: "follow" },
  {
    keys: ["p", "space"],
    shown: "p space",
    help: "pause: rows stand still, new calls are kept and counted",
    action: { do: "pause" },
    footer: "pause",
  },
  {
    keys: ["up", "k"],
    shown: "↑ k",
    help: "one row up (selecting pauses)",
    action: { do: "move", by: "line", direction: -1 },
  },
  {
    keys: ["down", "j"],
    shown: "↓ j",
    help: "one row down (selecting pauses)",
    action: { do: "move", by: "line", direction: 1 },
  },
  { keys: ["pageup"], shown: "PgUp", help: "one page up", action: { do: "move", by: "page", direction: -1 } },
  { keys: ["pagedown"], shown: "PgDn", help: "one page down", action: { do: "move", by: "page", direction: 1 } },
  { keys: ["g", "home"], shown: "g Home", help: "to the first row", action: { do: "move", by: "all", direction: -1 } },
  { keys: ["G", "end"], shown: "G End", help: "to the last row", action: { do: "move", by: "all", direction: 1 } },
  { keys: ["enter"], shown: "Enter", help: "everything about the selected row", action: { do: "detail" } },
  {
    keys: ["w"],
    shown: "w",
    help: "why: the rules that were considered, and one that would allow it",
    action: { do: "why" },
    footer: "why",
  },
  { keys: ["c"], shown: "c", help: "copy the decision id to the clipboard", action: { do: "copy" } },
  { keys: ["a"], shown: "a", help: "accept a reload that waits (asks first)", action: { do: "accept" } },
  { keys: ["r"], shown: "r", help: "refuse a reload that waits (asks first)", action: { do: "refuse" } },
  { keys: ["y"], shown: "y", help: "yes, where the dashboard asks", action: { do: "yes" } },
  { keys: ["?"], shown: "?", help: "these keys", action: { do: "keys" }, footer: "keys", footerAlways: true },
  { keys: ["esc", "n"], shown: "Esc n", help: "back; no; clear the filter", action: { do: "back" } },
  {
    keys: ["ctrl+z"],
    shown: "Ctrl-Z",
    help: "suspend (only where the daemon runs elsewhere)",
    action: { do: "suspend" },
  },
  {
    keys: ["q", "ctrl+c"],
    shown: "q Ctrl-C",
    help: "quit",
    action: { do: "quit" },
    footer: "quit",
    footerAlways: true,
  },
];

const actionOfKey: ReadonlyMap<string, Action> = new Map(
  KEYS.flatMap((binding) => binding.keys.map((key): [string, Action] => [key, binding.action])),
);

/** What a key does outside the filter's input line, `undefined` for a key without a meaning. */
export function actionFor(key: string): Action | undefined {
  return actionOfKey.get(key);
}

/** The flags of a key press as the terminal library reports them, as far as they matter here. */
export interface PressedKey {
  readonly upArrow: boolean;
  readonly downArrow: boolean;
  readonly pageUp: boolean;
  readonly pageDown: boolean;
  readonly home: boolean;
  readonly end: boolean;
  readonly return: boolean;
  readonly escape: boolean;
  readonly backspace: boolean;
  readonly delete: boolean;
  readonly ctrl: boolean;
  readonly meta: boolean;
}

/** The names in `KEYS`: `up`, `enter`, `ctrl+c`, or the characters typed. Empty for what is no key of ours. */
export function keyName(input: string, key: PressedKey): string {
  if (key.upArrow) return "up";
  if (key.downArrow) return "down";
  if (key.pageUp) return "pageup";
  if (key.pageDown) return "pagedown";
  if (key.home) return "home";
  if (key.end) return "end";
  if (key.return) return "enter";
  if (key.escape) return "esc";
  if (key.backspace || key.delete) return "backspace";
  if (key.ctrl) return `ctrl+${input}`;
  if (key.meta) return "";
  return input === " " ? "space" : input;
}
