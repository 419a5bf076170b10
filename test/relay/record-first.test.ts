import { once } from "node:events";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { AuditKind } from "../../src/audit/audit-log.js";
import { CodedError } from "../../src/coded-error.js";
import { acceptedOverTls } from "./accepted.js";
import { type RunningRelay, runRelay, runUpstream, type Upstream } from "./running-relay.js";

/** A record that writes an entry when the test says so. */
let held: Map<AuditKind, { readonly asked: Promise<void>; readonly isAsked: () => void; until: Promise<void> }>;
let invoices: Upstream;
let running: RunningRelay;
/** Connections to the leg that decides. */
let accepted: ReturnType<typeof acceptedOverTls>;

beforeEach(async () => {
  accepted = acceptedOverTls();
  held = new Map();
  invoices = await runUpstream("invoices", "http", (_request, response) => response.end("arrived"));
  running = await runRelay({
    services: [invoices.service],
    rules: "rules:\n  - { name: all, allow: { from: agents/tests, to: invoices } }\n",
    change: (parts) => ({
      ...parts,
      audit: {
        ...parts.audit,
        async appendInTurn(kind, fields) {
          const hold = held.get(kind);
          hold?.isAsked();
          await hold?.until;
          return parts.audit.append(kind, fields);
        },
      },
    }),
  });
});

afterEach(async () => {
  accepted.stop();
  await running.close();
  invoices.close();
});

/** Holds entries of `kind` back. Returns when one is asked for, and what writes them or fails. */
function hold(kind: AuditKind) {
  const asked = Promise.withResolvers<void>();
  const until = Promise.withResolvers<void>();
  held.set(kind, { asked: asked.promise, isAsked: asked.resolve, until: until.promise });
  const over = () => held.delete(kind);
  return {
    asked: asked.promise,
    write: () => void (over() && until.resolve()),
    fail: () => void (over() && until.reject(new CodedError("audit-unwritable", "the disk is full"))),
  };
}

const send = () => httpRequest(`${running.urlOf("invoices")}/v1/x`).end();
const textOf = async (answer: IncomingMessage) => (await answer.setEncoding("utf8").toArray()).join("");
/** Whatever is under way and waits for nothing else has happened after this. */
const settled = async () => {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

test("nothing arrives at the service before the decision is in the record", async () => {
  const decision = hold("decision");
  const sent = send();
  await decision.asked;
  await settled();
  expect(invoices.arrived).toHaveLength(0);
  decision.write();
  const [answer] = (await once(sent, "response")) as [IncomingMessage];
  expect(await textOf(answer)).toBe("arrived");
  expect(invoices.arrived).toHaveLength(1);
});

test("nothing is answered before the outcome is in the record, and then everything that came meanwhile, in order", async () => {
  const pieces = ["one ", "two ", "three"];
  invoices.answer = (_request, response) => {
    response.writeHead(200, { "Content-Type": "text/plain" });
    for (const piece of pieces) response.write(piece);
    response.end();
  };
  const outcome = hold("call");
  const sent = send();
  let answered = false;
  sent.once("response", () => {
    answered = true;
  });
  await outcome.asked;
  await settled();
  expect(answered).toBe(false);
  outcome.write();
  const [answer] = (await once(sent, "response")) as [IncomingMessage];
  expect(await textOf(answer)).toBe(pieces.join(""));
});

test("an outcome that cannot be recorded is answered 503 with nothing of the service's answer", async () => {
  const outcome = hold("call");
  const sent = send();
  await outcome.asked;
  await settled();
  outcome.fail();
  const [answer] = (await once(sent, "response")) as [IncomingMessage];
  expect(answer.statusCode).toBe(503);
  expect(JSON.parse(await textOf(answer))).toMatchObject({ code: "record-unwritable" });
  const again = (await once(send(), "response")) as [IncomingMessage];
  expect(await textOf(again[0])).toBe("arrived");
});

test("a service that breaks off while the outcome is being recorded breaks the answer off", async () => {
  invoices.answer = (_request, response) => {
    response.writeHead(200, { "Content-Length": "100" });
    response.write("half", () => response.destroy());
  };
  const outcome = hold("call");
  const sent = send();
  await outcome.asked;
  await settled();
  outcome.write();
  const [answer] = (await once(sent, "response")) as [IncomingMessage];
  const [error] = await once(answer.resume(), "error");
  expect(error).toBeDefined();
  expect(answer.complete).toBe(false);
  await expect
    .poll(() => running.events.at(-1))
    .toMatchObject({ event: "call.ended", status: 200, error: "upstream-failed" });
  expect(running.record.entries.filter(({ kind }) => kind === "call").map(({ fields }) => fields.status)).toEqual([
    200,
  ]);
});

test("a caller that goes while its decision is being recorded has done nothing: nothing arrives", async () => {
  const decision = hold("decision");
  const sent = send();
  sent.on("error", () => undefined);
  await decision.asked;
  sent.destroy();
  await expect.poll(() => accepted.last?.destroyed).toBe(true);
  decision.write();
  await expect
    .poll(() => running.record.entries.at(-1))
    .toMatchObject({ kind: "call", fields: { error: "caller-gone" } });
  expect(invoices.arrived).toHaveLength(0);
  const [answer] = (await once(send(), "response")) as [IncomingMessage];
  expect(await textOf(answer)).toBe("arrived");
});

test("what a service says before its answer is not taken for it", async () => {
  invoices.answer = (_request, response) => {
    response.writeEarlyHints({ link: "</style.css>; rel=preload" });
    response.end("arrived");
  };
  const [answer] = (await once(send(), "response")) as [IncomingMessage];
  expect(answer.statusCode).toBe(200);
  expect(await textOf(answer)).toBe("arrived");
  expect(running.record.entries.at(-1)).toMatchObject({ kind: "call", fields: { status: 200 } });
});
