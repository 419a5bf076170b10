import { z } from "zod";

/** Routes about the trust domain's authorities and about who is revoked. */

const authorityReport = z.object({
  state: z.enum(["active", "prepared", "old", "tainted"]),
  keyId: z.string().describe("hex of the X.509 authority's subject key identifier: the name of the generation"),
  jwtKeyId: z.string(),
  witKeyId: z.string().optional(),
  notBefore: z.iso.datetime(),
  notAfter: z.iso.datetime(),
  upstream: z.boolean().describe("true if it is an intermediate of an upstream authority"),
});
export type AuthorityReport = z.infer<typeof authorityReport>;

const nothing = z.object({});
const namedAuthority = z.object({ keyId: z.string().min(1).describe("the beginning of a key id") });

const credential = z.object({
  type: z.enum(["x509", "jwt", "wit"]),
  serial: z.string().optional().describe("serial number (hex) or `jti`; JWT-SVIDs have none"),
  audience: z.array(z.string()).optional(),
  notAfter: z.iso.datetime(),
  authority: z.string().describe("key id of the authority that signed it"),
});
export type LiveCredential = z.infer<typeof credential>;

export const revocation = z.object({
  spiffeId: z.string(),
  name: z.string(),
  since: z.iso.datetime(),
  until: z
    .union([z.iso.datetime(), z.literal("restart")])
    .optional()
    .describe("absent: until it is undone"),
});
export type RevocationReport = z.infer<typeof revocation>;

export const authorityRoutes = {
  authorities: {
    method: "GET",
    path: "/v1/authorities",
    input: nothing,
    output: z.object({ authorities: z.array(authorityReport) }),
  },
  prepareAuthority: { method: "POST", path: "/v1/authority/prepare", input: nothing, output: authorityReport },
  activateAuthority: {
    method: "POST",
    path: "/v1/authority/activate",
    input: z.object({ hurried: z.boolean().default(false) }),
    output: authorityReport,
  },
  taintAuthority: { method: "POST", path: "/v1/authority/taint", input: namedAuthority, output: authorityReport },
  revokeAuthority: {
    method: "POST",
    path: "/v1/authority/revoke",
    input: namedAuthority,
    output: z.object({ keyId: z.string(), notAfter: z.iso.datetime() }),
  },
  revoke: {
    method: "POST",
    path: "/v1/revoke",
    input: z.object({
      id: z.string().describe("an identity's name, or any SPIFFE ID"),
      forSeconds: z.number().int().positive().max(31_536_000).optional(),
      untilRestart: z.boolean().default(false),
    }),
    output: revocation.extend({
      credentials: z
        .array(credential)
        .describe("issued and not expired: what they can still do elsewhere, and until when"),
    }),
  },
  undoRevocation: {
    method: "POST",
    path: "/v1/revoke/undo",
    input: z.object({ id: z.string() }),
    output: z.object({ spiffeId: z.string(), name: z.string() }),
  },
} as const;
