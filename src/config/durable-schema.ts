import { z } from "zod";
import { duration } from "./lifetimes-schema.js";
import { text } from "./schema-text.js";

/** The part of `agentid.yaml` that is about requests with an `Idempotency-Key`. */

export const STANDARD_DURABLE = { keep: "24h", megabytes: 64 };
const METHODS = ["POST", "PUT", "PATCH", "DELETE"] as const;

/** As the paths of rules are: whole segments, one `*` in each, `**` at the end. What it accepts the relay can read. */
export function checkPathPattern(value: string): string | undefined {
  if (!value.startsWith("/")) return "must start with /";
  if (/[?#%\\\s]|[^!-~]/.test(value)) return "must be a plain path, without query and escapes";
  const segments = value.slice(1).split("/");
  if (segments.length > 32) return "has more than 32 segments";
  const last = segments.length - 1;
  for (const [index, segment] of segments.entries()) {
    if (segment === "." || segment === ".." || (segment === "" && index < last))
      return "can never match: it is not normalised";
    if (segment === "**" && index === last) continue;
    if (segment.split("*").length > 2) return "takes one * in a segment, and ** as the last one";
  }
  return undefined;
}

function checkToolPattern(value: string): string | undefined {
  if (value === "") return "is empty";
  return value.split("*").length > 2 ? "takes one *" : undefined;
}

/** One entry below `services.NAME.idempotent`. */
export const idempotentRoute = z
  .strictObject({
    method: z
      .enum(METHODS)
      .meta({ description: "Requests with this method; without it every method.", examples: ["PUT"] })
      .optional(),
    path: text(checkPathPattern, {
      description: "Requests to this path, a pattern as in rules; without it every path.",
      examples: ["/v1/invoices/*"],
    }).optional(),
    tool: text(checkToolPattern, {
      description: "Of an MCP server: calls of this tool, a pattern as in rules.",
      examples: ["get_*"],
    }).optional(),
  })
  .refine(({ method, path, tool }) => method !== undefined || path !== undefined || tool !== undefined, {
    message: "needs method, path or tool",
  });

export const durable = z.strictObject({
  keep: duration("How long a key and its answer are known.", STANDARD_DURABLE.keep, 60, 2_592_000).optional(),
  megabytes: z
    .int()
    .min(1)
    .max(4_096)
    .meta({
      description:
        "How much the store of answers may hold, a quarter of it for each caller. A change takes effect at the next start.",
      default: STANDARD_DURABLE.megabytes,
    })
    .optional(),
});
