import { once } from "node:events";
import { createInterface } from "node:readline";
import { PassThrough } from "node:stream";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createControlClient } from "../../src/client/control-client.js";
import { agentidEvent } from "../../src/control-api/events.js";
import { logLine, streamLog } from "../../src/dashboard/log-stream.js";
import { type PlayedDaemon, playDaemon } from "./played-daemon.js";
import { allowedCall, call, numbered, waitingReload } from "./recorded-events.js";

beforeEach(() => {
  vi.stubEnv("TZ", "UTC");
});
afterEach(() => {
  vi.unstubAllEnvs();
});

test("one aligned line an event, the reason in every denial", () => {
  const lines = [
    call(),
    allowedCall(),
    { event: "call.ended", decision: "a110w3dca11x0000", status: 200, durationMs: 3.14 } as const,
    {
      event: "call.ended",
      decision: "a110w3dca11x0000",
      durationMs: 30_000,
      error: "upstream did not answer",
    } as const,
    { event: "call.ended", decision: "a110w3dca11x0000", durationMs: 3.14, sent: 512, received: 1_480_000 } as const,
    waitingReload(),
    { event: "process", change: "refused", pid: 5120, uid: 1000, detail: "python3 other.py" } as const,
    { event: "problem", severity: "error", code: "port-taken", message: "4100 is in use", resolved: true } as const,
    { event: "stopping", reason: "SIGTERM" } as const,
  ].map((event, index) => logLine(numbered(event, index)));
  expect(lines).toEqual([
    "12:04:31.7  DENY      agents/billing → payments    issue_refund {amount:4200}  small-refunds: 4200 <= 1000 is false  (7f3k2m9qxc4w81hd)",
    "12:04:31.7  ALLOW     agents/planner → invoices    GET /v1/invoices?open=1",
    "12:04:31.7  ENDED     200 in 3.1 ms  (a110w3dca11x0000)",
    "12:04:31.7  FAILED    upstream did not answer after 30.0 s  (a110w3dca11x0000)",
    "12:04:31.7  ENDED     ↑512 B ↓1.5 MB in 3.1 ms  (a110w3dca11x0000)",
    "12:04:31.7  RELOAD    waiting WIDENED  2 changes: + allow agents/planner to payments: issue_refund; - deny nobody-drops-tables",
    "12:04:31.7  PROCESS   refused  pid 5120, uid 1000: python3 other.py",
    "12:04:31.7  ERROR     port-taken: 4100 is in use  (over)",
    "12:04:31.7  STOPPING  SIGTERM",
  ]);
});

test("what rules in shadow would have done stands in words, with the decision to ask about", () => {
  const rule = { rule: "small", effect: "deny", would: "deny", differs: true } as const;
  const lines = [
    allowedCall({ shadow: [rule] }),
    allowedCall({ shadow: [{ rule: "default", effect: "allow", would: "deny", differs: true }] }),
    allowedCall({ shadow: [{ ...rule, effect: "match", would: "require" }] }),
    call({
      shadow: [
        { ...rule, differs: false },
        { rule: "more", effect: "allow", would: "allow", differs: true },
      ],
    }),
  ].map((event, index) => logLine(numbered(event, index)).replace(/^.* → /, ""));
  const allowed = "invoices    GET /v1/invoices?open=1";
  const denied = "payments    issue_refund {amount:4200}  small-refunds: 4200 <= 1000 is false";
  expect(lines).toEqual([
    `${allowed}  in shadow small would deny  (a110w3dca11x0000)`,
    `${allowed}  let through: its identity is in shadow  (a110w3dca11x0000)`,
    `${allowed}  in shadow small would require more  (a110w3dca11x0000)`,
    `${denied}  in shadow small would deny too; in shadow more would allow  (7f3k2m9qxc4w81hd)`,
  ]);
});

test("an event cannot write a second line or move the cursor", () => {
  const line = logLine(numbered(call({ summary: "x\n12:00:00.0  ALLOW  forged\r\u001b[1A\u202e" }), 1));
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must be gone
  expect(line).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/);
});

async function stream(
  daemon: PlayedDaemon,
  options: { json: boolean; endsWithDaemon: boolean },
): Promise<{ nextLine: () => Promise<string>; stop: () => void; ended: Promise<string> }> {
  const stdout = new PassThrough();
  const stopping = new AbortController();
  const client = createControlClient(daemon.socketPath);
  const ended = streamLog({ client, stdout, ...options, signal: stopping.signal });
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  return {
    nextLine: async () => String((await lines.next()).value),
    stop: () => stopping.abort(),
    ended,
  };
}

test("starts with what the daemon still holds, goes on live, says once that the daemon is gone, and when it is back", async () => {
  const daemon = await playDaemon();
  daemon.emit(call());
  const log = await stream(daemon, { json: false, endsWithDaemon: false });
  expect(await log.nextLine()).toContain("DENY");
  daemon.emit(allowedCall());
  expect(await log.nextLine()).toContain("ALLOW");
  await daemon.stop();
  expect(await log.nextLine()).toBe("-- daemon is gone, trying again");
  await daemon.start();
  expect(await log.nextLine()).toBe("-- daemon is back");
  daemon.emit({ event: "stopping", reason: "test" });
  expect(await log.nextLine()).toContain("STOPPING");
  log.stop();
  expect(await log.ended).toBe("quit");
  await daemon.remove();
});

test("json: the events as they were, and nothing else, also when the daemon goes and comes", async () => {
  const daemon = await playDaemon();
  const first = daemon.emit(call());
  const log = await stream(daemon, { json: true, endsWithDaemon: false });
  expect(agentidEvent.parse(JSON.parse(await log.nextLine()))).toEqual(first);
  await daemon.stop();
  await daemon.start();
  const second = daemon.emit(allowedCall());
  expect(JSON.parse(await log.nextLine())).toEqual(second);
  log.stop();
  expect(await log.ended).toBe("quit");
  await daemon.remove();
});

test("endsWithDaemon: the loss ends it", async () => {
  const daemon = await playDaemon();
  daemon.emit(call());
  const log = await stream(daemon, { json: false, endsWithDaemon: true });
  await log.nextLine();
  await daemon.stop();
  expect(await log.ended).toBe("daemon-gone");
  await daemon.remove();
});

test("nobody reads any more: it ends", async () => {
  const daemon = await playDaemon();
  const stdout = new PassThrough();
  const client = createControlClient(daemon.socketPath);
  const ended = streamLog({ client, stdout, json: false, endsWithDaemon: false, signal: new AbortController().signal });
  daemon.emit(call());
  await once(stdout, "readable");
  stdout.destroy(new Error("EPIPE"));
  expect(await ended).toBe("quit");
  await daemon.remove();
});
