import { request } from "node:http";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { CodedError } from "../../src/coded-error.js";
import type { Decision, DecisionPoint } from "../../src/policy/access-request.js";
import { egressService } from "../../src/relay/running-service.js";
import { SecretError } from "../../src/secrets/secret-error.js";
import { acceptedOverTls } from "./accepted.js";
import { type Outside, runOutside, secret, target } from "./outside.js";
import { type RunningRelay, runRelay, runUpstream, type Upstream } from "./running-relay.js";
import { echo, plainTo, runTcpUpstream, type TcpUpstream } from "./tcp-services.js";

const each = (name: string, to: string) =>
  `{ name: ${name}, allow: { from: agents/tests, to: ${to} }, limit: { rate: 1, per: hour, backoff: { first: 1s, max: 1s } } }`;
const RULES = `rules: [${each("invoices", "invoices")}, ${each("openai", "openai")}, ${each("echo", "echo")}]`;
/** Other rules with the same limits: a reload in between. */
const SAME = `${RULES} # again`;

let invoices: Upstream;
let bytes: TcpUpstream;
let outside: Outside;
let running: RunningRelay;
let heldUntil: (() => Promise<void>) | undefined;
let isUnwritable = false;
let secretOf: () => Promise<string>;

function late(point: DecisionPoint): DecisionPoint {
  return {
    ...point,
    async decide(asked, enforcement): Promise<Decision> {
      const decision = await point.decide(asked, enforcement);
      await heldUntil?.();
      return decision;
    },
  };
}

beforeAll(async () => {
  outside = await runOutside();
  outside.answer = (_request, response) => response.end("outside");
});

afterAll(() => outside.close());

beforeEach(async () => {
  secretOf = async () => "s3cret";
  isUnwritable = false;
  invoices = await runUpstream("invoices", "http", (_request, response) => response.end("ok"));
  bytes = await runTcpUpstream("echo", echo);
  const openai = target("openai", outside, { header: { Authorization: `Bearer ${secret("openai")}` } });
  running = await runRelay({
    services: [invoices.service, bytes.service, egressService(openai)],
    rules: RULES,
    change: (parts) => {
      let [point, slow] = [parts.decisionPoint(), late(parts.decisionPoint())];
      return {
        ...parts,
        decisionPoint() {
          if (parts.decisionPoint() !== point) [point, slow] = [parts.decisionPoint(), late(parts.decisionPoint())];
          return slow;
        },
        secrets: { valueOf: () => secretOf() },
        audit: {
          ...parts.audit,
          async appendInTurn(kind, fields) {
            if (isUnwritable) throw new CodedError("audit-unwritable", "the disk is full");
            return parts.audit.append(kind, fields);
          },
        },
      };
    },
  });
});

afterEach(async () => {
  heldUntil = undefined;
  await running.close();
  invoices.close();
  await bytes.close();
});

const get = (name = "invoices") => fetch(`${running.urlOf(name)}/a`).then(({ status }) => status);

/** Calls with `ask` while its decision is made and not yet known; `meanwhile` happens before it is. */
async function during<Answer>(ask: () => Promise<Answer>, meanwhile: () => unknown): Promise<Answer> {
  const { promise: told, resolve: tell } = Promise.withResolvers<void>();
  const { promise: made, resolve: isMade } = Promise.withResolvers<void>();
  heldUntil = () => {
    heldUntil = undefined;
    isMade();
    return told;
  };
  const answer = ask();
  await made;
  await meanwhile();
  tell();
  return await answer;
}

const lastDecision = () => running.record.entries.findLast(({ kind }) => kind === "decision")?.fields;

test("a limit of one lets one call through, of each kind", async () => {
  expect([await get(), await get()]).toEqual([200, 403]);
  expect([await get("openai"), await get("openai")]).toEqual([200, 403]);
  const plain = await plainTo(running, "echo");
  plain.socket.end("x");
  expect(await plain.over).toBe("end");
  const refused = await plainTo(running, "echo");
  refused.socket.end();
  await refused.over;
  expect(lastDecision()).toMatchObject({ verdict: "DENY", rule: "echo" });
});

test("a caller that goes before it is decided costs nothing", async () => {
  const ask = async () => {
    const sent = request(`${running.urlOf("invoices")}/a`).end();
    sent.on("error", () => undefined);
    await new Promise((resolve) => sent.once("close", resolve));
  };
  const accepted = acceptedOverTls();
  await during(ask, async () => {
    running.configure(running.identities.filter(({ name }) => name !== "agents/tests"));
    await expect.poll(() => accepted.last?.destroyed).toBe(true);
  });
  accepted.stop();
  await expect.poll(() => lastDecision()?.reason).toBe("the caller had gone before it was decided");
  running.configure(running.identities);
  expect([await get(), await get()]).toEqual([200, 403]);
});

test("what is decided again by other rules is counted once", async () => {
  expect(await during(get, () => running.setRules(SAME))).toBe(200);
  expect(await get()).toBe(403);
  const connected = await during(
    async () => await plainTo(running, "echo"),
    () => running.setRules(RULES),
  );
  connected.socket.end("x");
  expect(await connected.over).toBe("end");
  expect(connected.text()).toBe("x");
});

test("what cannot be recorded costs nothing", async () => {
  isUnwritable = true;
  expect(await get()).toBe(503);
  const broken = await plainTo(running, "echo");
  broken.socket.end();
  await broken.over;
  isUnwritable = false;
  expect([await get(), await get()]).toEqual([200, 403]);
  const plain = await plainTo(running, "echo");
  plain.socket.end("x");
  expect(await plain.over).toBe("end");
  expect(plain.text()).toBe("x");
});

test("a call to a target whose secret is not there costs nothing", async () => {
  secretOf = async () => {
    throw new SecretError("secret-missing", "not there");
  };
  expect(await get("openai")).toBe(503);
  secretOf = async () => "s3cret";
  expect([await get("openai"), await get("openai")]).toEqual([200, 403]);
});

test("a caller that goes while the secret of its target is fetched costs nothing", async () => {
  const { promise: asked, resolve: ask } = Promise.withResolvers<void>();
  const { promise: given, resolve: give } = Promise.withResolvers<string>();
  secretOf = () => {
    ask();
    return given;
  };
  const sent = request(`${running.urlOf("openai")}/a`).end();
  sent.on("error", () => undefined);
  const closed = new Promise((resolve) => sent.once("close", resolve));
  await asked;
  running.configure(running.identities.filter(({ name }) => name !== "agents/tests"));
  await closed;
  // The relay has heard of it too by the time that it has answered somebody else.
  expect(await get("openai")).toBe(403);
  give("s3cret");
  await expect
    .poll(() => running.record.entries.filter(({ kind }) => kind === "call").map(({ fields }) => fields.error))
    .toContain("caller-gone");
  running.configure(running.identities);
  secretOf = async () => "s3cret";
  expect([await get("openai"), await get("openai")]).toEqual([200, 403]);
});
