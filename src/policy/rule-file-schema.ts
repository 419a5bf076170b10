import { z } from "zod";

/** What an identity rests on. */
const EVIDENCE = ["kernel", "launch", "parent", "weak", "certificate"] as const;

const oneOrMore = (what: string) =>
  z.union([z.string().min(1), z.array(z.string().min(1)).min(1, "must not be empty")], {
    error: `must be ${what} or a list of them`,
  });

const scalar = z.union([z.string(), z.number(), z.boolean(), z.null()], {
  error: "must be text, a number, true, false or null",
});
const scalars = z.union([scalar, z.array(scalar).min(1, "must not be empty")], {
  error: "must be a value or a list of values",
});
/** What asks for nothing holds for everything, and is hardly what was meant. */
const isSomething = (given: object) => Object.keys(given).length > 0;
const values = (what: string) =>
  z.record(z.string().min(1), scalars).refine(isSomething, "must not be empty").describe(what);
const labels = z
  .record(z.string().min(1), oneOrMore("the value of a label"))
  .refine(isSomething, "must not be empty")
  .describe("labels of agentid.yaml that it must have: { team: finance }");

const user = z
  .strictObject({
    id: oneOrMore("a user").optional().describe("the user's name, or a pattern"),
    properties: values("what must be known of the user: { department: finance }").optional(),
  })
  .refine(isSomething, "must not be empty");

const subject = z.strictObject({
  type: z
    .string()
    .min(1)
    .optional()
    .describe("spiffe (an identity) unless it says otherwise, or a type of entities.yaml"),
  id: oneOrMore("an identity or the name of an entity")
    .optional()
    .describe("who: as in from, or of an entity its id: alice, bot-*"),
  instance: oneOrMore("the name of an instance").optional().describe("which instances of the identity: blue, blue-*"),
  evidence: z
    .union([z.enum(EVIDENCE), z.array(z.enum(EVIDENCE)).min(1, "must not be empty")], {
      error: `must be ${EVIDENCE.join(", ")} or a list of them`,
    })
    .optional()
    .describe("what the identity must rest on"),
  user: z
    .union([oneOrMore("a user"), user], { error: "must be a user, a list of them, or id and properties" })
    .optional()
    .describe("on whose behalf: alice, or { properties: { department: finance } }"),
  actors: oneOrMore("an identity").optional().describe("through whose hands: as in from"),
  labels: labels.optional(),
  properties: values("what must be known of the subject: { role: admin }").optional(),
});

const action = z
  .strictObject({
    name: oneOrMore("an action").optional().describe("GET, resources/read, connect (of a tcp service), write, get_*"),
    properties: values("what the action must come with: { soft: true }").optional(),
  })
  .refine(isSomething, "must not be empty");

const resource = z.strictObject({
  type: z.string().min(1).optional().describe("http, mcp, mcp-tool, tcp, or a type of entities.yaml: record"),
  id: oneOrMore("a service or the name of an entity").optional().describe("which: record-1, record-*"),
  service: oneOrMore("a service").optional().describe("a service, as in to"),
  path: oneOrMore("a path").optional().describe("HTTP paths, as in path"),
  server: oneOrMore("an MCP server").optional().describe("an MCP server, as in to"),
  tool: oneOrMore("a tool name").optional().describe("MCP tools, as in tools"),
  resource: oneOrMore("a URI").optional().describe("MCP resources by URI: file:///docs/*, note:///**"),
  prompt: oneOrMore("a prompt").optional().describe("MCP prompts by name: review_*"),
  labels: labels.optional(),
  properties: values("what must be known of the resource: { status: active }").optional(),
});

const time = z
  .strictObject({
    days: oneOrMore("a day").optional().describe("mon-fri, or a list of days"),
    hours: oneOrMore("a span of hours")
      .optional()
      .describe("09:00-17:00, its end not included; 22:00-06:00 ends next day"),
    zone: z.string().min(1).optional().describe("time zone of days, hours and dates: Europe/Berlin. Default: UTC"),
    after: z.string().min(1).optional().describe("not before this: 2026-01-31, or 2026-01-31T09:00:00Z"),
    before: z.string().min(1).optional().describe("no longer from this on"),
  })
  .refine(isSomething, "must not be empty");

const scope = z.strictObject({
  from: oneOrMore("an identity").optional().describe("who calls: agents/billing, agents/*, agents/**, a SPIFFE ID"),
  to: oneOrMore("a service").optional().describe("what is called: a service's name, or its identity as in from"),
  tools: oneOrMore("a tool name").optional().describe("MCP tools: issue_refund, get_*"),
  method: oneOrMore("a method").optional().describe("HTTP methods, or JSON-RPC methods of MCP"),
  path: oneOrMore("a path").optional().describe("HTTP paths by segment: /v1/invoices/*, /v1/**"),
  subject: subject.optional().describe("who, in full; instead of from"),
  action: z
    .union([oneOrMore("an action"), action], { error: "must be an action, a list of them, or name and properties" })
    .optional()
    .describe("doing what, in full; instead of method"),
  resource: resource.optional().describe("to what, in full; instead of to, tools and path"),
  context: values("what the enforcement point must say of the moment: { channel: cli }").optional(),
  time: time.optional().describe("when"),
});

const limitKey = z.enum(["identity", "tool", "user", "service"]);

const limit = z.strictObject({
  rate: z.int().min(1).max(1_000_000_000).describe("so many calls"),
  per: z.string().min(1).describe("second, minute, hour, day, or a duration: 30s"),
  burst: z.int().min(1).max(1_000_000_000).optional().describe("so many at once after a pause. Default: rate"),
  for: z
    .union([limitKey, z.array(limitKey).min(1, "must not be empty")], {
      error: "must be identity, tool, user, service or a list of them",
    })
    .optional()
    .describe("what has a count of its own. Default: identity"),
  backoff: z
    .strictObject({
      first: z.string().optional().describe("the wait after the first refusal. Default: 1s"),
      factor: z.number().min(1).max(100).optional().describe("how much longer each further one is. Default: 2"),
      max: z.string().optional().describe("the longest wait. Default: 5m"),
    })
    .optional()
    .describe("whoever goes on asking waits longer each time"),
});

const obligation = z.strictObject({
  type: z.string().min(1).max(100).describe("approval"),
  id: z.string().min(1).max(200).optional().describe("a name of its own. Default: the rule's name and the type"),
  properties: z.record(z.string(), z.unknown()).optional(),
});

const rule = z.strictObject({
  name: z
    .string()
    .regex(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}$/, "must be letters, digits, dot, dash or underscore, at most 100")
    .refine((name) => name !== "default", "default is what decides where no rule does"),
  allow: scope.optional(),
  deny: scope.optional(),
  match: scope.optional().describe("what the limit and the obligations hold for, whichever rule allows it"),
  when: z
    .string()
    .min(1)
    .optional()
    .describe("CEL over args, caller, subject, user, actors, action, resource, request, context, now"),
  limit: z
    .union([z.string().min(1), limit], { error: "must be as 10 per minute, or rate and per" })
    .optional()
    .describe("how often: 10 per minute"),
  require: z
    .array(z.union([z.string().min(1).max(100), obligation], { error: "must be a type, or type, id and properties" }))
    .min(1, "must not be empty")
    .optional()
    .describe("what the enforcement point must do besides: [approval]"),
  shadow: z.boolean().optional().describe("report what it would do, and do nothing"),
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
export const ruleFileSchema = z
  .strictObject({
    rules: z.array(rule).nullable().describe("the rules of this file"),
    shadow: z.boolean().optional().describe("report what the rules of this file would do, and do nothing"),
  })
  .meta({ title: "policies/*.yaml", description: "Rules of an agentid project." });

export type RuleText = z.infer<typeof rule>;
export type ScopeText = z.infer<typeof scope>;
export type SubjectText = z.infer<typeof subject>;
export type ResourceText = z.infer<typeof resource>;
