import { z } from "zod";

/** The routes of secrets. A value goes in and never out. */

const name = z.object({ name: z.string() });

const secretReport = z.object({
  name: z.string(),
  source: z.string().describe("`keychain`, `OPENAI_API_KEY in /shop/.env.local`, or a command"),
  state: z.enum(["present", "missing", "unusable", "not-tried"]).describe("a command is not run for a list"),
  why: z.string().optional().describe("of `unusable`"),
  usedBy: z.array(z.string()).describe("egress targets that are sent it"),
});
export type SecretReport = z.infer<typeof secretReport>;

export const secretRoutes = {
  secrets: {
    method: "GET",
    path: "/v1/secrets",
    input: z.object({}),
    output: z.object({ secrets: z.array(secretReport) }),
  },
  setSecret: {
    method: "POST",
    path: "/v1/secret/set",
    input: name.extend({ value: z.string() }),
    output: name.extend({ source: z.string() }),
  },
  removeSecret: {
    method: "POST",
    path: "/v1/secret/remove",
    input: name,
    output: name.extend({ removed: z.boolean().describe("false: it was not there") }),
  },
} as const;
