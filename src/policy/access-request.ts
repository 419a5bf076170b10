import type { Enforcement } from "./enforcement.js";

/**
 * One shape for every decision: AuthZEN's subject, action, resource, context (AuthZEN Authorization API 1.0 §5).
 * The relay asks in-process; other enforcement points over HTTP.
 */
export interface AccessRequest {
  readonly subject: {
    /** `spiffe`, `none` for a caller without an identity, or a type of `entities.yaml`: `user`. */
    readonly type: string;
    readonly id: string;
    readonly properties?: SubjectProperties;
  };
  /** `http:GET`, for MCP the JSON-RPC method (`tools/call`, `tools/list`, `initialize`), `connect` for tcp. */
  readonly action: { readonly name: string; readonly properties?: Properties };
  /** For `http`, `mcp`, `mcp-tool` and `tcp` the SPIFFE ID of the service, with `path` or `tool` among the properties; else an entity: `record`. */
  readonly resource: {
    readonly type: string;
    readonly id: string;
    readonly properties?: Properties;
  };
  readonly context?: Properties;
}

/** What an enforcement point knows of the subject besides its name. */
export interface SubjectProperties extends Properties {
  /** What the subject's identity rests on: `kernel`, `launch`, `parent`, `weak`, or `certificate` where only that was seen. */
  readonly evidence?: string;
  /** SPIFFE IDs of the agents that launched the subject, nearest first: each of them must be permitted what the subject asks for. */
  readonly launched_by?: readonly string[];
}

export type Properties = Readonly<Record<string, unknown>>;

/** What the relay knows of an HTTP request, in the vocabulary that rules use. Built by `httpAccessRequest`. */
export interface HttpFacts {
  /** Caller's SPIFFE ID as text, or undefined when it has none. */
  readonly caller: string | undefined;
  readonly callerIs?: SubjectProperties;
  /** SPIFFE ID of the service called. */
  readonly service: string;
  readonly method: string;
  /** Normalised path without the query. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** What the request opens or carries, `context.protocol` to rules. Default `http`. */
  readonly protocol?: "http" | "websocket" | "grpc";
}

/** What the relay knows of an MCP message. */
export interface McpFacts {
  readonly caller: string | undefined;
  readonly callerIs?: SubjectProperties;
  readonly service: string;
  /** JSON-RPC method. */
  readonly method: string;
  readonly tool?: string;
  readonly args?: Readonly<Record<string, unknown>>;
}

/** What the relay knows of a connection whose bytes it does not read. */
export interface TcpFacts {
  readonly caller: string | undefined;
  readonly callerIs?: SubjectProperties;
  readonly service: string;
}

/** One rule that was looked at on the way to a decision, and what became of it. */
export interface ConsideredRule {
  readonly rule: string;
  /** `policies/payments.yaml:11`. */
  readonly at: string;
  readonly effect: "allow" | "deny" | "match";
  readonly outcome:
    | "matched"
    | "subject-differs"
    | "resource-differs"
    | "action-differs"
    | "condition-false"
    | "condition-error"
    /** It asks for something that nobody has said: a delegated user. */
    | "fact-missing";
  /** In words, with the values: `args.amount <= 1000: 4200 <= 1000 is false`. */
  readonly detail: string;
  /** The agent above the caller about whom this is; absent: the caller itself. */
  readonly subject?: string;
  /** It is reported, and decides nothing. */
  readonly shadow?: boolean;
}

/** What a rule in shadow would have done, or what an identity in shadow was spared. */
export interface ShadowOutcome {
  /** Name of the rule; `default` where no rule allows what an identity in shadow was let do. */
  readonly rule: string;
  readonly at: string | undefined;
  readonly effect: "allow" | "deny" | "match";
  readonly would: "allow" | "deny" | "require";
  /** The answer would have been another one. */
  readonly differs: boolean;
  readonly reason: string;
  /** SPIFFE ID of the agent above the caller about whom this is; absent: the caller itself. */
  readonly subject?: string;
}

/** What an enforcement point must do where it lets a request through: `{ type: "approval" }` (AuthZEN obligations profile 1.0). */
export interface Obligation {
  readonly id: string;
  readonly type: string;
  readonly properties?: Properties;
}

export interface Decision {
  /** ≥ 80 random bits, lower-case base32; any unique prefix is accepted by `explain`. */
  readonly id: string;
  readonly allowed: boolean;
  /** The engine that decided: `rules`, or a name in `agentid.yaml`. */
  readonly engine: string;
  /** Name of the rule that decided, or `default`. */
  readonly rule: string;
  readonly at: string | undefined;
  /** For people: why. */
  readonly reason: string;
  /** The rule's own `message` for the caller. */
  readonly message: string | undefined;
  /** Digest of the policy set that decided (D13–D15). */
  readonly policyDigest: string;
  /** Only those values that a condition used. */
  readonly values: Properties;
  /** True where some rule could allow this caller this action with other arguments: a denial on condition, not of existence (D17). */
  readonly conditional: boolean;
  /** SPIFFE ID of the agent above the caller that is not permitted it; undefined where the caller itself decides. */
  readonly deniedAbove: string | undefined;
  /** Of an allow: an enforcement point that does not understand one of them must deny (AuthZEN obligations profile). */
  readonly obligations: readonly Obligation[];
  readonly durationMicros: number;
  /** Of a denial by a limit: when asking again is of use. */
  readonly retryAfterMs?: number;
  /** What rules in shadow would have done, and what an identity in shadow was spared. */
  readonly shadow?: readonly ShadowOutcome[];
}

export interface Explained {
  readonly decision: Decision;
  readonly considered: readonly ConsideredRule[];
}

/** The policy decision point as enforcement points see it. It never throws: an error on the way is a deny with that error as its reason. */
export interface DecisionPoint {
  readonly policyDigest: string;
  /** Paths of a request whose values no rule wants shown: `args.card`. */
  readonly sensitive?: readonly string[];
  /**
   * A promise only where an engine that was asked answers with one: most decisions must not cost a turn of the event loop. An allow has taken from
   * limits; `withdraw` gives it back where nothing comes of it.
   */
  decide(request: AccessRequest, enforcement?: Enforcement): Decision | Promise<Decision>;
  /** What `decide` would answer, without an id and without counting for limits: for searches. */
  wouldDecide(request: AccessRequest, enforcement?: Enforcement): Decision | Promise<Decision>;
  /** Decides again without an id, without a record and without counting for limits, and lists every rule considered. */
  explain(request: AccessRequest): Explained | Promise<Explained>;
  /** Could some arguments make `caller` allowed to call `tool` of `service`? For filtering `tools/list` (conditions are assumed true). */
  couldAllowTool(caller: string, service: string, tool: string, launchedBy?: readonly string[]): boolean;
  /** Has `caller` any allow rule at `service` at all? For `initialize`, `ping` and streams that carry only what was decided elsewhere. */
  couldReach(caller: string, service: string, launchedBy?: readonly string[]): boolean;
  /** Is some engine asked about the MCP server `service` of which `couldReach` does not know what it allows? Then it is to be asked, about a `ping`. */
  mustAskToReach?(service: string): boolean;
}
