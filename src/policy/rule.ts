import type { Condition } from "./condition.js";
import {
  type IdentityParts,
  type IdentityPattern,
  matchesIdentity,
  matchesName,
  matchesSegments,
  type NamePattern,
  type SegmentPattern,
} from "./pattern.js";

/** One rule of a policy file in its long form, every name resolved. What is undefined restricts nothing. */
export interface Rule {
  readonly name: string;
  readonly effect: "allow" | "deny";
  /** `policies/payments.yaml:11`. */
  readonly at: string;
  readonly from: readonly IdentityPattern[] | undefined;
  /** Always identities: the name of a service has been replaced by the identity it speaks as. */
  readonly to: readonly IdentityPattern[] | undefined;
  readonly tools: readonly NamePattern[] | undefined;
  /** Names of actions: `http:GET`, `resources/read`. */
  readonly methods: readonly string[] | undefined;
  readonly paths: readonly SegmentPattern[] | undefined;
  readonly condition: Condition | undefined;
  /** For the caller, when the rule denies or its condition keeps it from allowing. */
  readonly message: string | undefined;
  readonly description: string | undefined;
}

/** A request as rules see it: parsed once, with the caller known. */
export interface RuledRequest {
  readonly caller: IdentityParts;
  readonly service: IdentityParts;
  readonly protocol: "http" | "mcp";
  /** `http:GET`, `tools/call`. */
  readonly action: string;
  /** Present exactly for `tools/call`. */
  readonly tool: string | undefined;
  /** Present exactly for HTTP. */
  readonly path: string | undefined;
  readonly pathSegments: readonly string[];
}

export type RuleDifference = "subject-differs" | "resource-differs" | "action-differs";

/** The first way in which `rule` does not speak of `request`, or undefined where it does (its condition aside). */
export function differenceOf(rule: Rule, request: RuledRequest): RuleDifference | undefined {
  if (!speaksOf(rule.from, request.caller)) return "subject-differs";
  if (!speaksOf(rule.to, request.service)) return "resource-differs";
  if (rule.tools !== undefined) {
    const { tool } = request;
    if (tool === undefined || !rule.tools.some((pattern) => matchesName(pattern, tool))) return "action-differs";
  }
  if (rule.methods !== undefined && !rule.methods.includes(request.action)) return "action-differs";
  if (rule.paths !== undefined) {
    if (request.path === undefined) return "action-differs";
    if (!rule.paths.some((pattern) => matchesSegments(pattern, request.pathSegments))) return "action-differs";
  }
  return undefined;
}

/** Does the rule concern everything between this caller and this service, with no further question? */
export function isUnrestricted(rule: Rule): boolean {
  return (
    rule.tools === undefined && rule.methods === undefined && rule.paths === undefined && rule.condition === undefined
  );
}

export function speaksOf(patterns: readonly IdentityPattern[] | undefined, identity: IdentityParts): boolean {
  return patterns === undefined || patterns.some((pattern) => matchesIdentity(pattern, identity));
}

/** One line that says all that the rule does: `allow small-refunds: agents/billing → mcp/payments tools issue_refund when args.amount <= 1000`. */
export function describeRule(rule: Rule): string {
  return `${rule.effect} ${rule.name}: ${describeScope(rule)}`;
}

/** What a rule speaks of, without its name: `agents/billing → mcp/payments tools issue_refund`. */
export function describeScope(rule: Rule): string {
  const words = [`${listIdentities(rule.from)} → ${listIdentities(rule.to)}`];
  if (rule.tools !== undefined) words.push(`tools ${rule.tools.map((tool) => tool.text).join(", ")}`);
  if (rule.methods !== undefined) words.push(rule.methods.map(methodName).join(", "));
  if (rule.paths !== undefined) words.push(rule.paths.map((path) => path.text).join(", "));
  if (rule.condition !== undefined) words.push(`when ${rule.condition.source.replaceAll(/\s+/g, " ").trim()}`);
  return words.join(" ");
}

function listIdentities(patterns: readonly IdentityPattern[] | undefined): string {
  return patterns === undefined ? "anyone" : patterns.map((pattern) => pattern.path.text).join(", ");
}

/** `GET` of `http:GET`; an MCP method as it is. */
export function methodName(action: string): string {
  return action.startsWith("http:") ? action.slice("http:".length) : action;
}
