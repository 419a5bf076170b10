import { z } from "zod";

const oneOrMore = (what: string) =>
  z.union([z.string().min(1), z.array(z.string().min(1)).min(1, "must not be empty")], {
    error: `must be ${what} or a list of them`,
  });

const scope = z.strictObject({
  from: oneOrMore("an identity").optional().describe("who calls: agents/billing, agents/*, agents/**, a SPIFFE ID"),
  to: oneOrMore("a service").optional().describe("what is called: a service's name, or its identity as in from"),
  tools: oneOrMore("a tool name").optional().describe("MCP tools: issue_refund, get_*"),
  method: oneOrMore("a method").optional().describe("HTTP methods, or JSON-RPC methods of MCP"),
  path: oneOrMore("a path").optional().describe("HTTP paths by segment: /v1/invoices/*, /v1/**"),
});

const rule = z.strictObject({
  name: z
    .string()
    .regex(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}$/, "must be letters, digits, dot, dash or underscore, at most 100"),
  allow: scope.optional(),
  deny: scope.optional(),
  when: z.string().min(1).optional().describe("CEL over args, caller, resource, request, now"),
  sensitive: z
    .array(
      z
        .string()
        .regex(/^args(\.[^.]+)+$|^request\.query(\.[^.]+)*$/, "must be an argument: args.card, args.customer.iban"),
    )
    .optional()
    .describe("arguments whose values are neither shown in reasons nor recorded"),
  message: z.string().max(1000).optional().describe("what the caller is told when this rule is why it was refused"),
  description: z.string().max(1000).optional(),
});

/** `policies/*.yaml`: the one description from which types, messages and the editor's schema follow. */
export const ruleFileSchema = z.strictObject({ rules: z.array(rule).nullable() });

export type RuleText = z.infer<typeof rule>;
export type ScopeText = z.infer<typeof scope>;
