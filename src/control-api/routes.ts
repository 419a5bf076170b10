import { z } from "zod";
import { authorityRoutes, revocation } from "./authority-routes.js";
import { agentidEvent, authzenAddresses, reloadDone } from "./events.js";
import { explanationRoutes } from "./explanation-routes.js";
import { federationRoutes } from "./federation-routes.js";
import { sandboxGrant } from "./sandbox-view.js";
import { secretRoutes } from "./secret-routes.js";

/**
 * The control API: HTTP/1.1 with JSON over the owner's Unix socket. One entry a route: method, path, what goes in, what comes out.
 * Errors are `application/problem+json` with `code`, `detail` and `hint`.
 */

export const status = z.object({
  trustDomain: z.string(),
  projectDirectory: z.string(),
  pid: z.number().int(),
  startedAt: z.iso.datetime(),
  ephemeral: z.boolean(),
  workloadApi: z.string(),
  authzen: authzenAddresses,
  control: z.string(),
  policy: z.object({ digest: z.string(), rules: z.number().int(), files: z.number().int() }),
  authority: z.object({ notAfter: z.iso.datetime(), rotateAt: z.iso.datetime() }),
  identities: z.array(
    z.object({
      name: z.string(),
      spiffeId: z.string(),
      how: z
        .string()
        .describe("what a process must be: `launch: python agents/billing.py`, `user dev, exe /usr/bin/node`"),
      notAfter: z.iso.datetime().optional(),
      rotateAt: z.iso.datetime().optional(),
      pids: z.array(z.number().int()),
    }),
  ),
  services: z.array(
    z.object({
      name: z.string(),
      spiffeId: z.string(),
      protocol: z.enum(["http", "mcp", "grpc", "tcp"]),
      url: z.string().describe("loopback base URL of the outbound leg; `tcp://host:port` of a tcp service"),
      socket: z.string().optional().describe("path of the Unix socket where the outbound leg listens too"),
      mtls: z.string().describe("host:port of the inbound leg"),
      upstream: z.string(),
      reachableAround: z.boolean().describe("true if anything on this machine can call it without the relay (D26)"),
      state: z.enum(["starting", "running", "stopped", "failed"]),
    }),
  ),
  egress: z
    .array(
      z.object({
        name: z.string(),
        spiffeId: z.string().describe("what rules are about"),
        url: z.string().describe("loopback base URL for callers"),
        target: z.string(),
        secrets: z.array(z.string()).describe("names"),
        byConnect: z.literal(true).optional().describe("reached by CONNECT only; `url` is that of the proxy"),
      }),
    )
    .optional()
    .describe("absent: no target"),
  pendingReload: reloadDone.optional(),
  revoked: z.array(revocation).optional().describe("absent: nobody is"),
  problems: z.array(z.object({ severity: z.enum(["warning", "error"]), code: z.string(), message: z.string() })),
  counts: z.object({ calls: z.number().int(), denied: z.number().int() }),
  recordSize: z.number().int(),
  recordHead: z
    .string()
    .describe("hash of the newest entry: kept elsewhere, it shows later that the record was cut or written anew"),
  nextEvent: z.number().int().describe("number that the next event will get"),
});
export type Status = z.infer<typeof status>;

export const launchRequest = z.object({
  name: z.string(),
  argv: z.array(z.string()).min(1),
  workingDirectory: z.string(),
  instance: z.string().optional().describe("last segment of the identity's path; `auto`: a new one"),
  sandbox: z.boolean().optional(),
  /** The process that adopts what the launcher orphans, as it has tried. */
  adopter: z.int().positive().optional(),
});
export const launchGrant = z.object({
  identity: z.string(),
  spiffeId: z.string(),
  /** Set in the launched process's environment. */
  setEnv: z.record(z.string(), z.string()),
  /** Variables that the entry keeps although they load code or look like secrets. */
  keepEnv: z.array(z.string()),
  /** Variables that are named like secrets of `egress`: removed, unless the entry keeps them. */
  dropEnv: z.array(z.string()).optional(),
  sandbox: sandboxGrant.optional(),
});
export type LaunchGrant = z.infer<typeof launchGrant>;

const attestRequest = z.object({ pid: z.number().int().positive() });
const attestation = z.object({
  pid: z.number().int(),
  evidence: z.enum(["kernel", "weak"]).describe("how the process was held while its facts were read"),
  weakness: z.string().optional().describe("why the evidence is weak"),
  facts: z.array(
    z.object({
      name: z.string(),
      value: z.string(),
      source: z.string(),
      strength: z
        .enum(["kernel", "launch", "user", "parent", "none"])
        .describe("kernel: only root can make it up; user: any process of the same user; none: for people only"),
      forgedBy: z.string(),
    }),
  ),
  missing: z.array(z.object({ name: z.string(), reason: z.string() })),
  selectors: z.array(z.string()),
  identities: z.array(
    z.object({
      name: z.string(),
      spiffeId: z.string(),
      evidence: z.string(),
      restsOn: z.array(z.string()).describe("selectors, and launch"),
    }),
  ),
  missed: z.array(
    z.object({
      name: z.string(),
      failed: z.string().describe("the first thing that does not hold"),
      detail: z.string(),
      failures: z.array(z.object({ what: z.string(), detail: z.string() })).describe("all that does not hold"),
      holds: z.array(z.string()),
      nearly: z.boolean().describe("true if one single thing is missing, and others hold"),
    }),
  ),
});
export type AttestationReport = z.infer<typeof attestation>;

export const problem = z.object({
  type: z.string(),
  title: z.string(),
  status: z.number().int(),
  code: z.string(),
  detail: z.string(),
  hint: z.string().optional(),
});
export type Problem = z.infer<typeof problem>;

const auditPage = z.object({
  size: z.number().int(),
  entries: z.array(
    z.object({
      sequence: z.number().int(),
      time: z.string(),
      kind: z.string(),
      fields: z.record(z.string(), z.unknown()),
      hash: z.string(),
    }),
  ),
});

const nothing = z.object({});

const reloadAnswer = z.object({
  sequence: z
    .number()
    .int()
    .optional()
    .describe("`sequence` of the waiting reload that the user read; if another one waits by now, nothing is done"),
});

/** `stream: true` answers NDJSON of `output` until closed. */
export const routes = {
  status: { method: "GET", path: "/v1/status", input: nothing, output: status },
  events: {
    method: "GET",
    path: "/v1/events",
    input: z.object({ since: z.coerce.number().int().min(0).optional() }),
    output: agentidEvent,
    stream: true,
  },
  launch: { method: "POST", path: "/v1/launch", input: launchRequest, output: launchGrant },
  attest: { method: "POST", path: "/v1/attest", input: attestRequest, output: attestation },
  acceptReload: { method: "POST", path: "/v1/reload/accept", input: reloadAnswer, output: reloadDone },
  refuseReload: { method: "POST", path: "/v1/reload/refuse", input: reloadAnswer, output: reloadDone },
  rotate: {
    method: "POST",
    path: "/v1/rotate",
    input: z.object({ name: z.string().optional() }),
    output: z.object({ rotated: z.array(z.string()) }),
  },
  pin: {
    method: "POST",
    path: "/v1/pin",
    input: z.object({ name: z.string() }),
    output: z.object({ name: z.string(), changes: z.array(z.string()) }),
  },
  pinTools: {
    method: "POST",
    path: "/v1/pin-tools",
    input: z.object({
      service: z.string(),
      path: z.string().startsWith("/"),
      accept: z.string().optional().describe("digest of what was shown; without it nothing is written"),
    }),
    output: z.object({
      service: z.string(),
      tools: z.number().int(),
      digest: z.string(),
      changes: z.array(z.string()),
      widened: z.boolean(),
      described: z.array(z.object({ tool: z.string(), text: z.string() })),
      pinned: z.boolean(),
    }),
  },
  ...explanationRoutes,
  ...federationRoutes,
  ...authorityRoutes,
  ...secretRoutes,
  audit: {
    method: "GET",
    path: "/v1/audit",
    input: z.object({
      from: z.coerce.number().int().min(0).default(0),
      limit: z.coerce.number().int().min(1).max(1000).default(200),
    }),
    output: auditPage,
  },
  shutdown: { method: "POST", path: "/v1/shutdown", input: nothing, output: nothing },
} as const;

export type RouteName = keyof typeof routes;
