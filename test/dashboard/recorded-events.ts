import { type AgentidEvent, agentidEvent, type NewEvent } from "../../src/control-api/events.js";
import { type Explanation, explanation } from "../../src/control-api/explanation-routes.js";
import { type Status, status } from "../../src/control-api/routes.js";

type NewCall = Omit<Extract<NewEvent, { event: "call" }>, "event">;

/** What a refund above the limit looks like; `changes` make other calls of it. */
export function call(changes: Partial<NewCall> = {}): NewEvent {
  return {
    event: "call",
    verdict: "DENY",
    decision: "7f3k2m9qxc4w81hd",
    caller: "agents/billing",
    callerDetail: "pid 5120, uid 1000, python agents/billing.py",
    service: "payments",
    protocol: "mcp",
    action: "tools/call",
    target: "issue_refund",
    summary: "issue_refund {amount:4200}",
    rule: "small-refunds",
    at: "payments.yaml:11",
    reason: "4200 <= 1000 is false",
    ...changes,
  };
}

export function allowedCall(changes: Partial<NewCall> = {}): NewEvent {
  return call({
    verdict: "ALLOW",
    decision: "a110w3dca11x0000",
    caller: "agents/planner",
    service: "invoices",
    protocol: "http",
    action: "GET",
    target: "/v1/invoices",
    summary: "GET /v1/invoices?open=1",
    rule: "planner-reads",
    reason: "allowed by planner-reads",
    ...changes,
  });
}

/** An event with its time and number, checked against the contract as the daemon's own events are. */
export function numbered(event: NewEvent, sequence: number, time = "2026-11-22T12:04:31.700Z"): AgentidEvent {
  return agentidEvent.parse({ ...event, sequence, time });
}

const MINUTE = 60_000;

/** A trust domain of two agents and two services at `now`; certificates run out in 6:12 and 2:41. */
export function trustDomainStatus(now: number, changes: Partial<Status> = {}): Status {
  const at = (milliseconds: number): string => new Date(now + milliseconds).toISOString();
  return status.parse({
    trustDomain: "shop.local",
    projectDirectory: "/home/dev/shop",
    pid: 4000,
    startedAt: at(-MINUTE),
    ephemeral: false,
    workloadApi: "unix:///run/agentid/workload.sock",
    authzen: { socket: "unix:///run/agentid/authzen.sock" },
    control: "unix:///run/agentid/control.sock",
    policy: { digest: "9c1e55aa", rules: 3, files: 1 },
    authority: { notAfter: at(24 * 60 * MINUTE), rotateAt: at(12 * 60 * MINUTE) },
    identities: [
      {
        name: "agents/billing",
        spiffeId: "spiffe://shop.local/agents/billing",
        how: "launch: python agents/billing.py",
        notAfter: at(6 * MINUTE + 12_000),
        rotateAt: at(3 * MINUTE),
        pids: [5120],
      },
      {
        name: "agents/planner",
        spiffeId: "spiffe://shop.local/agents/planner",
        how: "user dev, exe /usr/bin/node",
        notAfter: at(2 * MINUTE + 41_000),
        rotateAt: at(-1_000),
        pids: [],
      },
    ],
    services: [
      {
        name: "payments",
        spiffeId: "spiffe://shop.local/mcp/payments",
        protocol: "mcp",
        url: "http://127.0.0.1:41001/mcp",
        mtls: "127.0.0.1:42001",
        upstream: "node mcp/payments.js",
        reachableAround: false,
        state: "running",
      },
      {
        name: "legacy",
        spiffeId: "spiffe://shop.local/services/legacy",
        protocol: "http",
        url: "http://127.0.0.1:41002",
        mtls: "127.0.0.1:42002",
        upstream: "http://127.0.0.1:8080",
        reachableAround: true,
        state: "failed",
      },
    ],
    problems: [],
    counts: { calls: 0, denied: 0 },
    recordSize: 0,
    recordHead: "0".repeat(64),
    nextEvent: 0,
    ...changes,
  });
}

export function whyDenied(decision: string): Explanation {
  return explanation.parse({
    decision,
    verdict: "DENY",
    time: "2026-11-22T12:04:31.700Z",
    caller: "agents/billing",
    callerDetail: "pid 5120, uid 1000, python agents/billing.py",
    service: "payments",
    action: "tools/call",
    target: "issue_refund",
    arguments: "{amount:4200, invoice:1017}",
    rule: "small-refunds",
    at: "payments.yaml:11",
    reason: "4200 <= 1000 is false",
    considered: [
      {
        rule: "billing-reads",
        at: "payments.yaml:4",
        effect: "allow",
        outcome: "no match",
        detail: "tools get_invoice, list_invoices ≠ issue_refund",
      },
      {
        rule: "small-refunds",
        at: "payments.yaml:11",
        effect: "allow",
        outcome: "condition false",
        detail: "4200 <= 1000 is false",
      },
    ],
    suggestion:
      "- name: billing-issue-refund\n  allow: { from: agents/billing, to: mcp/payments, tools: [issue_refund] }\n  when: args.amount <= 4200\n",
    proposals: [],
  });
}

export function waitingReload(changes: Partial<Extract<NewEvent, { event: "reload" }>> = {}): NewEvent {
  return {
    event: "reload",
    outcome: "waiting",
    widened: true,
    changes: ["+ allow agents/planner to payments: issue_refund", "- deny nobody-drops-tables"],
    policyDigest: "77aa01bc",
    ...changes,
  };
}
