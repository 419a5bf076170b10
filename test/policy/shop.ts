import { randomBytes } from "node:crypto";
import type { Clock } from "../../src/platform/clock.js";
import type { AccessRequest, Decision, DecisionPoint, Explained } from "../../src/policy/access-request.js";
import { httpAccessRequest, mcpAccessRequest } from "../../src/policy/access-request-of.js";
import { createDecisionPoint } from "../../src/policy/decision-point.js";
import type { Enforcement } from "../../src/policy/enforcement.js";
import type { PolicyEngine } from "../../src/policy/engine.js";
import type { LimitCounts } from "../../src/policy/limit-counts.js";
import type { PolicyNames } from "../../src/policy/policy-names.js";
import { type LoadedPolicySet, type PolicySet, policySetOf } from "../../src/policy/policy-set.js";
import { problemLine } from "../../src/policy/yaml-file.js";
import { TrustDomain } from "../../src/spiffe/spiffe-id.js";

/** The trust domain of EXPERIENCE: two agents, an MCP server, an HTTP service. */
export const shop: PolicyNames = {
  trustDomain: TrustDomain.parse("shop.local"),
  identities: ["agents/billing", "agents/planner", "mcp/payments", "services/invoices"],
  services: [
    { name: "payments", identity: "mcp/payments", protocol: "mcp" },
    { name: "invoices", identity: "services/invoices", protocol: "http" },
  ],
};

export const PAYMENTS_YAML = `rules:
  - name: billing-reads
    allow: { from: agents/billing, to: mcp/payments, tools: [get_invoice, list_invoices] }

  - name: small-refunds
    allow: { from: agents/billing, to: mcp/payments, tools: [issue_refund] }
    when: args.amount <= 1000
    message: Refunds above 1000 need the finance lead. Ask for an approval.

  - name: nobody-drops-tables
    deny: { to: services/*, method: DELETE }
`;

export const id = (name: string) => `spiffe://shop.local/${name}`;

/** Noon UTC of a Wednesday. */
const noon: Clock = { now: () => Date.UTC(2025, 0, 15, 12), after: () => () => {} };

export function load(...texts: string[]): LoadedPolicySet {
  return loadFor(shop, ...texts);
}

export function loadFor(names: PolicyNames, ...texts: string[]): LoadedPolicySet {
  return policySetOf(
    texts.map((text, index) => ({ file: `policies/${index}.yaml`, bytes: Buffer.from(text) })),
    names,
  );
}

/** The set of rules without errors; throws what is wrong with them otherwise. */
export function setOf(...texts: string[]): PolicySet {
  const { set, problems } = load(...texts);
  if (set === undefined) throw new Error(problems.map(problemLine).join("\n"));
  return set;
}

/** A decision point over our rules alone, which answer without a promise. */
export interface RulesAlone extends DecisionPoint {
  decide(request: AccessRequest, enforcement?: Enforcement): Decision;
  explain(request: AccessRequest): Explained;
}

export function decisionsOf(...texts: string[]): RulesAlone {
  return decisionsWith({}, ...texts);
}

export interface World {
  readonly names?: PolicyNames;
  /** Text of `entities.yaml`. */
  readonly entities?: string;
  readonly clock?: Clock;
  readonly limits?: LimitCounts;
  readonly engines?: readonly PolicyEngine[];
}

/** The set of rules without errors in this world; throws what is wrong with them otherwise. */
export function setWith({ names = shop, entities }: World, ...texts: string[]): PolicySet {
  const { set, problems } = loadWith({ names, ...(entities !== undefined && { entities }) }, ...texts);
  if (set === undefined) throw new Error(problems.map(problemLine).join("\n"));
  return set;
}

export function loadWith({ names = shop, entities }: World, ...texts: string[]): LoadedPolicySet {
  const files = texts.map((text, index) => ({ file: `policies/${index}.yaml`, bytes: Buffer.from(text) }));
  return policySetOf(files, names, entities);
}

export function decisionsWith(world: World, ...texts: string[]): RulesAlone {
  return decisionsIn(setWith(world, ...texts), world);
}

export function decisionsIn(set: PolicySet, { clock = noon, limits, engines }: World = {}): RulesAlone {
  const more = { ...(limits !== undefined && { limits }), ...(engines !== undefined && { engines }) };
  const point = createDecisionPoint(set, { clock, random: randomBytes, ...more });
  return {
    ...point,
    decide: (request, enforcement) => settled(point.decide(request, enforcement)),
    explain: (request) => settled(point.explain(request)),
  };
}

function settled<Value>(value: Value | Promise<Value>): Value {
  if (value instanceof Promise) throw new Error("a promise where an engine answers at once");
  return value;
}

/** A tool call of billing at payments. */
export function call(tool: string, args: Record<string, unknown> = {}, caller = "agents/billing"): AccessRequest {
  return mcpAccessRequest({ caller: id(caller), service: id("mcp/payments"), method: "tools/call", tool, args });
}

/** An MCP message of billing at payments that calls no tool. */
export function message(method: string, caller = "agents/billing"): AccessRequest {
  return mcpAccessRequest({ caller: id(caller), service: id("mcp/payments"), method });
}

/** An HTTP request of billing at invoices. */
export function http(method: string, path: string, query: Record<string, string> = {}): AccessRequest {
  return httpAccessRequest({ caller: id("agents/billing"), service: id("services/invoices"), method, path, query });
}
