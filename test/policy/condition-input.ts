import type { ConditionInput, ConditionOutcome } from "../../src/policy/condition.js";

const BILLING = "spiffe://shop.local/agents/billing";

/** What a condition sees of a tool call of billing at payments, at noon UTC of a Wednesday. */
export function conditionInputOf(args: Record<string, unknown>, more: Partial<ConditionInput> = {}): ConditionInput {
  return {
    args,
    caller: {
      ...{ id: BILLING, name: "agents/billing", trustDomain: "shop.local" },
      ...{ evidence: "launch", launchedBy: [], labels: {} },
    },
    subject: { type: "spiffe", id: BILLING, properties: {} },
    user: {},
    actors: [],
    action: { name: "tools/call", properties: {} },
    resource: {
      ...{ type: "mcp-tool", id: "spiffe://shop.local/mcp/payments", name: "mcp/payments", tool: "issue_refund" },
      ...{ uri: "", prompt: "", labels: {}, properties: {} },
    },
    request: { method: "tools/call", path: "", query: {} },
    context: {},
    now: new Date(Date.UTC(2025, 0, 15, 12)),
    ...more,
  };
}

/** Of an input that is small: the answer comes at once. */
export function answeredAtOnce(outcome: ConditionOutcome | Promise<ConditionOutcome>): ConditionOutcome {
  if (outcome instanceof Promise) throw new Error("not answered at once");
  return outcome;
}
