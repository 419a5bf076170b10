import { z } from "zod";
import { messageOf } from "../coded-error.js";
import { METHODS } from "../platform/node-http.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import type { AccessRequest, Properties, SubjectProperties } from "./access-request.js";
import { CONNECT, httpAccessRequest, mcpAccessRequest, tcpAccessRequest } from "./access-request-of.js";
import { MCP_METHODS } from "./mcp-methods.js";
import { isIdentityName, nearestHint, type PolicyNames } from "./policy-names.js";
import type { PathInFile, YamlFile } from "./yaml-file.js";

const properties = z.record(z.string(), z.unknown());
const entity = z.strictObject({ type: z.string().min(1), id: z.string().min(1), properties: properties.optional() });

/** AuthZEN's own shape, for what no relay asks: a user who writes a record. */
const question = z.strictObject({
  subject: entity.optional().describe("left out: the identity of `as`"),
  action: z.union([z.string().min(1), z.strictObject({ name: z.string().min(1), properties: properties.optional() })]),
  resource: entity,
  context: properties.optional(),
});

const duration = z
  .string()
  .regex(/^\d{1,6}(ms|s|m|h|d)$/, "must be a duration such as 30s, 10m or 24h")
  .transform((text) => {
    const unit = /[a-z]+$/.exec(text)?.[0] ?? "";
    return Number.parseInt(text, 10) * (UNITS[unit] ?? 1);
  });
const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

const expectation = z.strictObject({
  call: z
    .string()
    .optional()
    .describe("`payments/get_invoice`, `GET invoices /v1/invoices`, `resources/read payments`, `connect orders`"),
  ask: question.optional().describe("instead of a call: the question in AuthZEN's shape"),
  with: properties.optional().describe("arguments of the tool, or the query"),
  after: duration.optional().describe("the clock goes on by this much before the call: 30s"),
  times: z.int().min(1).max(10_000).optional().describe("asked so often, each with this answer"),
  allow: z.boolean(),
  rule: z.string().optional().describe("the rule that must decide; `default` for none"),
  obligations: z.array(z.string()).optional().describe("types of the obligations that an allow must come with"),
  shadow: z
    .array(z.string())
    .optional()
    .describe("rules in shadow that would change the answer; `default` where an identity in shadow was let through"),
});

const oneOrMore = z.union([z.string(), z.array(z.string()).min(1)]);

/** `policies/*.test.yaml`. */
const fixtureFileSchema = z.strictObject({
  tests: z.array(
    z.strictObject({
      name: z.string().min(1),
      as: oneOrMore.optional().describe("identities that call, each for itself; left out: a caller without one"),
      launchedBy: z.array(z.string()).optional().describe("agents that launched the caller, nearest first"),
      evidence: z.enum(["kernel", "launch", "parent", "weak", "certificate"]).optional(),
      at: z.iso
        .datetime({ offset: true, error: "must be a time: 2025-01-15T12:00:00Z" })
        .optional()
        .describe("when it is: 2025-01-15T12:00:00Z; the clock stands"),
      context: properties.optional().describe("laid under the context of every question: { user: alice }"),
      calls: z.array(z.string()).min(1).optional().describe("every identity of `as` makes each of these calls"),
      allowed: z
        .record(z.string(), oneOrMore)
        .optional()
        .describe("by identity those of `calls` that are allowed, or `all`; every other is denied"),
      expect: z.array(expectation).min(1).optional(),
    }),
  ),
});

type TestText = z.infer<typeof fixtureFileSchema>["tests"][number];
type ExpectationText = z.infer<typeof expectation>;

/** One question and the answer that it must get. */
export interface Expected {
  /** `policies/payments.test.yaml:5`. */
  readonly at: string;
  /** `agents/billing payments/issue_refund {"amount":900}`. */
  readonly call: string;
  readonly request: AccessRequest;
  readonly afterMs: number;
  readonly times: number;
  readonly allow: boolean;
  readonly rule: string | undefined;
  readonly obligations: readonly string[] | undefined;
  readonly shadow: readonly string[] | undefined;
}

/** Questions that are asked one after the other, on a clock of their own. */
export interface FixtureTest {
  readonly at: string;
  readonly name: string;
  /** Milliseconds since the Unix epoch. */
  readonly time: number;
  readonly expected: readonly Expected[];
}

/** Noon UTC of an ordinary Wednesday: a run gives the same answer every time. */
const NOON = Date.UTC(2025, 0, 15, 12);

/** Reads one fixture file. What is wrong in it is in `yaml.problems`; a test that names what does not exist is an error, not a denial that passes. */
export function readFixtureFile(yaml: YamlFile, names: PolicyNames): readonly FixtureTest[] {
  const content = yaml.parse(fixtureFileSchema);
  return (content?.tests ?? []).map((test, index) => new TestReader(yaml, names, test, ["tests", index]).read());
}

class TestReader {
  readonly #yaml: YamlFile;
  readonly #names: PolicyNames;
  readonly #test: TestText;
  readonly #at: PathInFile;

  constructor(yaml: YamlFile, names: PolicyNames, test: TestText, at: PathInFile) {
    this.#yaml = yaml;
    this.#names = names;
    this.#test = test;
    this.#at = at;
  }

  read(): FixtureTest {
    const { name, at, calls, allowed, expect } = this.#test;
    if (expect === undefined && calls === undefined)
      this.#problem(this.#at, "a test has expect, or calls with allowed");
    if (calls === undefined && allowed !== undefined) this.#problem([...this.#at, "allowed"], "allowed is about calls");
    const callers = this.#callers();
    return {
      at: this.#place(this.#at),
      name,
      time: at === undefined ? NOON : Date.parse(at),
      expected: [...this.#matrix(callers), ...this.#listed(callers)],
    };
  }

  #listed(callers: readonly Caller[]): readonly Expected[] {
    return callers.flatMap((caller) =>
      (this.#test.expect ?? []).flatMap((text, index) => this.#expected(caller, text, [...this.#at, "expect", index])),
    );
  }

  /** Identities × calls: what `allowed` does not name must be denied. */
  #matrix(callers: readonly Caller[]): readonly Expected[] {
    const { calls = [], allowed = {} } = this.#test;
    for (const [who, what] of Object.entries(allowed)) {
      const where = [...this.#at, "allowed", who];
      if (!callers.some(({ shown }) => shown === who)) {
        this.#problem(
          where,
          `${who} is not among those who call`,
          nearestHint(
            who,
            callers.map(({ shown }) => shown),
          ),
        );
      }
      for (const call of what === "all" ? [] : list(what)) {
        if (!calls.includes(call)) this.#problem(where, `${call} is not among the calls`, nearestHint(call, calls));
      }
    }
    return callers.flatMap((caller) => {
      const mine = allowed[caller.shown] ?? [];
      return calls.flatMap((call, index) => {
        const allow = mine === "all" || list(mine).includes(call);
        return this.#expected(caller, { call, allow }, [...this.#at, "calls", index]);
      });
    });
  }

  #expected(caller: Caller, text: ExpectationText, at: PathInFile): readonly Expected[] {
    const asked = this.#request(caller, text, at);
    if (asked === undefined) return [];
    const { protocol } = this.#test.context ?? {};
    // A call says nothing of it: it is of HTTP unless the test is about another protocol.
    const over = text.call !== undefined && protocol !== undefined && { protocol };
    const context = { ...this.#test.context, ...asked.request.context, ...over };
    const shown = [caller.shown, asked.shown, ...(text.with === undefined ? [] : [JSON.stringify(text.with)])];
    const { allow, rule, obligations, shadow, after: afterMs = 0, times = 1 } = text;
    const request = { ...asked.request, context };
    return [{ at: this.#place(at), call: shown.join(" "), request, afterMs, times, allow, rule, obligations, shadow }];
  }

  #request(
    caller: Caller,
    text: ExpectationText,
    at: PathInFile,
  ): { request: AccessRequest; shown: string } | undefined {
    if ((text.call === undefined) === (text.ask === undefined)) {
      this.#problem(at, "an expectation has either call or ask");
      return undefined;
    }
    if (text.ask !== undefined) {
      const { subject, action, resource, context } = text.ask;
      const named = typeof action === "string" ? { name: action } : action;
      // Members that are absent are absent here too, not undefined: the text came from YAML.
      const request = {
        subject: subject ?? caller.subject,
        action: named,
        resource,
        ...(context && { context }),
      } as AccessRequest;
      const who = subject === undefined ? "" : `${subject.type}:${subject.id} `;
      return { request, shown: `${who}${named.name} ${resource.type}:${resource.id}` };
    }
    const request = this.#call(caller, text.call ?? "", text.with ?? {}, [...at, "call"]);
    return request && { request, shown: text.call ?? "" };
  }

  #call({ subject }: Caller, call: string, given: Properties, at: PathInFile): AccessRequest | undefined {
    const names = this.#names;
    const words = call.trim().split(/\s+/);
    const method = words.length > 1 ? words[0] : undefined;
    const target = words.length > 1 ? (words[1] ?? "") : (words[0] ?? "");
    const service = names.services.find(({ name, identity }) =>
      method === undefined
        ? target.startsWith(`${name}/`) || target.startsWith(`${identity}/`)
        : target === name || target === identity,
    );
    if (service === undefined) {
      const known = names.services.map(({ name }) => name);
      const named = method === undefined ? (target.split("/")[0] ?? "") : target;
      this.#yaml.problem("policy-unknown-name", at, `unknown service in ${call}`, nearestHint(named, known));
      return undefined;
    }
    const to = SpiffeId.of(names.trustDomain, service.identity).toString();
    const of = (request: AccessRequest): AccessRequest => ({ ...request, subject });
    const asked = { caller: undefined, service: to };
    if (service.protocol === "tcp") {
      if (method === CONNECT && words.length === 2) return of(tcpAccessRequest(asked));
      this.#problem(at, `${service.name} is a tcp service: write ${CONNECT} ${service.name}`);
      return undefined;
    }
    if (service.protocol === "http") {
      const path = words[2];
      if (method === undefined || path === undefined) {
        this.#problem(at, `${service.name} is an http service: write GET ${service.name} /path`);
        return undefined;
      }
      if (!this.#isMethod(method, METHODS, call, at)) return undefined;
      const query = Object.fromEntries(Object.entries(given).map(([key, value]) => [key, String(value)]));
      return of(httpAccessRequest({ ...asked, method, path, query }));
    }
    if (method !== undefined) {
      return this.#isMethod(method, MCP_METHODS, call, at)
        ? of(mcpAccessRequest({ ...asked, method, args: given }))
        : undefined;
    }
    const prefix = target.startsWith(`${service.identity}/`) ? service.identity : service.name;
    return of(mcpAccessRequest({ ...asked, method: "tools/call", tool: target.slice(prefix.length + 1), args: given }));
  }

  /** A misspelt method is denied, and a test that expects a denial would pass for nothing. */
  #isMethod(method: string, known: readonly string[], call: string, at: PathInFile): boolean {
    if (known.includes(method)) return true;
    this.#yaml.problem("policy-method", at, `unknown method in ${call}`, nearestHint(method, known));
    return false;
  }

  #callers(): readonly Caller[] {
    const { as, evidence, launchedBy } = this.#test;
    const above = launchedBy?.map((each, index) => this.#identity(each, [...this.#at, "launchedBy", index]) ?? "");
    const known: SubjectProperties = {
      ...(evidence !== undefined && { evidence }),
      ...(above !== undefined && { launched_by: above }),
    };
    if (as === undefined) return [{ shown: "(none)", subject: { type: "none", id: "" } }];
    return list(as).flatMap((name, index) => {
      const id = this.#identity(name, typeof as === "string" ? [...this.#at, "as"] : [...this.#at, "as", index]);
      return id === undefined ? [] : [{ shown: name, subject: { type: "spiffe", id, properties: known } }];
    });
  }

  #identity(name: string, at: PathInFile): string | undefined {
    try {
      if (name.startsWith("spiffe://")) return SpiffeId.parse(name).toString();
      if (!isIdentityName(name, this.#names)) {
        this.#yaml.problem(
          "policy-unknown-name",
          at,
          `unknown identity ${name}`,
          nearestHint(name, this.#names.identities),
        );
      }
      return SpiffeId.of(this.#names.trustDomain, name).toString();
    } catch (thrown) {
      this.#yaml.problem("policy-unknown-name", at, messageOf(thrown));
      return undefined;
    }
  }

  #place(at: PathInFile): string {
    return `${this.#yaml.file}:${this.#yaml.lineOf(at)}`;
  }

  #problem(at: PathInFile, message: string, hint?: string): void {
    this.#yaml.problem("policy-shape", at, message, hint);
  }
}

interface Caller {
  readonly shown: string;
  readonly subject: AccessRequest["subject"];
}

function list(text: string | readonly string[]): readonly string[] {
  return typeof text === "string" ? [text] : text;
}
