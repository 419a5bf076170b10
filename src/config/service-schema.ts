import { z } from "zod";
import { idempotentRoute } from "./durable-schema.js";
import { labels } from "./labels-schema.js";
import { argv, text } from "./schema-text.js";
import { tcpConnections } from "./tcp-schema.js";
import { checkHostPort, checkHttpUrl, checkPath, checkSocketPath, checkTcpAddress } from "./values.js";

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

const tcpAddress = text(checkTcpAddress, {
  description:
    "The service already listens at this loopback address; anything on this machine can connect to it there around the relay.",
  examples: ["127.0.0.1:5432"],
  pattern: "^(localhost|127\\.[0-9.]+|\\[::1\\]):[0-9]{1,5}$",
});

const port = z.int().min(1).max(65_535);

const listen = z
  .union([
    port,
    z
      .strictObject({
        port: port.meta({ description: "Loopback port where callers find the service.", examples: [18080] }).optional(),
        unix: z
          .union([
            text(checkSocketPath, {
              description: "A path of yours; its folder is made with mode 0700 if it is missing.",
              examples: ["run/orders.sock"],
            }),
            z.literal(true),
          ])
          .meta({
            description:
              "Callers find the service on a Unix socket too, mode 0600: `true` for one in agentid's own folder, or a path. Callers are known by the kernel's word, as at the Workload API.",
            examples: [true, "run/orders.sock"],
          })
          .optional(),
      })
      .refine((listen) => listen.port !== undefined || listen.unix !== undefined, {
        message: "needs port, unix or both",
      })
      .meta({ anyOf: [{ required: ["port"] }, { required: ["unix"] }] }),
  ])
  .meta({
    description:
      "Loopback port where callers find the service, or port and Unix socket. Without a port it follows from the project's folder and the service's name, and stays the same.",
    examples: [18080, { unix: "run/orders.sock" }],
  });

export const PROTOCOLS = ["http", "mcp", "grpc", "tcp"] as const;

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
    tcp: z
      .union([tcpAddress, upstreamObject])
      .meta({
        description:
          "A service that speaks any other protocol over TCP, and where it is; beside host:port the same forms as `http`. Each connection is decided once, before a byte of it goes on; rules see the action `connect`.",
        examples: ["127.0.0.1:5432", { unix: "run/orders.sock" }],
      })
      .optional(),
    listen: listen.optional(),
    connections: tcpConnections.optional(),
    labels: labels.optional(),
    idempotent: z
      .array(idempotentRoute)
      .meta({
        description:
          "Calls that may be sent once more: with the same `Idempotency-Key`, where nobody knows whether the first time was done. Of an `http` service by `method`, `path` or both, of an `mcp` one by `tool`.",
        examples: [[{ method: "PUT", path: "/v1/invoices/*" }]],
      })
      .optional(),
  })
  .refine(({ mcp, idempotent = [] }) => idempotent.every(({ tool }) => (tool !== undefined) === (mcp !== undefined)), {
    message: "goes by method and path where the service is http, by tool where it is mcp",
    path: ["idempotent"],
  })
  .refine(
    ({ idempotent = [] }) =>
      idempotent.every(({ method, path, tool }) => tool === undefined || (method ?? path) === undefined),
    {
      message: "a tool is called in one way: tool goes without method and path",
      path: ["idempotent"],
    },
  )
  .refine((service) => service.idempotent === undefined || (service.tcp ?? service.grpc) === undefined, {
    message: "goes with http and mcp: the keys of other calls are not looked at",
    path: ["idempotent"],
  })
  .refine((service) => PROTOCOLS.filter((protocol) => service[protocol] !== undefined).length === 1, {
    message: "needs exactly one of http, mcp, grpc and tcp",
  })
  .refine((service) => service.connections === undefined || service.tcp !== undefined, {
    message: "goes only with tcp",
    path: ["connections"],
  })
  .meta({ oneOf: PROTOCOLS.map((protocol) => ({ required: [protocol] })) });
