import type { AuditEntry } from "../audit/audit-log.js";
import type { Clock } from "../platform/clock.js";
import { METHODS } from "../platform/node-http.js";
import type { AccessRequest, Decision, SubjectProperties } from "./access-request.js";
import { httpAccessRequest, mcpAccessRequest, tcpAccessRequest } from "./access-request-of.js";
import { createDecisionPoint } from "./decision-point.js";
import type { PolicySet } from "./policy-set.js";
import { requestDigest } from "./request-digest.js";

export interface Replay {
  /** Decisions that were asked again, under both sets. */
  readonly replayed: number;
  readonly changed: readonly ChangedDecision[];
  readonly notReplayable: readonly NotReplayable[];
}

export interface ChangedDecision {
  readonly decision: string;
  readonly time: string;
  /** `agents/billing payments/issue_refund`. */
  readonly call: string;
  readonly before: Pick<Decision, "allowed" | "rule" | "reason">;
  readonly after: Pick<Decision, "allowed" | "rule" | "reason">;
}

export interface NotReplayable {
  readonly decision: string;
  readonly time: string;
  readonly call: string;
  readonly why: string;
}

/**
 * Asks again, under both sets and at the time of each, what the record says was decided. The record holds the digest of a request and those values
 * that a condition used: where either set reads another one, the answer cannot be known, and that is said. Limits count nothing here.
 */
export async function replay(entries: readonly AuditEntry[], old: PolicySet, next: PolicySet): Promise<Replay> {
  let time = 0;
  const clock: Clock = { now: () => time, after: () => () => {} };
  const random = (size: number) => new Uint8Array(size);
  const sides = [old, next].map((set) => ({ set, point: createDecisionPoint(set, { clock, random }) }));
  const changed: ChangedDecision[] = [];
  const notReplayable: NotReplayable[] = [];
  let replayed = 0;
  for (const entry of entries) {
    if (entry.kind !== "decision") continue;
    const recorded = recordedCall(entry);
    const { decision, call } = recorded;
    const about = { decision, time: entry.time, call };
    if ("why" in recorded) {
      notReplayable.push({ ...about, why: recorded.why });
      continue;
    }
    time = Date.parse(entry.time);
    const answers = await Promise.all(sides.map(({ set, point }) => askAgain(recorded, set, point)));
    const unknown = answers.find((answer) => typeof answer === "string");
    const [before, after] = answers;
    if (typeof before !== "object" || typeof after !== "object") {
      notReplayable.push({ ...about, why: `the record holds only a digest of ${unknown}` });
      continue;
    }
    replayed += 1;
    if (before.allowed !== after.allowed) changed.push({ ...about, before, after });
  }
  return { replayed, changed, notReplayable };
}

type RecordedCall = { readonly decision: string; readonly call: string } & (
  | { readonly request: AccessRequest; readonly complete: boolean }
  | { readonly why: string }
);

/** The decision under `set`, or the name of a value that it turns on and the record does not hold. */
async function askAgain(
  { request, complete }: { readonly request: AccessRequest; readonly complete: boolean },
  set: PolicySet,
  point: ReturnType<typeof createDecisionPoint>,
): Promise<Pick<Decision, "allowed" | "rule" | "reason"> | string> {
  const { decision, considered } = await point.explain(request);
  const { allowed, rule, reason } = decision;
  if (complete) return { allowed, rule, reason };
  const reached = new Set(considered.filter(({ outcome }) => !outcome.endsWith("-differs")).map((each) => each.rule));
  for (const { name, condition } of set.rules) {
    if (condition === undefined || !reached.has(name)) continue;
    const missing = condition.references.find((path) => !isKnown(request, path));
    if (missing !== undefined) return missing.join(".");
  }
  return { allowed, rule, reason };
}

/** Only what the caller sent is kept as a digest; the rest of the request is in the record. */
function isKnown({ context }: AccessRequest, [root, ...members]: readonly string[]): boolean {
  if (root !== "args" && !(root === "request" && members[0] === "query") && root !== "context") return true;
  let at: unknown = root === "args" ? context?.args : root === "context" ? context : context?.query;
  for (const member of root === "request" ? members.slice(1) : members) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, member)) return false;
    at = (at as Record<string, unknown>)[member];
  }
  return members.length > 0;
}

function recordedCall({ fields }: AuditEntry): RecordedCall {
  const text = (key: string): string => (typeof fields[key] === "string" ? fields[key] : "");
  const decision = text("decision");
  const call = `${text("caller")} ${text("service")} ${text("action")} ${text("target")}`;
  if (text("requestDigest") === "") return { decision, call, why: "decided before the policy was asked" };
  // Their subjects, resources and contexts are any, and not on record.
  if (text("leg") === "authzen") return { decision, call, why: "asked by another enforcement point" };
  const engine = text("engine") || "rules";
  if (engine !== "rules") return { decision, call, why: `decided by ${engine}` };
  const values = typeof fields.values === "object" && fields.values !== null ? fields.values : {};
  const { args, query, cut } = givenValues(values as Record<string, unknown>);
  const launchedBy = Array.isArray(fields.launchedBy) ? fields.launchedBy.map(String) : [];
  const callerIs: SubjectProperties = {
    evidence: text("evidence"),
    ...(launchedBy.length > 0 && { launched_by: launchedBy }),
  };
  const common = { caller: text("caller"), callerIs, service: text("serviceId") };
  const action = text("action");
  const target = text("target");
  const request = requestOf({ ...common, action, target, args, query }, text);
  // The same digest: nothing was left out, so every value that any set reads is known to be absent.
  const complete = requestDigest(request) === text("requestDigest");
  if (!complete && (target.endsWith("…") || cut)) {
    return { decision, call, why: "the record holds a shortened value" };
  }
  return { decision, call, request, complete };
}

/** What the policy was asked, as far as the record tells. */
function requestOf(
  known: {
    readonly caller: string;
    readonly callerIs: SubjectProperties;
    readonly service: string;
    readonly action: string;
    readonly target: string;
    readonly args: Parameters<typeof mcpAccessRequest>[0]["args"];
    readonly query: unknown;
  },
  text: (field: string) => string,
): AccessRequest {
  const { action, target, args, query, ...common } = known;
  const protocol = text("protocol");
  if (protocol === "tcp") return tcpAccessRequest(common);
  if (["http", "grpc"].includes(protocol) || (protocol === "" && METHODS.includes(action))) {
    return httpAccessRequest({
      ...common,
      ...{ method: action, path: target, query: query as Record<string, string> },
      ...(text("upgrade") === "websocket" && { protocol: "websocket" }),
      ...(protocol === "grpc" && { protocol: "grpc" }),
    });
  }
  return mcpAccessRequest({
    ...common,
    method: action,
    ...(args !== undefined && { args }),
    ...(action === "tools/call" && { tool: target }),
  });
}

/** `args.customer["first name"]` as the members that it names. */
function membersIn(path: string): readonly string[] {
  return [...path.matchAll(/\.?([a-zA-Z_][a-zA-Z0-9_]*)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]/g)].map(
    ([, name, index, quoted]) => name ?? index ?? (JSON.parse(quoted ?? '""') as string),
  );
}

/** `{"args.invoice.id": 1017}` as the arguments that it was read from. */
function givenValues(values: Readonly<Record<string, unknown>>): {
  args: Record<string, unknown>;
  query: Record<string, unknown>;
  cut: boolean;
} {
  const args: Record<string, unknown> = Object.create(null);
  const query: Record<string, unknown> = Object.create(null);
  let cut = false;
  for (const [key, value] of Object.entries(values)) {
    const [root, ...rest] = membersIn(key);
    const members = root === "request" ? rest.slice(1) : rest;
    const into = root === "args" ? args : root === "request" && rest[0] === "query" ? query : undefined;
    const last = members.pop();
    if (into === undefined || last === undefined) continue;
    if (typeof value === "string" && (value.endsWith("…") || value.endsWith("characters of JSON)"))) cut = true;
    let at = into;
    for (const member of members) {
      const inner = Object.hasOwn(at, member) ? at[member] : Object.create(null);
      at[member] = inner;
      at = typeof inner === "object" && inner !== null ? (inner as Record<string, unknown>) : Object.create(null);
    }
    at[last] = value;
  }
  return { args, query, cut };
}
