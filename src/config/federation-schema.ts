import { z } from "zod";
import { text } from "./schema-text.js";
import { checkEndpointUrl, checkHostPort, checkIssuer, checkPath, checkWorkloadId } from "./values.js";

/** The part of `agentid.yaml` that is about other trust domains and outside verifiers. */

const LISTEN = "Only programs on this machine reach `127.0.0.1`; another address opens it to the network.";

const certificate = text(checkPath, {
  description: "PEM file with the web server's certificate, then its intermediates; read again when it changes.",
  examples: ["certs/server.pem"],
});
const key = text(checkPath, {
  description: "PEM file with the private key of `certificate`.",
  examples: ["certs/server.key"],
});

const PROFILES = ["https_spiffe", "https_web"] as const;

const endpoint = z
  .strictObject({
    listen: text(checkHostPort, {
      description: `Address on which \`GET /\` answers with this trust domain's bundle. ${LISTEN}`,
      examples: ["127.0.0.1:8443"],
    }),
    profile: z.enum(PROFILES).meta({
      description:
        "`https_spiffe`: the endpoint presents the SVID `agentid/bundle-endpoint` of this trust domain. `https_web`: it presents `certificate`.",
      examples: ["https_spiffe"],
    }),
    certificate: certificate.optional(),
    key: key.optional(),
  })
  .refine(
    ({ profile, ...files }) => profile !== "https_web" || (files.certificate !== undefined && files.key !== undefined),
    {
      message: "https_web needs certificate and key",
    },
  )
  .refine(({ profile, ...files }) => profile !== "https_spiffe" || (files.certificate ?? files.key) === undefined, {
    message: "https_spiffe takes no certificate and key: it presents an SVID",
  })
  .meta({ description: "Where other trust domains fetch this one's bundle." });

const relationship = z
  .strictObject({
    url: text(checkEndpointUrl, {
      description: "Where the other trust domain publishes its bundle.",
      examples: ["https://127.0.0.1:9443/"],
      pattern: "^https://",
    }),
    profile: z.enum(PROFILES).meta({
      description:
        "How the endpoint proves itself: `https_web` by a certificate of the Web PKI, `https_spiffe` by the SVID `endpointSpiffeId`.",
      examples: ["https_spiffe"],
    }),
    endpointSpiffeId: text(checkWorkloadId, {
      description: "SPIFFE ID of the endpoint, for `https_spiffe`.",
      examples: ["spiffe://other.local/agentid/bundle-endpoint"],
    }).optional(),
    bundle: text(checkPath, {
      description:
        "File with the bundle of the endpoint's trust domain, for `https_spiffe`: what the first fetch is authenticated with (`agentid bundle show` prints it there).",
      examples: ["other.local.json"],
    }).optional(),
  })
  .refine(
    ({ profile, endpointSpiffeId, bundle }) =>
      profile !== "https_spiffe" || (endpointSpiffeId !== undefined && bundle !== undefined),
    { message: "https_spiffe needs endpointSpiffeId and bundle" },
  )
  .refine(
    ({ profile, endpointSpiffeId, bundle }) => profile !== "https_web" || (endpointSpiffeId ?? bundle) === undefined,
    { message: "https_web takes no endpointSpiffeId and bundle: the Web PKI names the endpoint" },
  );

export const federation = z
  .strictObject({
    endpoint: endpoint.optional(),
    trustDomains: z
      .record(z.string(), relationship)
      .meta({
        description:
          "Other trust domains by name, and where each publishes its bundle. Their workloads may call services here as far as a rule names their full SPIFFE ID.",
        propertyNames: { pattern: "^[a-z0-9._-]{1,255}$" },
      })
      .optional(),
  })
  .meta({ description: "Trust between this trust domain and others. Bundles are never merged." });

export const oidc = z
  .strictObject({
    listen: text(checkHostPort, {
      description: `Address of the discovery documents. ${LISTEN} It speaks plain HTTP unless \`certificate\` is given, so put a TLS proxy before it where the issuer is public.`,
      examples: ["127.0.0.1:8088"],
    }),
    issuer: text(checkIssuer, {
      description:
        "The `iss` of every JWT-SVID: the address at which verifiers find `/.well-known/openid-configuration` and `/keys`.",
      examples: ["http://127.0.0.1:8088"],
    }),
    certificate: certificate.optional(),
    key: key.optional(),
  })
  .refine((written) => (written.certificate === undefined) === (written.key === undefined), {
    message: "certificate and key go together",
  })
  .meta({ description: "OpenID Connect discovery, so that outside services can verify JWT-SVIDs." });

export type FederationEntry = z.infer<typeof federation>;
export type OidcEntry = z.infer<typeof oidc>;
