import { z } from "zod";

/**
 * Events of a running trust domain, as the event stream (`GET /v1/events`, NDJSON) and `agentid dev --json` print them.
 * All text in them is already stripped of control, ANSI and bidi characters (D23).
 */

const time = z.iso.datetime().describe("RFC 3339, UTC, milliseconds");

const callBase = {
  time,
  sequence: z.number().int(),
  decision: z.string().describe("decision id"),
  caller: z.string().describe("identity name (agents/billing), a foreign SPIFFE ID, or (none)"),
  callerDetail: z
    .string()
    .describe("who in kernel words: pid, uid, command line; empty when the caller came by certificate"),
  evidence: z
    .string()
    .optional()
    .describe("what the caller's identity rests on: kernel, launch, parent, weak, or certificate; absent without one"),
  launchedBy: z.array(z.string()).optional().describe("the agents that launched the caller, nearest first"),
  service: z.string(),
  protocol: z.enum(["http", "mcp", "grpc", "tcp", "authzen"]).describe("authzen: another enforcement point asked"),
  action: z
    .string()
    .describe("GET, POST …, the JSON-RPC method, `connect`, or the action that another enforcement point named"),
  target: z.string().describe("path, or the tool's name"),
  summary: z.string().describe("one line: `issue_refund {invoice:1017, amount:4200}`"),
  rule: z.string(),
  at: z.string().optional().describe("file:line of the rule"),
  shadow: z
    .array(
      z.object({
        rule: z.string(),
        effect: z.enum(["allow", "deny", "match"]),
        would: z.enum(["allow", "deny", "require"]),
        differs: z.boolean(),
      }),
    )
    .optional()
    .describe(
      "what rules in shadow would have done; `allow`, deny, `differs`: an identity in shadow was let do what no rule allows",
    ),
  reason: z.string(),
};

const callDecided = z.object({ event: z.literal("call"), verdict: z.enum(["ALLOW", "DENY"]), ...callBase });

const callEnded = z.object({
  event: z.literal("call.ended"),
  time,
  sequence: z.number().int(),
  decision: z.string(),
  status: z.number().int().optional().describe("HTTP status from the upstream; absent when it never answered"),
  durationMs: z.number(),
  error: z.string().optional(),
  sent: z.number().int().optional().describe("bytes from the caller to the service; of a tcp connection"),
  received: z.number().int().optional().describe("bytes from the service to the caller; of a tcp connection"),
  replayed: z
    .literal(true)
    .optional()
    .describe("the answer to an earlier request with the same Idempotency-Key, given again"),
});

const identityChanged = z.object({
  event: z.literal("identity"),
  time,
  sequence: z.number().int(),
  name: z.string(),
  spiffeId: z.string(),
  change: z.enum(["issued", "rotated", "removed", "revoked", "restored"]),
  until: time.optional().describe("when a revocation ends by itself"),
  notAfter: time.optional(),
  rotateAt: time.optional(),
  serial: z.string().optional(),
});

const processSeen = z.object({
  event: z.literal("process"),
  time,
  sequence: z.number().int(),
  change: z.enum(["attested", "refused", "launched", "launch-refused", "ended"]),
  identity: z.string().optional(),
  pid: z.number().int(),
  uid: z.number().int(),
  detail: z.string(),
});

export const reloadDone = z.object({
  event: z.literal("reload"),
  time,
  sequence: z.number().int(),
  outcome: z.enum(["applied", "waiting", "refused", "failed"]),
  widened: z.boolean(),
  changes: z.array(z.string()).describe("one line each, `+ allow …`, `- deny …`"),
  error: z.string().optional(),
  policyDigest: z.string(),
});

const problemSeen = z.object({
  event: z.literal("problem"),
  time,
  sequence: z.number().int(),
  severity: z.enum(["warning", "error"]),
  code: z.string(),
  message: z.string(),
  /** A problem with the same code and subject that is over. */
  resolved: z.boolean().optional(),
});

/** What a problem is about: an event with the same subject takes its place, and ends it where it is `resolved`. */
export function subjectOfProblem({ code, message }: { readonly code: string; readonly message: string }): string {
  // A broken save has one place, whatever it says; other problems are told apart by their text.
  return code === "reload-broken" ? code : `${code} ${message}`;
}

/** Where other enforcement points ask. */
export const authzenAddresses = z.object({
  socket: z.string().describe("unix:///…"),
  url: z.string().optional().describe("https://127.0.0.1:…, where agentid.yaml has authzen.listen"),
});

const ready = z.object({
  event: z.literal("ready"),
  time,
  sequence: z.number().int(),
  trustDomain: z.string(),
  workloadApi: z.string().describe("unix:///… for SPIFFE_ENDPOINT_SOCKET"),
  control: z.string().describe("unix:///…"),
  authzen: authzenAddresses,
  pid: z.number().int(),
  services: z.record(z.string(), z.object({ url: z.string(), mtls: z.string() })),
  egress: z
    .record(z.string(), z.object({ url: z.string() }))
    .optional()
    .describe("absent: no target"),
});

const stopping = z.object({
  event: z.literal("stopping"),
  time,
  sequence: z.number().int(),
  reason: z.string(),
});

export const agentidEvent = z.discriminatedUnion("event", [
  ready,
  callDecided,
  callEnded,
  identityChanged,
  processSeen,
  reloadDone,
  problemSeen,
  stopping,
]);

export type AgentidEvent = z.infer<typeof agentidEvent>;
export type CallDecidedEvent = z.infer<typeof callDecided>;
/** An event before the bus gives it its time and place. */
export type NewEvent = AgentidEvent extends infer Event
  ? Event extends AgentidEvent
    ? Omit<Event, "time" | "sequence">
    : never
  : never;
