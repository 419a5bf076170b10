import type { Requirement } from "./requirement.js";

/** What the SPIFFE-ID, X509-SVID and JWT-SVID standards demand of names and documents. */
export const svidRequirements = [
  { id: "ID-1", level: "M", statement: "The scheme is spiffe and the trust domain is not empty", source: "ID §2" },
  {
    id: "ID-2",
    level: "M",
    statement: "The trust domain holds only a-z, 0-9, dot, dash and underscore, whatever it looks like",
    source: "ID §2.1",
  },
  {
    id: "ID-3",
    level: "M",
    statement: "No userinfo, port, query, fragment or percent-encoding",
    source: "ID §2.1, §2.2",
  },
  {
    id: "ID-4",
    level: "M",
    statement: "Path segments hold only letters, digits, dot, dash and underscore; none is empty, `.` or `..`",
    source: "ID §2.2",
  },
  { id: "ID-5", level: "M", statement: "No trailing slash", source: "ID §2.2" },
  {
    id: "ID-6",
    level: "M",
    statement: "IDs of 2048 bytes are read; longer ones, and trust domains over 255 bytes, are not made",
    source: "ID §2.1, §2.3",
  },

  {
    id: "XS-1",
    level: "M",
    statement: "The leaf has exactly one URI SAN; other SAN types are allowed",
    source: "XS §2",
  },
  { id: "XS-2", level: "M", statement: "The leaf's SPIFFE ID has a non-root path", source: "XS §3.1" },
  { id: "XS-3", level: "M", statement: "The subject may be empty; then the SAN is critical", source: "XS §3.1" },
  {
    id: "XS-4",
    level: "M",
    statement: "cA is false, and BasicConstraints is present",
    source: "XS §4.1; rust-spiffe, py-spiffe, java-spiffe",
  },
  {
    id: "XS-5",
    level: "M",
    statement: "KeyUsage is present and critical: digitalSignature, not keyCertSign, not cRLSign",
    source: "XS §4.3",
  },
  {
    id: "XS-6",
    level: "S",
    statement: "ExtendedKeyUsage is present with both serverAuth and clientAuth",
    source: "XS §4.4",
  },
  {
    id: "XS-7",
    level: "M",
    statement: "The signing certificate: cA, keyCertSign, critical KeyUsage, a SPIFFE ID without path",
    source: "XS §3.2, §4.3",
  },
  { id: "XS-8", level: "M", statement: "Signing certificates are never used to authenticate", source: "XS §3.2" },
  {
    id: "XS-9",
    level: "M",
    statement:
      "The validator refuses cA, keyCertSign, cRLSign, a foreign scheme, a root path, none or several URI SANs, and invalid paths",
    source: "XS §5.2",
  },
  {
    id: "XS-10",
    level: "M",
    statement: "The validator takes the bundle of the peer's trust domain; no bundle is untrusted; bundles do not mix",
    source: "WA §4.6",
  },
  {
    id: "XS-11",
    level: "M",
    statement: "A bundle entry: use x509-svid, no kid, exactly one certificate in x5c",
    source: "XS §6",
  },
  {
    id: "XS-12",
    level: "I",
    statement: "The serial is positive, at most 20 octets, unpredictable; NotBefore is in the past",
    source: "RFC 5280; rust-spiffe",
  },

  { id: "JS-1", level: "M", statement: "alg is one of RS, ES, PS with 256, 384, 512", source: "JS §2.1" },
  { id: "JS-2", level: "M", statement: "Only alg, kid and typ are in the header", source: "JS §2" },
  { id: "JS-3", level: "M", statement: "typ is absent, JWT or JOSE", source: "JS §2.3" },
  { id: "JS-4", level: "I", statement: "kid is always set", source: "JS §2.2, spiffe#358" },
  { id: "JS-5", level: "M", statement: "sub is a SPIFFE ID, aud has a value, exp is set", source: "JS §3" },
  {
    id: "JS-6",
    level: "M",
    statement: "Validators accept aud as string or array, and tokens without typ or kid",
    source: "JS §§2-4",
  },
  { id: "JS-7", level: "M", statement: "A bundle entry has use jwt-svid and kid", source: "JS §6.1" },
  {
    id: "JS-8",
    level: "S",
    statement: "Over HTTP the token is a bearer token",
    source: "JS §5.2",
    notCovered: "how an application sends its token is its own choice; the relay speaks X.509",
  },
] as const satisfies readonly Requirement[];
