import { z } from "zod";
import { labels } from "./labels-schema.js";
import { argv, text } from "./schema-text.js";
import { checkHostPort, checkHttpUrl, checkPath, checkSocketPath } from "./values.js";

/** The part of `agentid.yaml` that is about services and where they are. */

const upstreamObject = z
  .strictObject({
    command: argv
      .meta({
        description:
          "agentid starts this program; it must listen on the Unix socket whose path is in `AGENTID_LISTEN`. Nothing but the relay can reach it.",
        examples: [["node", "mcp/payments.js"]],
      })
      .optional(),
    cwd: text(checkPath, {
      description: "Working directory of `command`, relative to the project.",
      default: ".",
      examples: ["services"],
    }).optional(),
    unix: text(checkSocketPath, {
      description: "The service already listens on this Unix socket.",
      examples: ["run/invoices.sock"],
    }).optional(),
    mtls: text(checkHostPort, {
      description: "The service speaks mutual TLS itself with its own SVID, here.",
      examples: ["127.0.0.1:8443"],
    }).optional(),
  })
  .refine(
    (upstream) => [upstream.command, upstream.unix, upstream.mtls].filter((one) => one !== undefined).length === 1,
    { message: "needs exactly one of command, unix and mtls" },
  )
  .refine((upstream) => upstream.cwd === undefined || upstream.command !== undefined, {
    message: "goes only with command",
    path: ["cwd"],
  })
  .meta({ oneOf: [{ required: ["command"] }, { required: ["unix"] }, { required: ["mtls"] }] });

const httpAddress = text(checkHttpUrl, {
  description:
    "The service already listens at this loopback address; anything on this machine can call it there around the relay.",
  examples: ["http://127.0.0.1:8080"],
  pattern: "^http://(localhost|127\\.|\\[::1\\])",
});

/** One entry below `services`. */
export const service = z
  .strictObject({
    http: z
      .union([httpAddress, upstreamObject])
      .meta({
        description: "A service that speaks HTTP, and where it is. Rules see method and path.",
        examples: [{ command: ["node", "services/invoices.js"] }, "http://127.0.0.1:8080"],
      })
      .optional(),
    mcp: z
      .union([httpAddress, upstreamObject])
      .meta({
        description:
          "An MCP server that speaks streamable HTTP, and where it is; the same forms as `http`. Rules see JSON-RPC methods and tools.",
        examples: [{ command: ["node", "mcp/payments.js"] }],
      })
      .optional(),
    grpc: z
      .union([httpAddress, upstreamObject])
      .meta({
        description:
          "A service that speaks gRPC, and where it is; the same forms as `http`. Rules see the method POST and the path `/package.Service/Method`.",
        examples: [{ command: ["node", "services/ledger.js"] }, "http://127.0.0.1:50051"],
      })
      .optional(),
    listen: z
      .int()
      .min(1)
      .max(65_535)
      .meta({
        description:
          "Loopback port where callers find the service. Without it the port follows from the project's folder and the service's name, and stays the same.",
        examples: [18080],
      })
      .optional(),
    labels: labels.optional(),
  })
  .refine((service) => [service.http, service.mcp, service.grpc].filter((one) => one !== undefined).length === 1, {
    message: "needs exactly one of http, mcp and grpc",
  })
  .meta({ oneOf: [{ required: ["http"] }, { required: ["mcp"] }, { required: ["grpc"] }] });
