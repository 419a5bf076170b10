import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { type PlayedDaemon, playDaemon } from "./played-daemon.js";
import { allowedCall, call, waitingReload } from "./recorded-events.js";
import { compileDashboard, openTerminal, type Program, type TerminalSession } from "./terminal-session.js";

// Each test starts a program; on a busy machine that alone takes seconds.
vi.setConfig({ testTimeout: 60_000 });

let program: Program;
let daemon: PlayedDaemon;
let terminal: TerminalSession | undefined;

beforeAll(() => {
  program = compileDashboard();
});
afterAll(() => program.remove());
beforeEach(async () => {
  daemon = await playDaemon();
});
afterEach(async () => {
  terminal?.kill("SIGKILL");
  await terminal?.exited;
  terminal = undefined;
  await daemon.remove();
});

function open(columns: number, rows: number, environment: Record<string, string> = {}, options = {}): TerminalSession {
  const args = [program.main, daemon.socketPath, JSON.stringify(options)];
  terminal = openTerminal(args, { columns, rows, environment });
  return terminal;
}

/** Every line is inside the screen, and the frame is closed: nothing has pushed it. */
function expectWholeFrame(shown: string, columns: number): void {
  const lines = shown.split("\n");
  expect(lines[0]).toContain("agentid  shop.local");
  expect(lines.at(-1)).toContain("? keys q quit");
  for (const line of lines) {
    expect([...line].length).toBeLessThanOrEqual(columns);
    if (line.startsWith("│")) expect(line.length === columns && line.endsWith("│")).toBe(true);
  }
}

const complete =
  (...facts: string[]) =>
  (shown: string) =>
    [...facts, "q quit"].every((fact) => shown.includes(fact));

describe.each([
  [80, 24],
  [100, 30],
  [140, 45],
])("%i×%i", (columns, rows) => {
  test("says who called what, what was refused and why, and what is about to expire", async () => {
    daemon.emit(allowedCall());
    daemon.emit({ event: "call.ended", decision: "a110w3dca11x0000", status: 200, durationMs: 3.14 });
    daemon.emit(call());
    const shown = await open(columns, rows).until(complete("DENY", "ALLOW", "3.1 ms", "Last denial"));
    expectWholeFrame(shown, columns);
    expect(shown).toMatch(/DENY {3}billing → payments +issue_refund.*small-refunds: /);
    expect(shown).toMatch(/ALLOW {2}planner → invoices +GET \/v1\/invoices.*200 +3\.1 ms/);
    expect(shown).toMatch(/rule +small-refunds {2}payments\.yaml:11/);
    expect(shown).toContain("4200 <= 1000 is false");
    expect(shown).toMatch(/billing +█+░* +6:1\d ↻ [23]:\d\d/);
    expect(shown).toMatch(/planner +█+░* +2:[34]\d ↻ now/);
  });
});

test("a resize lays out anew and keeps the selected row", async () => {
  for (let index = 0; index < 40; index += 1) daemon.emit(call({ decision: `d${index}`, summary: `refund ${index}.` }));
  const session = open(140, 45);
  await session.until(complete("refund 39."));
  session.type("jjj");
  await session.until(/▸.*refund 37\./);
  session.resize(80, 24);
  expectWholeFrame(
    await session.until((shown) => /▸.*refund 37\./.test(shown) && shown.split("\n")[23]?.includes("q quit") === true),
    80,
  );
  session.resize(100, 30);
  expectWholeFrame(
    await session.until((shown) => /▸.*refund 37\./.test(shown) && shown.split("\n")[29]?.includes("q quit") === true),
    100,
  );
  expect(session.text()).toContain("Decision d37");
});

test("too small: one line says how much is missing; with room again the dashboard is back", async () => {
  daemon.emit(call());
  const session = open(70, 20);
  const shown = await session.until("agentid needs");
  expect(shown.trim()).toBe("agentid needs 10 columns and 4 rows more");
  session.resize(80, 24);
  await session.until(complete("DENY"));
});

test("without colour every state is a word, and not one colour or style is written", async () => {
  daemon.emit(call());
  daemon.emit(allowedCall());
  const session = open(100, 30, { NO_COLOR: "1" });
  const shown = await session.until(complete("DENY", "ALLOW", "↻ now"));
  session.type("j");
  await session.until("▸");
  expect(shown).toContain("● live");
  // biome-ignore lint/suspicious/noControlCharactersInRegex: looks for the escape sequences that set colours and styles
  expect(session.raw()).not.toMatch(/\u001b\[[0-9;]+m/);

  const coloured = open(100, 30);
  await coloured.until(complete("DENY"));
  // biome-ignore lint/suspicious/noControlCharactersInRegex: as above
  expect(coloured.raw()).toMatch(/\u001b\[[0-9;]+m/);
});

test("hostile text never reaches the terminal", async () => {
  const hostile = "\u001b]0;owned\u0007\u001b[2J\u009b31m\u202eevil\u2066\u200b";
  daemon.emit(
    call({
      caller: `x${hostile}`,
      service: `y${hostile}`,
      summary: `sum${hostile}mary`,
      reason: hostile,
      callerDetail: hostile,
    }),
  );
  daemon.emit({ event: "problem", severity: "error", code: "bad", message: `told${hostile}` });
  daemon.setStatus({ trustDomain: `shop.local${hostile}` });
  const session = open(100, 30);
  await session.until(complete("mary", "DENY"));
  session.type("w");
  await session.until("considered");
  for (const sequence of ["\u001b]0;", "owned\u0007", "\u009b", "\u202e", "\u2066", "\u200b"]) {
    expect(session.raw()).not.toContain(sequence);
  }
});

describe("keys", () => {
  test("1 to 6 change the screen; Enter, w, ? open and Esc closes", async () => {
    daemon.emit(call());
    daemon.emit(allowedCall());
    daemon.emit({
      event: "problem",
      severity: "warning",
      code: "keys-readable",
      message: "any process can read the key",
    });
    const session = open(100, 30);
    await session.until(complete("ALLOW"));
    session.type("2");
    await session.until((shown) => shown.includes("┌ Denials") && !shown.includes("ALLOW"));
    session.type("3");
    await session.until(/given to launch: python agents\/billing\.py/);
    daemon.emit({ event: "process", change: "refused", pid: 6001, uid: 1000, detail: "python3 other.py" });
    await session.until(/REFUSED .* pid 6001, uid 1000/);
    await session.until("refused: pid 6001, uid 1000, python3 other.py");
    session.type("4");
    await session.until("reachable around");
    session.type("6");
    await session.until(/warning +keys-readable: any process/);
    session.type("5");
    await session.until("has not changed since the start");
    session.type("1w");
    const why = await session.until(complete("the narrowest rule"));
    expect(why).toContain("billing-reads  payments.yaml:4  allow");
    expect(why).toContain("  when: args.amount <= 4200");
    session.type("\u001b");
    await session.until("┌ Calls");
    session.type("?");
    await session.until("everything about the selected row");
    session.type("\u001b");
    await session.until("┌ Calls");
    session.type("\r");
    await session.until(/Decision 7f3k2m9qxc4w81hd.*Esc back/);
  });

  test("pause keeps what comes and counts it; follow shows it", async () => {
    const session = open(100, 30);
    await session.until("no calls yet");
    session.type("p");
    await session.until("PAUSED +0 new");
    daemon.emit(call());
    daemon.emit(allowedCall());
    const paused = await session.until("PAUSED +2 new");
    expect(paused).toContain("no calls yet");
    session.type("f");
    const followed = await session.until(complete("DENY", "ALLOW"));
    expect(followed).not.toContain("PAUSED");
  });

  test("/ filters as it is typed", async () => {
    daemon.emit(call());
    daemon.emit(allowedCall());
    const session = open(100, 30);
    await session.until(complete("DENY", "ALLOW"));
    session.type("/verdict:deny");
    await session.until((shown) => shown.includes("filter: verdict:deny█") && !shown.includes("ALLOW"));
    session.type("\r");
    await session.until("matching verdict:deny");
    session.type("\u001b");
    await session.until(complete("ALLOW", "DENY"));
  });

  test("c puts the decision id into the clipboard", async () => {
    daemon.emit(call());
    const session = open(100, 30);
    await session.until(complete("DENY"));
    session.type("c");
    await session.until("decision 7f3k2m9qxc4w81hd is in the clipboard");
    expect(session.raw()).toContain(`\u001b]52;c;${Buffer.from("7f3k2m9qxc4w81hd").toString("base64")}\u0007`);
  });

  test("a reload that widens waits, is read, and is accepted by its number; a paste of y accepts nothing", async () => {
    const waiting = daemon.emit(waitingReload());
    const session = open(100, 30);
    await session.until(complete("WIDENED: 2 changes of the configuration wait"));
    session.type("a");
    await session.until("+ allow agents/planner to payments: issue_refund");
    session.type("\u001b[200~y\u001b[201~");
    session.type("\u001b");
    await session.until("┌ Calls");
    expect(daemon.answers).toEqual([]);
    session.type("a");
    await session.until("Accept this reload?");
    session.type("y");
    await session.until("reload applied");
    expect(daemon.answers).toEqual([`accept ${waiting.sequence}`]);
    await session.until((shown) => !shown.includes("WIDENED"));
  });
});

describe("the end", () => {
  test.each([
    ["q", "q"],
    ["Ctrl-C", "\u0003"],
  ])("%s restores the screen and the cursor, and ends with 0", async (_name, key) => {
    const session = open(100, 30);
    await session.until(complete("no calls yet"));
    expect(session.usesAlternateScreen()).toBe(true);
    expect(session.isCursorHidden()).toBe(true);
    session.type(key);
    expect(await session.exited).toBe(0);
    await session.until("dashboard ended with quit");
    expect(session.usesAlternateScreen()).toBe(false);
    expect(session.isCursorHidden()).toBe(false);
    expect(session.text()).not.toContain("no calls yet");
  });

  test("SIGTERM restores the screen too", async () => {
    const session = open(100, 30);
    await session.until(complete("no calls yet"));
    session.kill("SIGTERM");
    expect(await session.exited).toBe(0);
    await session.until("dashboard ended with quit");
    expect(session.usesAlternateScreen()).toBe(false);
    expect(session.isCursorHidden()).toBe(false);
  });
});

test("Ctrl-Z gives the shell its terminal back, and fg the dashboard", async () => {
  const session = openTerminal(["--norc", "-i"], {
    columns: 100,
    rows: 30,
    file: "bash",
    environment: { PS1: "shell> " },
  });
  terminal = session;
  await session.until("shell>");
  session.type(`'${process.execPath}' '${program.main}' '${daemon.socketPath}' '{"suspendable":true}'\r`);
  await session.until(complete("no calls yet"));
  session.type("\u001a");
  await session.until("Stopped");
  expect(session.usesAlternateScreen()).toBe(false);
  session.type("fg\r");
  await session.until(complete("no calls yet"));
  expect(session.usesAlternateScreen()).toBe(true);
  session.type("q");
  await session.until("dashboard ended with quit");
});

test("where the daemon would be stopped too, Ctrl-Z says that it is off", async () => {
  const session = open(100, 30);
  await session.until(complete("no calls yet"));
  session.type("\u001a");
  await session.until("Ctrl-Z is off here: q quits");
});

describe("the daemon", () => {
  test("gone: says so, keeps the last screen, and finds the same daemon again", async () => {
    daemon.emit(call());
    const session = open(100, 30);
    await session.until(complete("DENY"));
    await daemon.stop();
    const gone = await session.until("daemon is gone, trying again");
    expect(gone).toContain("DENY");
    await daemon.start();
    daemon.emit(allowedCall());
    const back = await session.until((shown) => shown.includes("● live") && shown.includes("ALLOW"));
    expect(back).toContain("DENY");
    expect(back).not.toContain("daemon is gone");
  });

  test("another one in its place: the first one's calls are not shown as its own", async () => {
    daemon.emit(call());
    const session = open(100, 30);
    await session.until(complete("DENY"));
    await daemon.stop();
    await session.until("daemon is gone");
    await daemon.start(5000);
    daemon.emit(allowedCall());
    const back = await session.until((shown) => shown.includes("● live") && shown.includes("ALLOW"));
    expect(back).not.toContain("DENY");
  });

  test("with endsWithDaemon the loss ends it", async () => {
    const session = open(100, 30, {}, { endsWithDaemon: true });
    await session.until(complete("no calls yet"));
    await daemon.stop();
    expect(await session.exited).toBe(0);
    await session.until("dashboard ended with daemon-gone");
  });
});

describe("without a terminal", () => {
  test("it is a log stream; SIGTERM ends it with 0", async () => {
    const event = daemon.emit(call());
    for (const [options, expected] of [
      [{}, /^\d\d:\d\d:\d\d\.\d {2}DENY {6}agents\/billing → payments .*4200 <= 1000 is false/],
      [{ json: true }, new RegExp(`^{"event":"call".*"sequence":${event.sequence}`)],
    ] as const) {
      const child = spawn(process.execPath, [program.main, daemon.socketPath, JSON.stringify(options)]);
      const exited = once(child, "exit");
      const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
      expect(line).toMatch(expected);
      child.kill("SIGTERM");
      expect(await exited).toEqual([0, null]);
    }
  });
});
