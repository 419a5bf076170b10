import type { Requirement } from "./requirement.js";

/** Trust Domain and Bundle (TB) §4, Federation (FD) and OpenID Connect discovery (OD) for JWT-SVIDs. */
export const federationRequirements = [
  {
    id: "TB-1",
    level: "M",
    statement: "keys must exist; an empty list is a trust domain that is not trusted",
    source: "TB §4.1.3",
  },
  {
    id: "TB-2",
    level: "S",
    statement: "spiffe_sequence grows with every change of the content and keeps 64 bits",
    source: "TB §4.1.1",
  },
  {
    id: "TB-3",
    level: "S",
    statement: "spiffe_refresh_hint says when to fetch again; absent, about every five minutes",
    source: "TB §4.1.2",
  },
  {
    id: "TB-4",
    level: "M",
    statement: "An element with an unknown or missing use, or an unknown kty, is ignored, and no other",
    source: "TB §4.2",
  },
  { id: "TB-5", level: "M", statement: "Duplicate keys are rejected where the parser can see them", source: "TB §4.3" },
  {
    id: "FD-1",
    level: "M",
    statement: "The endpoint answers GET with 200, application/json, UTF-8, and asks no client for a certificate",
    source: "FD §5.1",
  },
  { id: "FD-2", level: "M", statement: "TLS as in Mozilla's intermediate configuration", source: "FD §5.2.1" },
  {
    id: "FD-3",
    level: "M",
    statement: "https_web: the endpoint is authenticated by the Web PKI and its host name",
    source: "FD §5.2.1",
  },
  {
    id: "FD-4",
    level: "M",
    statement: "https_spiffe: the endpoint is authenticated by its SPIFFE ID and the bundle of its trust domain",
    source: "FD §5.2.2",
  },
  {
    id: "FD-5",
    level: "M",
    statement: "A self-serving endpoint is authenticated with the bundle that it refreshes",
    source: "FD §5.2.2",
  },
  { id: "FD-6", level: "M", statement: "Redirects are followed and never remembered", source: "FD §5.1" },
  { id: "FD-7", level: "M", statement: "Bundles of different trust domains are never merged", source: "FD §7.3" },
  {
    id: "FD-8",
    level: "S",
    statement: "A failed fetch is tried again at the next interval; the bundle at hand stays in force",
    source: "FD §6.2",
  },
  {
    id: "OD-1",
    level: "I",
    statement: "Discovery serves the documents of SPIRE's provider, and outside verifiers accept the tokens",
    source: "spire support/oidc-discovery-provider",
  },
] as const satisfies readonly Requirement[];
