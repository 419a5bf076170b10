import { z } from "zod";
import { authzen } from "./authzen-schema.js";
import { durable } from "./durable-schema.js";
import { egressTarget, proxy, secrets } from "./egress-schema.js";
import { federation, oidc } from "./federation-schema.js";
import { identity } from "./identity-schema.js";
import { lifetimes } from "./lifetimes-schema.js";
import { policy } from "./policy-schema.js";
import { text } from "./schema-text.js";
import { service } from "./service-schema.js";
import { telemetry } from "./telemetry-schema.js";
import { checkPath, checkTrustDomain, SERVICE_NAME_PATTERN } from "./values.js";

/**
 * The one schema of `agentid.yaml`. Types, messages, the JSON Schema for editors and `docs/configuration.md` all follow from it
 * (`schema-document.ts`); what one value cannot know of another is in `cross-checks.ts`. Nothing here transforms: the file's own shape in, the same out.
 */
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
          "Services by name, and where each is. Callers find a service in `AGENTID_URL_NAME`, a tcp or grpc service in `AGENTID_ADDRESS_NAME`. A service that no identity names by `service` gets the identity `services/NAME` (http, grpc, tcp) or `mcp/NAME` (mcp) by itself.",
        propertyNames: { pattern: SERVICE_NAME_PATTERN.source },
      })
      .optional(),
    egress: z
      .record(z.string(), egressTarget)
      .meta({
        description:
          "What lies outside and may be called, by name; nothing else is reachable through the relay. Callers find a target in `AGENTID_URL_NAME`, rules know it as `egress/NAME`.",
        propertyNames: { pattern: SERVICE_NAME_PATTERN.source },
      })
      .optional(),
    proxy: proxy
      .meta({
        description:
          "Where programs that know proxies reach the targets that say `connect`, by `HTTPS_PROXY`. It listens where there is such a target.",
      })
      .optional(),
    secrets: secrets.optional(),
    policies: text(checkPath, {
      description: "Folder of the rules, relative to the project. Where there is no rule, every call is denied.",
      default: "policies/",
      examples: ["policies/"],
    }).optional(),
    policy: policy.optional(),
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
    telemetry: telemetry.optional(),
    durable: durable
      .meta({
        description:
          "Requests with an `Idempotency-Key`: they are sent once, and their answers are kept in `.agentid/`.",
      })
      .optional(),
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
