import type { Obligation } from "./access-request.js";
import type { Condition } from "./condition.js";
import { escapedText } from "./condition-values.js";
import type { RateLimit } from "./limit.js";
import {
  decodedPattern,
  type IdentityParts,
  type IdentityPattern,
  matchesIdentity,
  matchesName,
  matchesSegments,
  type NamePattern,
  type SegmentPattern,
  type UriParts,
} from "./pattern.js";
import type { Term } from "./term.js";

/** One rule of a policy file in its long form, every name and label resolved. What is undefined restricts nothing. */
export interface Rule {
  readonly name: string;
  /** `match` neither allows nor denies: its limit and what it requires hold whichever rule allows. */
  readonly effect: "allow" | "deny" | "match";
  /** `policies/payments.yaml:11`. */
  readonly at: string;
  /** It is evaluated and reported, and decides nothing. */
  readonly shadow: boolean;
  /** `spiffe`, or a type of `entities.yaml`. */
  readonly subjectType: string | undefined;
  /** Of subjects that are entities. */
  readonly subjectIds: readonly NamePattern[] | undefined;
  /** Of subjects that are identities. */
  readonly from: readonly IdentityPattern[] | undefined;
  /** `http`, `mcp`, `mcp-tool`, `tcp`, or a type of `entities.yaml`. */
  readonly resourceType: string | undefined;
  /** Of resources that are entities. */
  readonly resourceIds: readonly NamePattern[] | undefined;
  /** Always identities: the name of a service has been replaced by the identity it speaks as. */
  readonly to: readonly IdentityPattern[] | undefined;
  /** Names of actions: `http:GET`, `resources/read`, `connect`, `write`. */
  readonly actions: readonly NamePattern[] | undefined;
  readonly tools: readonly NamePattern[] | undefined;
  readonly paths: readonly SegmentPattern[] | undefined;
  /** Of MCP resources. */
  readonly uris: readonly SegmentPattern[] | undefined;
  readonly prompts: readonly NamePattern[] | undefined;
  /** What else must hold, each of them; before the condition. */
  readonly terms: readonly Term[];
  readonly condition: Condition | undefined;
  readonly limit: RateLimit | undefined;
  readonly requires: readonly Obligation[];
  /** For the caller, when the rule denies or its condition keeps it from allowing. */
  readonly message: string | undefined;
  readonly description: string | undefined;
}

/** A request as rules see it: parsed once. */
export interface RuledRequest {
  readonly subjectType: string;
  readonly subjectId: string;
  /** Of a subject that is an identity. */
  readonly caller: IdentityParts | undefined;
  /** `mcp-tool` exactly for `tools/call`, whatever the request calls it. */
  readonly resourceType: string;
  readonly resourceId: string;
  /** Of a resource that is a service. */
  readonly service: IdentityParts | undefined;
  readonly protocol: "http" | "mcp" | "tcp" | "entity";
  /** `http:GET`, `tools/call`, `connect`, `write`. */
  readonly action: string;
  /** Present exactly for `tools/call`. */
  readonly tool: string | undefined;
  /** Present exactly for HTTP. */
  readonly path: string | undefined;
  readonly pathSegments: readonly string[];
  /** Present where the method of MCP is about one resource. */
  readonly uri: UriParts | undefined;
  /** Present for `prompts/get`. */
  readonly prompt: string | undefined;
}

export type RuleDifference = "subject-differs" | "resource-differs" | "action-differs";

/** The first way in which `rule` does not speak of `request`, or undefined where it does (its terms and condition aside). */
export function differenceOf(rule: Rule, request: RuledRequest): RuleDifference | undefined {
  if (!speaksOfSubject(rule, request)) return "subject-differs";
  if (!speaksOfResource(rule, request)) return "resource-differs";
  return speaksOfAction(rule, request) ? undefined : "action-differs";
}

export function speaksOfSubject(rule: Rule, { subjectType, subjectId, caller }: RuledRequest): boolean {
  if (rule.subjectType !== undefined && rule.subjectType !== subjectType) return false;
  if (rule.subjectIds !== undefined && !matchesAny(rule.subjectIds, subjectId)) return false;
  return rule.from === undefined || (caller !== undefined && speaksOf(rule.from, caller));
}

export function speaksOfResource(rule: Rule, { resourceType, resourceId, service }: RuledRequest): boolean {
  if (rule.resourceType !== undefined && !speaksOfType(rule, resourceType)) return false;
  if (rule.resourceIds !== undefined && !matchesAny(rule.resourceIds, resourceId)) return false;
  return rule.to === undefined || (service !== undefined && speaksOf(rule.to, service));
}

/** A tool is part of its MCP server: what is forbidden there is forbidden for its tools. An allow of the server's methods allows no tool. */
function speaksOfType({ effect, resourceType }: Rule, asked: string): boolean {
  return resourceType === asked || (effect !== "allow" && resourceType === "mcp" && asked === "mcp-tool");
}

function speaksOfAction(rule: Rule, request: RuledRequest): boolean {
  if (rule.tools !== undefined && !matchesAny(rule.tools, request.tool)) return false;
  if (rule.actions !== undefined && !matchesAny(rule.actions, request.action)) return false;
  if (rule.paths !== undefined) {
    if (request.path === undefined) return false;
    if (!matchesAnyPath(rule.paths, request.pathSegments)) return false;
  }
  if (rule.uris !== undefined && !speaksOfUri(rule, rule.uris, request.uri)) return false;
  return rule.prompts === undefined || matchesAny(rule.prompts, request.prompt);
}

/** What could be read as another URI is within no allow and within every deny; a deny of a place is one of it whatever its query and its encoding. */
function speaksOfUri(rule: Rule, uris: readonly SegmentPattern[], uri: UriParts | undefined): boolean {
  if (uri === undefined) return false;
  if (uri.ambiguous) return rule.effect !== "allow";
  if (uris.some((pattern) => matchesSegments(pattern, uri.segments))) return true;
  if (rule.effect === "allow") return false;
  const { segments, place } = uri.decoded;
  return uris
    .map(decodedPattern)
    .some((pattern) => matchesSegments(pattern, place) || matchesSegments(pattern, segments));
}

// Loops, here and below: each call asks several rules, and a closure for each question is garbage for each of them.
function matchesAny(patterns: readonly NamePattern[], name: string | undefined): boolean {
  if (name === undefined) return false;
  for (const pattern of patterns) if (matchesName(pattern, name)) return true;
  return false;
}

function matchesAnyPath(patterns: readonly SegmentPattern[], segments: readonly string[]): boolean {
  for (const pattern of patterns) if (matchesSegments(pattern, segments)) return true;
  return false;
}

/** Does the rule concern everything between its subjects and its resources, with no further question? */
export function isUnrestricted(rule: Rule): boolean {
  return (
    isUnconditional(rule) &&
    rule.resourceType === undefined &&
    rule.tools === undefined &&
    rule.actions === undefined &&
    rule.paths === undefined &&
    rule.uris === undefined &&
    rule.prompts === undefined
  );
}

/** Does the rule speak whatever the arguments, the user, the moment? */
export function isUnconditional(rule: Rule): boolean {
  return rule.condition === undefined && rule.terms.length === 0;
}

export function speaksOf(patterns: readonly IdentityPattern[] | undefined, identity: IdentityParts): boolean {
  if (patterns === undefined) return true;
  for (const pattern of patterns) if (matchesIdentity(pattern, identity)) return true;
  return false;
}

/** One line that says all that the rule does: `allow small-refunds: agents/billing → mcp/payments tools issue_refund when args.amount <= 1000`. */
export function describeRule(rule: Rule): string {
  return `${rule.shadow ? "shadow " : ""}${rule.effect} ${rule.name}: ${describeScope(rule)}`;
}

/** What a rule speaks of, without its name: `agents/billing → mcp/payments tools issue_refund`. */
export function describeScope(rule: Rule): string {
  const words = [`${subjects(rule)} → ${resources(rule)}`];
  const listed = (what: string, patterns: readonly { text: string }[] | undefined, show = (text: string) => text) => {
    if (patterns !== undefined) words.push(`${what}${patterns.map(({ text }) => show(text)).join(", ")}`);
  };
  listed("tools ", rule.tools);
  listed("", rule.actions, methodName);
  listed("", rule.paths);
  listed("resources ", rule.uris);
  listed("prompts ", rule.prompts);
  words.push(...rule.terms.map(({ text }) => text));
  if (rule.condition !== undefined) words.push(`when ${rule.condition.source.replaceAll(/\s+/g, " ").trim()}`);
  if (rule.limit !== undefined) words.push(`limit ${rule.limit.text}`);
  if (rule.requires.length > 0) words.push(`require ${rule.requires.map(({ type }) => type).join(", ")}`);
  // A tool's name can come from a call, by way of a rule that was proposed for it.
  return escapedText(words.join(" "));
}

function subjects({ subjectType, subjectIds, from }: Rule): string {
  if (from !== undefined) return some(from.map(({ shown }) => shown));
  if (subjectType === undefined) return "anyone";
  return subjectIds === undefined ? `any ${subjectType}` : some(subjectIds.map(({ text }) => `${subjectType}:${text}`));
}

function resources({ resourceType, resourceIds, to }: Rule): string {
  if (to !== undefined) return some(to.map(({ shown }) => shown));
  if (resourceType === undefined) return "anyone";
  return resourceIds === undefined
    ? `any ${resourceType}`
    : some(resourceIds.map(({ text }) => `${resourceType}:${text}`));
}

const MOST_SHOWN = 12;

function some(names: readonly string[]): string {
  if (names.length <= MOST_SHOWN) return names.join(", ");
  return `${names.slice(0, MOST_SHOWN).join(", ")} and ${names.length - MOST_SHOWN} more`;
}

/** `GET` of `http:GET`; an MCP method as it is. */
export function methodName(action: string): string {
  return action.startsWith("http:") ? action.slice("http:".length) : action;
}
