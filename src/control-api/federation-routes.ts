import { z } from "zod";

/** The routes of bundles, and of the relationships that keep them up to date. */

export const bundleReport = z.object({
  trustDomain: z.string(),
  source: z
    .enum(["own", "command", "endpoint"])
    .describe("`own`: this trust domain's; `command`: set by the administrator; `endpoint`: followed by `federation`"),
  sequence: z.string().optional().describe("`spiffe_sequence`, 64 bits, so as text"),
  refreshHintSeconds: z.number().int().optional(),
  receivedAt: z.iso.datetime().optional(),
  x509Authorities: z.number().int(),
  jwtKeys: z.number().int(),
  notAfter: z.iso.datetime().optional().describe("when the last of its X.509 authorities ends"),
});
export type BundleReport = z.infer<typeof bundleReport>;

const trustDomainName = z.object({ trustDomain: z.string() });

export const relationshipReport = z.object({
  trustDomain: z.string(),
  url: z.string(),
  profile: z.enum(["https_spiffe", "https_web"]),
  endpointSpiffeId: z.string().optional(),
  state: z.enum(["waiting", "fetching", "closed"]),
  refreshSeconds: z.number().int(),
  nextAt: z.iso.datetime(),
  lastSuccess: z.iso.datetime().optional().describe("since the daemon started"),
  problem: z.object({ code: z.string(), message: z.string() }).optional(),
  bundle: bundleReport.optional(),
});
export type RelationshipReport = z.infer<typeof relationshipReport>;

const refreshed = z.object({
  trustDomain: z.string(),
  outcome: z.enum(["changed", "unchanged", "failed"]),
  problem: z.object({ code: z.string(), message: z.string() }).optional(),
});

const nothing = z.object({});

export const federationRoutes = {
  bundles: {
    method: "GET",
    path: "/v1/bundles",
    input: nothing,
    output: z.object({ bundles: z.array(bundleReport) }),
  },
  bundle: {
    method: "GET",
    path: "/v1/bundle",
    input: z.object({ trustDomain: z.string().optional() }),
    output: bundleReport.extend({ document: z.string().describe("the SPIFFE bundle, JSON as text") }),
  },
  setBundle: {
    method: "POST",
    path: "/v1/bundle/set",
    input: trustDomainName.extend({ document: z.string().describe("a SPIFFE bundle, or certificates in PEM") }),
    output: bundleReport,
  },
  deleteBundle: { method: "POST", path: "/v1/bundle/delete", input: trustDomainName, output: nothing },
  federation: {
    method: "GET",
    path: "/v1/federation",
    input: nothing,
    output: z.object({
      endpoint: z.object({ url: z.string(), profile: z.string(), spiffeId: z.string().optional() }).optional(),
      oidc: z.object({ issuer: z.string(), listen: z.string() }).optional(),
      relationships: z.array(relationshipReport),
    }),
  },
  refreshFederation: {
    method: "POST",
    path: "/v1/federation/refresh",
    input: z.object({ trustDomain: z.string().optional() }),
    output: z.object({ results: z.array(refreshed) }),
  },
} as const;
