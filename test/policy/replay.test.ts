import { expect, test } from "vitest";
import type { AuditEntry, AuditFields } from "../../src/audit/audit-log.js";
import { replay } from "../../src/policy/replay.js";
import { requestDigest } from "../../src/policy/request-digest.js";
import { call, decisionsOf, http, PAYMENTS_YAML, setOf } from "./shop.js";

type Asked = Parameters<typeof requestDigest>[0];

/** The entry that the relay writes of a decision. */
function entryOf(request: Asked, more: AuditFields = {}): AuditEntry {
  const decision = decisionsOf(PAYMENTS_YAML).decide(request);
  const { tool, path } = request.resource.properties ?? {};
  const fields: AuditFields = {
    decision: decision.id,
    verdict: decision.allowed ? "ALLOW" : "DENY",
    caller: request.subject.id,
    evidence: "launch",
    service: "payments",
    serviceId: request.resource.id,
    protocol: request.resource.type === "http" ? "http" : "mcp",
    action: request.action.name.replace(/^http:/, ""),
    target: String(tool ?? path ?? ""),
    engine: decision.engine,
    rule: decision.rule,
    values: decision.values as AuditFields,
    requestDigest: requestDigest(request),
    ...more,
  };
  return { sequence: 0, time: "2026-03-02T09:00:00.000Z", kind: "decision", fields, hash: "" };
}
const launched = (request: Asked): Asked => ({
  ...request,
  subject: { ...request.subject, properties: { evidence: "launch" } },
});
const refund = (args: Record<string, unknown>) => launched(call("issue_refund", args));
const LOOSER = PAYMENTS_YAML.replace("<= 1000", "<= 5000");

test("a recorded call that the new set decides otherwise is named, with both decisions", async () => {
  const entries = [
    entryOf(refund({ amount: 4200 })),
    entryOf(refund({ amount: 900 })),
    entryOf(launched(call("get_invoice", { id: 1017 }))),
    entryOf(launched(http("DELETE", "/v1/invoices/1"))),
  ];
  const { replayed, changed, notReplayable } = await replay(entries, setOf(PAYMENTS_YAML), setOf(LOOSER));
  expect({ replayed, notReplayable }).toEqual({ replayed: 4, notReplayable: [] });
  expect(changed).toEqual([
    {
      decision: entries[0]?.fields.decision,
      time: "2026-03-02T09:00:00.000Z",
      call: "spiffe://shop.local/agents/billing payments tools/call issue_refund",
      before: expect.objectContaining({ allowed: false, rule: "small-refunds" }),
      after: expect.objectContaining({ allowed: true, rule: "small-refunds" }),
    },
  ]);
  expect((await replay(entries, setOf(PAYMENTS_YAML), setOf(PAYMENTS_YAML))).changed).toEqual([]);
});

test("a value that the record holds only as part of a digest is said, not guessed", async () => {
  const byInvoice = PAYMENTS_YAML.replace("args.amount <= 1000", "args.amount <= 1000 && args.invoice == 1017");
  const entry = entryOf(refund({ amount: 900, invoice: 1017 }));
  const told = await replay([entry], setOf(PAYMENTS_YAML), setOf(byInvoice));
  expect(told).toMatchObject({
    replayed: 0,
    changed: [],
    notReplayable: [{ why: "the record holds only a digest of args.invoice" }],
  });
  // Without it the digest shows that nothing was left out: the argument is known to be absent.
  const bare = entryOf(refund({ amount: 900 }));
  expect(await replay([bare], setOf(PAYMENTS_YAML), setOf(byInvoice))).toMatchObject({
    replayed: 1,
    changed: [{ before: { allowed: true }, after: { allowed: false } }],
  });
});

test("it is asked at the time of the decision", async () => {
  const early = PAYMENTS_YAML.replace("args.amount <= 1000", "now.getHours() < 10");
  const late = PAYMENTS_YAML.replace("args.amount <= 1000", "now.getHours() >= 10");
  const entry = entryOf(refund({}), { values: {} });
  expect((await replay([entry], setOf(early), setOf(late))).changed).toMatchObject([
    { before: { allowed: true }, after: { allowed: false } },
  ]);
});

test("what was decided without the rules is not replayed", async () => {
  const entries = [
    entryOf(refund({ amount: 1 }), { requestDigest: null }),
    entryOf(refund({ amount: 1 }), { engine: "finance" }),
    { ...entryOf(refund({ amount: 1 })), kind: "call" as const },
  ];
  const { replayed, notReplayable } = await replay(entries, setOf(PAYMENTS_YAML), setOf(LOOSER));
  expect([replayed, notReplayable.map(({ why }) => why)]).toEqual([
    0,
    ["decided before the policy was asked", "decided by finance"],
  ]);
});
