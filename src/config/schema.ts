import { z } from "zod";
import { DURATION_PATTERN, durationSeconds } from "./duration.js";
import { federation, oidc } from "./federation-schema.js";
import { text } from "./schema-text.js";
import {
  checkArgument,
  checkDnsName,
  checkExecutablePath,
  checkHint,
  checkHostPort,
  checkHttpUrl,
  checkLoopbackHostPort,
  checkPath,
  checkSocketPath,
  checkTrustDomain,
  checkVariableName,
  SERVICE_NAME_PATTERN,
} from "./values.js";

/**
 * The one schema of `agentid.yaml`. Types, messages, the JSON Schema for editors and `docs/configuration.md` all follow from it
 * (`schema-document.ts`); what one value cannot know of another is in `cross-checks.ts`. Nothing here transforms: the file's own shape in, the same out.
 */

const id = (description: string, examples: readonly number[]) =>
  z
    .int()
    .min(0)
    .max(0xffff_fffe)
    .meta({ description, examples: [...examples] });

const argv = z
  .array(text(checkArgument))
  .min(1)
  .refine((argv) => argv[0] !== "", { message: "the command's name is empty", path: [0] });

const duration = (description: string, standard: string, minSeconds: number, maxSeconds: number) =>
  text(
    (value) => {
      const seconds = durationSeconds(value);
      if (seconds === undefined) return "not a duration; write it as 300s, 10m, 24h or 7d";
      if (seconds < minSeconds) return `must be at least ${minSeconds}s`;
      // 30 days and less keep every timer below the 24.8 days that Node's timers can hold.
      return seconds > maxSeconds ? `must be at most ${maxSeconds / 3600}h` : undefined;
    },
    { description, default: standard, examples: [standard], pattern: DURATION_PATTERN.source },
  );

const paths = (description: string, examples: readonly string[]) =>
  z
    .array(text(checkPath))
    .meta({ description, examples: [[...examples]] })
    .optional();

const sandbox = z
  .strictObject({
    read: paths(
      "Files and folders that it may read beside the project and the system; relative to the project. What holds credentials stays hidden.",
      ["/opt/models"],
    ),
    write: paths(
      "Folders and files that it may change; relative to the project. A folder that holds `agentid.yaml`, `agentid.lock`, the policies or `.agentid/` is refused.",
      ["out"],
    ),
  })
  .meta({ description: "What it sees and changes of the file system." });

const launchCommand = z
  .strictObject({
    command: argv.meta({ description: "The program and its arguments.", examples: [["python3", "agents/billing.py"]] }),
    cwd: text(checkPath, {
      description: "Working directory, relative to the project.",
      default: ".",
      examples: ["agents"],
    }).optional(),
    keepEnv: z
      .array(text(checkVariableName))
      .meta({
        description:
          "Environment variables that the agent keeps although they load code (`NODE_OPTIONS`, `PYTHONPATH` …) or look like secrets. All other such variables are removed.",
        examples: [["OPENAI_API_KEY"]],
      })
      .optional(),
    children: z
      .boolean()
      .meta({
        description:
          "Processes that descend from the launched one have the identity too, with the evidence `parent`: every tool and every shell that the agent starts.",
        default: false,
      })
      .optional(),
    instances: z
      .boolean()
      .meta({
        description:
          "`agentid run NAME --instance X` gives the identity `NAME/X` (`auto` for a new name). A rule that names NAME is not about its instances: `NAME/*` is.",
        default: false,
      })
      .optional(),
    subagents: z
      .array(z.string())
      .meta({
        description:
          "Identities that the agent may launch with `agentid run`. A sub-agent is permitted only what each agent above it is permitted too. Not from inside a sandbox.",
        examples: [["agents/research"]],
      })
      .optional(),
    sandbox: z
      .union([z.boolean(), sandbox])
      .meta({
        description:
          "It runs in a sandbox or not at all: no network but the relay, no other sockets, no credentials, nothing writable but what is named. A launch without `agentid run --sandbox` is refused.",
        default: false,
        examples: [true, { write: ["out"] }],
      })
      .optional(),
  })
  .meta({ description: "The command in full form." });

const exe = z
  .strictObject({
    path: text(checkExecutablePath, {
      description:
        "The executable as the kernel names it, symbolic links resolved (`agentid attest PID` shows it); a relative path starts at the project.",
      examples: ["/usr/bin/node"],
    }).optional(),
    sha256: z
      .string()
      .refine((value) => value === "pinned" || /^[0-9a-f]{64}$/.test(value), {
        message: 'write 64 lower-case hex digits, or "pinned" for the digest that agentid.lock keeps',
      })
      .meta({
        description:
          "SHA-256 of the executable in lower-case hex, or `pinned`: the digest is the one in `agentid.lock`.",
        examples: ["pinned"],
        pattern: "^(pinned|[0-9a-f]{64})$",
      })
      .optional(),
  })
  .refine((exe) => exe.path !== undefined || exe.sha256 !== undefined, { message: "needs path or sha256, or both" });

const parentExe = z
  .strictObject({
    path: text(checkExecutablePath, {
      description: "The parent's executable as the kernel names it; a relative path starts at the project.",
      examples: ["/usr/bin/tmux"],
    }).optional(),
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/, { message: "write 64 lower-case hex digits" })
      .meta({ description: "SHA-256 of that executable in lower-case hex." })
      .optional(),
  })
  .refine((exe) => exe.path !== undefined || exe.sha256 !== undefined, { message: "needs path or sha256, or both" });

const labels = z
  .record(
    z.string().regex(/^[A-Za-z][A-Za-z0-9._-]{0,62}$/, "a label's name is letters, digits, dot, dash or underscore"),
    text(checkHint),
  )
  .meta({
    description: "What rules may ask by `labels`: names and values of your own. Labels prove nothing, they group.",
    examples: [{ team: "finance" }],
  });

const signature = z
  .strictObject({
    team: text((value) => (/^[A-Z0-9]{10}$/.test(value) ? undefined : "a team has ten capital letters and digits"), {
      description: "Apple's team identifier of whoever signed the program (`agentid:signing_team`).",
      examples: ["9JA89QQLNQ"],
    }).optional(),
    identifier: text((value) => (/^[^\s]+$/.test(value) ? undefined : "not a signing identifier"), {
      description:
        "The identifier inside the signature (`agentid:signing_id`). Anybody may sign with any identifier: name the team too.",
      examples: ["org.python.python"],
    }).optional(),
  })
  .refine((value) => value.team !== undefined || value.identifier !== undefined, {
    message: "needs team or identifier, or both",
  });

const unitName = (description: string, example: string) =>
  text(
    (name) =>
      /^[A-Za-z0-9:_.\\@-]+\.(service|scope|socket|mount|swap)$/.test(name)
        ? undefined
        : "write a unit's full name, as cron.service",
    { description, examples: [example] },
  );

const identity = z.strictObject({
  launch: z
    .union([argv, launchCommand])
    .meta({
      description:
        "Only a process started by `agentid run NAME -- CMD…` with exactly this command, and with the files that `agentid.lock` pins, has the identity.",
      examples: [["python3", "agents/billing.py"]],
    })
    .optional(),
  user: text((name) => (/^[^\s:]+$/.test(name) ? undefined : "not the name of a user"), {
    description: "Name of the user whose process it must be (`unix:user`).",
    examples: ["dev"],
  }).optional(),
  uid: id("Number of that user (`unix:uid`).", [1000]).optional(),
  group: text((name) => (/^[^\s:]+$/.test(name) ? undefined : "not the name of a group"), {
    description: "Name of the process's primary group (`unix:group`).",
    examples: ["staff"],
  }).optional(),
  gid: id("Number of that group (`unix:gid`).", [1000]).optional(),
  supplementaryGroup: text((name) => (/^[^\s:]+$/.test(name) ? undefined : "not the name of a group"), {
    description: "Name of a supplementary group that the process must have (`unix:supplementary_group`).",
    examples: ["docker"],
  }).optional(),
  supplementaryGid: id("Number of that group (`unix:supplementary_gid`).", [999]).optional(),
  exe: z
    .union([text(checkExecutablePath), exe])
    .meta({
      description:
        "The executable that the process must run (`unix:path`, `unix:sha256`): its path, or path and digest.",
      examples: [{ path: "/usr/bin/node", sha256: "pinned" }],
    })
    .optional(),
  systemdUnit: unitName(
    "The system manager's unit that the process must belong to (`systemd:id`); only root can put a process there.",
    "cron.service",
  ).optional(),
  systemdUserUnit: unitName(
    "The unit of the user's own manager (`agentid:systemd_user_id`). Any process of that user can start one by any name.",
    "planner.service",
  ).optional(),
  cgroup: text(
    (path) => (/^\/[^\s]*[^\s/]$/.test(path) ? undefined : "write the whole path, as /system.slice/x.service"),
    {
      description:
        "The control group that the process must be in (`agentid:cgroup`), as `agentid attest PID` shows it.",
      examples: ["/system.slice/cron.service"],
    },
  ).optional(),
  containerId: text((value) => (/^[0-9a-f]{64}$/.test(value) ? undefined : "write all 64 lower-case hex digits"), {
    description:
      "The container that the process must be in, by the name of its control group (`agentid:container_id`).",
  }).optional(),
  podUid: text(
    (value) => (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value) ? undefined : "not the UID of a pod"),
    { description: "The Kubernetes pod that the process must be in (`k8s:pod-uid`)." },
  ).optional(),
  parentExe: z
    .union([text(checkExecutablePath), parentExe])
    .meta({
      description:
        "The executable of the process's parent (`agentid:parent_path`, `agentid:parent_sha256`): its path, or path and digest. The identity ends when the parent does.",
      examples: ["/usr/bin/tmux"],
    })
    .optional(),
  signature: signature
    .meta({
      description: "macOS: the code signature that the kernel enforces on the running program.",
      examples: [{ team: "9JA89QQLNQ" }],
    })
    .optional(),
  service: z
    .string()
    .meta({
      description: "Name of the service whose relay leg speaks as this identity. A service has exactly one identity.",
      examples: ["payments"],
    })
    .optional(),
  dnsNames: z
    .array(text(checkDnsName))
    .meta({
      description: "DNS names to put into the X.509-SVID beside the SPIFFE ID.",
      examples: [["payments.localhost"]],
    })
    .optional(),
  hint: text(checkHint, {
    description: "Tells a workload with several identities what this one is for; the Workload API hands it on.",
    default: "",
    examples: ["internal"],
  }).optional(),
  labels: labels.optional(),
  shadow: z
    .boolean()
    .meta({
      description:
        "What no rule allows this identity is let through all the same and recorded as such; what a rule denies is denied. For finding out which rules it needs.",
      default: false,
    })
    .optional(),
});

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

const service = z
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
  .refine((service) => (service.http === undefined) !== (service.mcp === undefined), {
    message: "needs exactly one of http and mcp",
  })
  .meta({ oneOf: [{ required: ["http"] }, { required: ["mcp"] }] });

const lifetimes = z.strictObject({
  x509: duration("X.509-SVIDs; replaced at about half of it. At most half of `ca`.", "10m", 10, 86_400).optional(),
  jwt: duration("JWT-SVIDs. At most half of `ca`.", "5m", 10, 86_400).optional(),
  ca: duration(
    "The trust domain's own keys; the next ones are prepared at half of it.",
    "24h",
    20,
    2_592_000,
  ).optional(),
});

const authzen = z
  .strictObject({
    listen: text(checkLoopbackHostPort, {
      description:
        "Loopback address where enforcement points ask over mutual TLS. Without it there is the Unix socket only.",
      examples: ["127.0.0.1:8543"],
    }).optional(),
    clients: z
      .array(z.string())
      .meta({
        description:
          "Identities that may ask: enforcement points beside the relay. Nobody else may, but the owner's own shell on the Unix socket.",
        examples: [["agents/gateway"]],
      })
      .optional(),
  })
  .meta({ description: "The decision point for other enforcement points, as AuthZEN Authorization API 1.0." });

export const configFile = z
  .strictObject({
    trustDomain: text(checkTrustDomain, {
      description: "Name of the trust domain, the first part of every SPIFFE ID: `spiffe://shop.local/agents/billing`.",
      examples: ["shop.local"],
      pattern: "^[a-z0-9._-]{1,255}$",
    }),
    identities: z
      .record(z.string(), identity)
      .meta({
        description:
          "Identities by name, the path of the SPIFFE ID, and what must hold for a process to have each: everything that is given, all at once. A process with several gets them in the order of the file; the first is its default. An entry needs at least one fact, `launch` or `service`.",
        propertyNames: { pattern: "^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$" },
      })
      .optional(),
    services: z
      .record(z.string(), service)
      .meta({
        description:
          "Services by name, and where each is. Callers find a service in `AGENTID_URL_NAME`. A service that no identity names by `service` gets the identity `services/NAME` (http) or `mcp/NAME` (mcp) by itself.",
        propertyNames: { pattern: SERVICE_NAME_PATTERN.source },
      })
      .optional(),
    policies: text(checkPath, {
      description: "Folder of the rules, relative to the project. Where there is no rule, every call is denied.",
      default: "policies/",
      examples: ["policies/"],
    }).optional(),
    lifetimes: lifetimes.meta({ description: "How long credentials are valid, as `300s`, `10m`, `24h`." }).optional(),
    upstreamAuthority: z
      .strictObject({
        certificate: text(checkPath, {
          description:
            "PEM file: the certificate that signs ours first, then the certificates above it, the root last. The root becomes the trust bundle.",
          examples: ["ca/issuing.pem"],
        }),
        key: text(checkPath, {
          description: "PEM file with its private key, not encrypted.",
          examples: ["ca/issuing-key.pem"],
        }),
      })
      .meta({
        description:
          "An authority above the trust domain's own, which then is an intermediate of it. The files are read again when they change: the next authority hangs below the new one and takes over within 15 seconds.",
      })
      .optional(),
    federation: federation.optional(),
    oidc: oidc.optional(),
    authzen: authzen.optional(),
    reload: z
      .enum(["confirm", "auto"])
      .meta({
        description:
          "What happens to a save that permits more than before: `confirm` waits until it is accepted in the dashboard, `auto` applies it. Default: `confirm` when any identity has `launch`, else `auto`. A save that permits less applies at once.",
      })
      .optional(),
    keys: z
      .enum(["disk", "memory"])
      .meta({
        description:
          "`disk` keeps the trust domain's keys in `.agentid/` across restarts; `memory` keeps nothing, and each start is a new trust domain.",
        default: "disk",
      })
      .optional(),
  })
  .meta({ title: "agentid.yaml", description: "Configuration of an agentid project." });

/** `agentid.yaml` as written. */
export type ConfigFile = z.infer<typeof configFile>;
export type IdentityEntry = z.infer<typeof identity>;
export type ServiceEntry = z.infer<typeof service>;
export type UpstreamEntry = NonNullable<ServiceEntry["http"]>;
