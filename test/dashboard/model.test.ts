import { describe, expect, test } from "vitest";
import type { NewEvent } from "../../src/control-api/events.js";
import { MAX_CALLS, waitingCount } from "../../src/dashboard/call-log.js";
import { KEYS } from "../../src/dashboard/keys.js";
import { dependsOnClock, type Effect, type Message, update } from "../../src/dashboard/model.js";
import { currentRow, rowsOf } from "../../src/dashboard/rows-of-screen.js";
import { initialState, type State } from "../../src/dashboard/state.js";
import { allowedCall, call, numbered, trustDomainStatus, waitingReload, whyDenied } from "./recorded-events.js";

const NOW = Date.parse("2026-11-22T12:04:33.000Z");

/** Plays messages into the core and keeps what it asks for. */
function play(): {
  state: () => State;
  effects: Effect[];
  send: (message: Message, now?: number) => void;
  events: (...events: NewEvent[]) => void;
  press: (...keys: string[]) => void;
  keys: () => string[];
} {
  let state = initialState(NOW, { columns: 100, rows: 30 });
  let sequence = 0;
  const effects: Effect[] = [];
  const send = (message: Message, now = NOW): void => {
    const next = update(state, message, now);
    state = next.state;
    effects.push(...next.effects);
  };
  send({ is: "connected", status: trustDomainStatus(NOW), restarted: false });
  return {
    state: () => state,
    effects,
    send,
    events: (...events) => send({ is: "events", events: events.map((event) => numbered(event, sequence++)) }),
    press: (...keys) => {
      for (const key of keys) send({ is: "key", key, text: key.length === 1 ? key : key === "space" ? " " : "" });
    },
    keys: () => rowsOf(state).map((row) => row.key),
  };
}

const selected = (state: State): string | undefined => state.cursors[state.screen].key;

describe("calls", () => {
  test("the newest stands on top, and an ended call keeps its place", () => {
    const dashboard = play();
    dashboard.events(allowedCall({ decision: "first" }), call({ decision: "second" }));
    dashboard.events({ event: "call.ended", decision: "first", status: 200, durationMs: 3.1 });
    expect(dashboard.keys()).toEqual(["second", "first"]);
    const row = rowsOf(dashboard.state())[1];
    expect(row?.is === "call" && row.call.ended?.status).toBe(200);
  });

  test("counts go on from the daemon's own, and what it repeats is not counted twice", () => {
    const dashboard = play();
    const status = trustDomainStatus(NOW, { counts: { calls: 10, denied: 3 }, nextEvent: 2 });
    dashboard.send({ is: "status", status });
    dashboard.events(call({ decision: "repeated0" }), call({ decision: "repeated1" }), call({ decision: "new" }));
    expect(dashboard.state().counts).toEqual({ calls: 11, denied: 4 });
  });

  test("memory is bounded: the oldest calls go, while following and while paused", () => {
    const dashboard = play();
    const many = Array.from({ length: MAX_CALLS + 10 }, (_, index) => call({ decision: `d${index}` }));
    dashboard.events(...many);
    expect(dashboard.keys()).toHaveLength(MAX_CALLS);
    expect(dashboard.keys()[0]).toBe(`d${MAX_CALLS + 9}`);
    dashboard.press("p");
    dashboard.events(...many);
    expect(dashboard.state().calls.waiting).toHaveLength(MAX_CALLS);
    expect(waitingCount(dashboard.state().calls)).toBe(MAX_CALLS + 10);
  });

  test("without a selection the detail is the newest denial, not the call that happens to be on top", () => {
    const dashboard = play();
    dashboard.events(call({ decision: "denied" }), allowedCall({ decision: "allowed" }));
    expect(currentRow(dashboard.state())?.key).toBe("denied");
  });
});

describe("rows never move under the cursor", () => {
  test("selecting pauses: new calls wait and are counted, the selected row stays where it is", () => {
    const dashboard = play();
    dashboard.events(call({ decision: "a" }), call({ decision: "b" }), call({ decision: "c" }));
    dashboard.press("down", "j");
    expect(selected(dashboard.state())).toBe("b");
    dashboard.events(call({ decision: "d" }), call({ decision: "e" }));
    expect(dashboard.keys()).toEqual(["c", "b", "a"]);
    expect(waitingCount(dashboard.state().calls)).toBe(2);
    expect(selected(dashboard.state())).toBe("b");
  });

  test("a call that is shown ends in its place while others wait", () => {
    const dashboard = play();
    dashboard.events(allowedCall({ decision: "a" }));
    dashboard.press("j");
    dashboard.events(allowedCall({ decision: "b" }), {
      event: "call.ended",
      decision: "a",
      status: 200,
      durationMs: 1,
    });
    const row = rowsOf(dashboard.state())[0];
    expect(row?.is === "call" && [row.key, row.call.ended?.status]).toEqual(["a", 200]);
  });

  test.each(["f", "p", "space", "esc"])("`%s` follows again: what waited comes in, the selection goes", (key) => {
    const dashboard = play();
    dashboard.events(call({ decision: "a" }));
    dashboard.press("j");
    dashboard.events(call({ decision: "b" }));
    expect(dashboard.keys()).toEqual(["a"]);
    dashboard.press(key);
    expect(dashboard.keys()).toEqual(["b", "a"]);
    expect(selected(dashboard.state())).toBeUndefined();
  });

  test("a smaller terminal keeps the selection and keeps it visible", () => {
    const dashboard = play();
    dashboard.events(...Array.from({ length: 60 }, (_, index) => call({ decision: `d${index}` })));
    dashboard.press("j", "pagedown", "pagedown");
    const key = selected(dashboard.state());
    dashboard.send({ is: "resized", size: { columns: 80, rows: 24 } });
    const { top } = dashboard.state().cursors.calls;
    const index = dashboard.keys().indexOf(key ?? "");
    expect(selected(dashboard.state())).toBe(key);
    expect(index).toBeGreaterThan(10);
    expect(index - top).toBeGreaterThanOrEqual(0);
    expect(index - top).toBeLessThan(13);
  });

  test("g, G, PgUp and PgDn stop at the ends", () => {
    const dashboard = play();
    dashboard.events(...Array.from({ length: 40 }, (_, index) => call({ decision: `d${index}` })));
    dashboard.press("G");
    expect(selected(dashboard.state())).toBe("d0");
    dashboard.press("pagedown", "down");
    expect(selected(dashboard.state())).toBe("d0");
    dashboard.press("g");
    expect(selected(dashboard.state())).toBe("d39");
    dashboard.press("pageup", "k");
    expect(selected(dashboard.state())).toBe("d39");
    expect(dashboard.state().cursors.calls.top).toBe(0);
  });
});

describe("filter", () => {
  function filtered(text: string): string[] {
    const dashboard = play();
    dashboard.events(
      call({ decision: "refund" }),
      allowedCall({ decision: "read" }),
      allowedCall({ decision: "bill", caller: "agents/billing", service: "payments", target: "get_invoice" }),
    );
    dashboard.press("/");
    for (const character of text) dashboard.press(character === " " ? "space" : character);
    dashboard.press("enter");
    return dashboard.keys();
  }

  test.each([
    ["refund", ["refund"]],
    ["verdict:deny", ["refund"]],
    ["verdict:allow", ["bill", "read"]],
    ["caller:billing", ["bill", "refund"]],
    ["caller:billing verdict:allow", ["bill"]],
    ["service:payments", ["bill", "refund"]],
    ["tool:get_inv", ["bill"]],
    ["SMALL-refunds", ["refund"]],
    ["constructor:x", []],
    ["nothing like this", []],
    ["", ["bill", "read", "refund"]],
  ])("%s", (text, keys) => {
    expect(filtered(text)).toEqual(keys);
  });

  test("while it is typed, keys are letters: q does not quit, backspace takes one away, Esc clears", () => {
    const dashboard = play();
    dashboard.press("/", "q", "w", "backspace");
    expect(dashboard.state().filter).toEqual({ text: "q", editing: true });
    expect(dashboard.effects).toEqual([]);
    dashboard.press("esc");
    expect(dashboard.state().filter).toEqual({ text: "", editing: false });
    dashboard.press("q");
    expect(dashboard.effects).toEqual([{ do: "quit" }]);
  });

  test("Ctrl-C quits even there", () => {
    const dashboard = play();
    dashboard.press("/", "ctrl+c");
    expect(dashboard.effects).toEqual([{ do: "quit" }]);
  });

  test("pasted text goes into the filter and nowhere else", () => {
    const dashboard = play();
    dashboard.events(waitingReload());
    dashboard.press("a");
    dashboard.send({ is: "pasted", text: "y" });
    expect(dashboard.effects).toEqual([]);
    dashboard.press("esc", "/");
    dashboard.send({ is: "pasted", text: "caller:\u001b[31mbilling" });
    expect(dashboard.state().filter.text).toContain("billing");
    expect(dashboard.state().filter.text).not.toContain("\u001b");
  });

  test("the denials screen filters on top of its own condition", () => {
    const dashboard = play();
    dashboard.events(call({ decision: "x" }), allowedCall(), call({ decision: "y", caller: "agents/planner" }));
    dashboard.press("2");
    expect(dashboard.keys()).toEqual(["y", "x"]);
    dashboard.press("/", ..."caller:bill", "enter");
    expect(dashboard.keys()).toEqual(["x"]);
  });
});

describe("why, detail and copy", () => {
  test("`w` asks for the shown decision and shows the answer; the row stays", () => {
    const dashboard = play();
    dashboard.events(call({ decision: "denied" }));
    dashboard.press("w");
    expect(dashboard.effects).toEqual([{ do: "explain", decision: "denied" }]);
    dashboard.events(call({ decision: "later" }));
    dashboard.send({ is: "explained", decision: "denied", answer: { explanation: whyDenied("denied") } });
    const { overlay } = dashboard.state();
    expect(overlay?.is === "why" && overlay.decision).toBe("denied");
    expect(overlay?.is === "why" && overlay.answer && "explanation" in overlay.answer).toBe(true);
    dashboard.press("esc");
    expect(selected(dashboard.state())).toBe("denied");
  });

  test("an answer for another decision is not shown", () => {
    const dashboard = play();
    dashboard.events(call({ decision: "denied" }));
    dashboard.press("w");
    dashboard.send({ is: "explained", decision: "other", answer: { error: "no such decision" } });
    const { overlay } = dashboard.state();
    expect(overlay?.is === "why" && overlay.answer).toBeUndefined();
  });

  test("`c` copies the decision id and says so; where there is no call it says what to do", () => {
    const dashboard = play();
    dashboard.press("c", "w");
    expect(dashboard.effects).toEqual([]);
    expect(dashboard.state().notice?.text).toContain("select a call");
    dashboard.events(call({ decision: "denied" }));
    dashboard.press("c");
    expect(dashboard.effects).toEqual([{ do: "copy", text: "denied" }]);
    expect(dashboard.state().notice?.text).toContain("denied");
  });

  test("Enter opens, Esc closes, a number changes the screen below", () => {
    const dashboard = play();
    dashboard.events(call());
    dashboard.press("enter");
    expect(dashboard.state().overlay?.is).toBe("detail");
    dashboard.press("3");
    expect(dashboard.state().overlay).toBeUndefined();
    expect(dashboard.state().screen).toBe("identities");
  });

  test("a notice goes by itself", () => {
    const dashboard = play();
    dashboard.press("c");
    dashboard.send({ is: "tick" }, NOW + 3_000);
    expect(dashboard.state().notice).toBeDefined();
    dashboard.send({ is: "tick" }, NOW + 5_000);
    expect(dashboard.state().notice).toBeUndefined();
  });
});

describe("reloads", () => {
  test("`a` asks first; `y` answers with the number of the reload that was read", () => {
    const dashboard = play();
    dashboard.events(call(), waitingReload());
    dashboard.press("a");
    expect(dashboard.effects).toEqual([]);
    dashboard.press("y");
    expect(dashboard.effects).toEqual([{ do: "answerReload", accept: true, sequence: 1 }]);
    expect(dashboard.state().overlay).toBeUndefined();
  });

  test("`r` refuses in the same way; Esc and n answer nothing", () => {
    const dashboard = play();
    dashboard.events(waitingReload());
    dashboard.press("a", "esc", "y", "a", "n", "y");
    expect(dashboard.effects).toEqual([]);
    dashboard.press("r", "y");
    expect(dashboard.effects).toEqual([{ do: "answerReload", accept: false, sequence: 0 }]);
  });

  test("when other changes wait meanwhile, the question closes: nobody accepts what they have not read", () => {
    const dashboard = play();
    dashboard.events(waitingReload());
    dashboard.press("a");
    dashboard.events(waitingReload({ changes: ["+ allow * to *"] }));
    expect(dashboard.state().overlay).toBeUndefined();
    expect(dashboard.state().notice?.text).toContain("read them again");
    dashboard.press("y");
    expect(dashboard.effects).toEqual([]);
    dashboard.press("a", "y");
    expect(dashboard.effects).toEqual([{ do: "answerReload", accept: true, sequence: 1 }]);
  });

  test.each(["applied", "refused", "failed"] as const)(
    "%s ends the waiting: the daemon has nothing to accept then",
    (outcome) => {
      const dashboard = play();
      dashboard.events(waitingReload());
      expect(dashboard.state().pendingReload?.sequence).toBe(0);
      dashboard.events(waitingReload({ outcome, changes: [] }));
      expect(dashboard.state().pendingReload).toBeUndefined();
    },
  );

  test("of saves that are broken the last one is shown, until the files are valid again; a warning until it is over", () => {
    const problem = (severity: "warning" | "error", code: string, message: string, resolved = false) =>
      ({ event: "problem", severity, code, message, ...(resolved && { resolved }) }) as const;
    const dashboard = play();
    const texts = () => dashboard.state().problems.map(({ message }) => message);
    const before = texts();
    dashboard.events(problem("error", "reload-broken", "line 3"), problem("error", "reload-broken", "line 4"));
    dashboard.events(problem("warning", "policy-warning", "no rules"));
    expect(texts()).toEqual([...before, "line 4", "no rules"]);
    dashboard.events(problem("error", "reload-broken", "the files are valid again", true));
    expect(texts()).toEqual([...before, "no rules"]);
    dashboard.events(problem("warning", "policy-warning", "no rules", true));
    expect(texts()).toEqual(before);
  });

  test("without a waiting reload `a` says so", () => {
    const dashboard = play();
    dashboard.press("a");
    expect(dashboard.state().overlay).toBeUndefined();
    expect(dashboard.state().notice?.text).toBe("no reload is waiting");
  });
});

describe("the daemon", () => {
  test("lost: the last screen stays, with the reason; back: it is live again", () => {
    const dashboard = play();
    dashboard.events(call({ decision: "kept" }));
    dashboard.send({ is: "lost", reason: "no daemon is running", retryInMs: 500 });
    expect(dashboard.state().connection).toEqual({ is: "lost", reason: "no daemon is running", retryAt: NOW + 500 });
    expect(dashboard.keys()).toEqual(["kept"]);
    dashboard.send({ is: "connected", status: trustDomainStatus(NOW), restarted: false });
    expect(dashboard.state().connection.is).toBe("live");
    expect(dashboard.keys()).toEqual(["kept"]);
  });

  test("another daemon: what the first one told is forgotten", () => {
    const dashboard = play();
    dashboard.events(call(), waitingReload());
    dashboard.send({ is: "connected", status: trustDomainStatus(NOW), restarted: true });
    expect(dashboard.keys()).toEqual([]);
    expect(dashboard.state().pendingReload).toBeUndefined();
    expect(dashboard.state().identities).toHaveLength(2);
  });

  test("a rotation moves the expiry at once; removed has none", () => {
    const dashboard = play();
    const notAfter = "2026-11-22T12:14:33.000Z";
    const rotation = {
      event: "identity",
      name: "agents/billing",
      spiffeId: "spiffe://shop.local/agents/billing",
    } as const;
    dashboard.events({ ...rotation, change: "rotated", notAfter, rotateAt: "2026-11-22T12:09:33.000Z" });
    expect(dashboard.state().identities[0]?.notAfter).toBe(notAfter);
    dashboard.events({ ...rotation, change: "removed" });
    expect(dashboard.state().identities[0]?.notAfter).toBeUndefined();
  });

  test("a resolved problem goes, the others stay", () => {
    const dashboard = play();
    const problem = { event: "problem", severity: "error", code: "port-taken" } as const;
    dashboard.events({ ...problem, message: "4100" }, { ...problem, message: "4200" });
    dashboard.events({ ...problem, message: "4100", resolved: true });
    expect(dashboard.state().problems.map((each) => each.message)).toEqual(["4200"]);
  });
});

test("a process that is refused now is said on any screen; one of the past is not", () => {
  const dashboard = play();
  const refused = { event: "process", change: "refused", pid: 5120, uid: 1000, detail: "python3 other.py" } as const;
  dashboard.send({ is: "events", events: [numbered(refused, 1, "2026-11-22T12:00:00.000Z")] });
  expect(dashboard.state().notice).toBeUndefined();
  dashboard.send({ is: "events", events: [numbered(refused, 2, "2026-11-22T12:04:32.900Z")] });
  expect(dashboard.state().notice?.text).toBe("refused: pid 5120, uid 1000, python3 other.py");
  expect(dashboard.state().processes).toHaveLength(2);
});

test("hostile text is cleaned before it becomes state", () => {
  const dashboard = play();
  const hostile = "\u001b]52;c;ZXZpbA==\u0007\u202egnp.exe\u009b31m";
  dashboard.events(call({ caller: `evil${hostile}`, summary: hostile, reason: hostile, callerDetail: hostile }));
  dashboard.send({ is: "lost", reason: hostile, retryInMs: 1 });
  const text = JSON.stringify(dashboard.state());
  for (const character of ["\\u001b", "\u001b", "\\u0007", "\u0007", "\u202e", "\u009b"])
    expect(text).not.toContain(character);
  expect(text).toContain("evil");
});

test("the clock matters to every screen, not to the list of keys", () => {
  const dashboard = play();
  expect(dependsOnClock(dashboard.state())).toBe(true);
  dashboard.press("?");
  expect(dependsOnClock(dashboard.state())).toBe(false);
});

test("no key has two meanings", () => {
  const keys = KEYS.flatMap((binding) => binding.keys);
  expect(new Set(keys).size).toBe(keys.length);
});
