import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bytesOf, exchange, type Listener, runListeners } from "./listeners.js";
import { type BadResponse, badAnswers, badLists, badResponses } from "./responses.js";
import type { ChangedRequest, ListenerKind } from "./vector.js";

/** Bad answers of a service, through both legs, and what its caller sees of them. */

const LIST = '{"jsonrpc":"2.0","id":1,"method":"tools/list"}';
const PATIENCE_MS = 10_000;

let running: Awaited<ReturnType<typeof runListeners>>;
beforeAll(async () => {
  running = await runListeners();
});
afterAll(() => running.close());

describe.each([0, 1])("way %i", (index) => {
  const listener = (kind: ListenerKind) => running.listeners.filter((one) => one.kind === kind)[index] as Listener;
  it.each(badResponses)("$what", (bad) => holds(listener("http service"), bad, {}));
  it.each(badAnswers)("$what", (bad) => holds(listener("MCP service"), bad, {}));
  it.each(badLists)("$what", (bad) => holds(listener("MCP service"), bad, { message: () => LIST }));
});

async function holds(listener: Listener, { bytes, expected }: BadResponse, request: ChangedRequest): Promise<void> {
  const service = listener.service;
  if (service === undefined) throw new Error("no service behind it");
  const good = service.answer.bytes;
  service.answer.bytes = bytes;
  const before = running.record.entries.length;
  const received = await everything(listener, request);
  service.answer.bytes = good;
  const outcomes = running.record.entries.slice(before).filter(({ kind }) => kind === "call");

  const end = received.indexOf("\r\n\r\n");
  const [head, body] = [received.slice(0, end === -1 ? 0 : end + 2), received.slice(end + 4)];
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(head)?.[1] ?? 0);
  if (expected.is === "refused") {
    expect({ status, whole: isWhole(head, body) }).toEqual({ status: 502, whole: true });
    expect(received).not.toContain("sound");
    expect(outcomes.map(({ fields }) => fields.error)).toContainEqual(expect.stringMatching(/^upstream-/));
  } else if (expected.is === "cut") {
    expect(status === 502 || !isWhole(head, body)).toBe(true);
    if (expected.lacks !== undefined) expect(received).not.toMatch(expected.lacks);
  } else {
    expect(status).toBe(expected.status);
    expect(isWhole(head, body)).toBe(true);
    if (expected.body !== undefined) expect(body).toBe(expected.body);
    for (const pattern of expected.lacks ?? []) expect(received).not.toMatch(pattern);
    for (const pattern of expected.has ?? []) expect(received).toMatch(pattern);
  }
  // Whatever it was, the next caller gets its own answer.
  const next = await exchange(listener, {});
  expect(next.status).toBe(200);
  expect(next.body).toContain("arrived");
}

function isWhole(head: string, body: string): boolean {
  const length = /^content-length: (\d+)\r$/im.exec(head)?.[1];
  return length === undefined ? body.endsWith("0\r\n\r\n") : body.length === Number(length);
}

/** All that comes back until the connection is closed; whoever asks wants it closed behind the answer. */
function everything(listener: Listener, request: ChangedRequest): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = listener.open();
    let received = "";
    socket.setEncoding("latin1");
    socket.setTimeout(PATIENCE_MS, () => reject(new Error(`neither answered nor closed: ${received.slice(0, 500)}`)));
    socket.on("data", (chunk) => {
      received += String(chunk);
    });
    socket.on("error", () => undefined);
    socket.on("close", () => resolve(received));
    socket.write(bytesOf(listener, { ...request, headers: ["Connection: close"] }));
  });
}
