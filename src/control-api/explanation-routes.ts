import { z } from "zod";

/** The routes of why calls were decided as they were, and what would change that. */

const shadowOutcome = z.object({
  rule: z.string().describe("`default` where no rule allows what an identity in shadow was let do"),
  at: z.string().optional(),
  effect: z
    .enum(["allow", "deny", "match"])
    .describe("`allow` with `would: deny` and `differs`: an identity in shadow was let through"),
  would: z.enum(["allow", "deny", "require"]),
  differs: z.boolean().describe("the answer would have been another one"),
  reason: z.string(),
  subject: z.string().optional().describe("SPIFFE ID of the agent above the caller about whom this is"),
});
export type ShadowReport = z.infer<typeof shadowOutcome>;

const consideredRule = z.object({
  rule: z.string(),
  at: z.string(),
  effect: z.enum(["allow", "deny", "match"]),
  outcome: z.string(),
  detail: z.string(),
  subject: z.string().optional().describe("SPIFFE ID of the agent above the caller about whom this is"),
  shadow: z.boolean().optional().describe("it is reported, and decides nothing"),
});
const proposal = z.object({
  title: z.string(),
  widens: z.boolean().describe("it allows more than this very call"),
  change: z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("add"), rule: z.looseObject({ name: z.string() }), comment: z.string() }),
    z.object({
      kind: z.literal("when"),
      rule: z.string(),
      file: z.string().describe("policies/payments.yaml"),
      when: z.string(),
    }),
  ]),
});
export type PolicyProposal = z.infer<typeof proposal>;

export const explanation = z.object({
  decision: z.string(),
  verdict: z.enum(["ALLOW", "DENY"]),
  time: z.iso.datetime(),
  caller: z.string(),
  callerDetail: z.string(),
  evidence: z.string().optional(),
  launchedBy: z.array(z.string()).optional().describe("the agents that launched the caller, nearest first"),
  service: z.string(),
  action: z.string(),
  target: z.string(),
  arguments: z.string().describe("one line, stripped and shortened"),
  rule: z.string(),
  at: z.string().optional(),
  reason: z.string(),
  considered: z.array(consideredRule),
  shadow: z
    .array(shadowOutcome)
    .optional()
    .describe("what rules in shadow would have done, and what an identity in shadow was spared"),
  /** The narrowest rule that would allow it, as YAML to paste; absent when it is allowed also without a shadow or when no rule can (no identity). */
  suggestion: z.string().optional(),
  proposals: z
    .array(proposal)
    .describe(
      "ways to allow it, least privilege first; of what an identity in shadow was let do, when the shadow ends",
    ),
});
export type Explanation = z.infer<typeof explanation>;

const deniedCalls = z.object({
  count: z.number().int().describe("how often, among the remembered decisions"),
  latest: explanation,
});
export type DeniedCalls = z.infer<typeof deniedCalls>;

const shadowedCalls = z.object({
  count: z.number().int().describe("how often, among the remembered decisions"),
  outcome: shadowOutcome.describe("of the latest"),
  latest: explanation,
});
export type ShadowedCalls = z.infer<typeof shadowedCalls>;

export const explanationRoutes = {
  explain: { method: "GET", path: "/v1/explain", input: z.object({ decision: z.string() }), output: explanation },
  denials: {
    method: "GET",
    path: "/v1/denials",
    input: z.object({}),
    output: z.object({
      denials: z.array(deniedCalls).describe("alike ones together, the latest first"),
      shadowed: z.array(shadowedCalls).describe("calls whose answer changes when a shadow ends, in the same way"),
    }),
  },
} as const;
