import { parseX509Bundle } from "../spiffe/x509-bundle.js";
import { type ParsedCertificate, parseCertificate } from "../spiffe/x509-certificate.js";
import { certificateFacts } from "./certificate-facts.js";
import { type Check, problemsOf, skip } from "./check.js";
import type { Context, ReadSvid } from "./context.js";

const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
const MAX_SERIAL_OCTETS = 20;
/** A serial of 64 random bits is shorter than this once in 65,536 times; a counter or a small number always. */
const FEWEST_RANDOM_OCTETS = 6;

export const certificateChecks: readonly Check[] = [
  {
    id: "XS-1",
    level: "M",
    sentence: "The leaf has exactly one URI SAN; other SAN types are allowed",
    source: "XS §2",
    run: ofEachLeaf(({ leaf }) => (leaf.uris.length === 1 ? undefined : `it has ${leaf.uris.length} URI SANs`)),
  },
  {
    id: "XS-2",
    level: "M",
    sentence: "The leaf's SPIFFE ID has a non-root path",
    source: "XS §3.1; spiffe#381",
    run: ofEachLeaf(({ leaf }) =>
      leaf.uris.some((uri) => /^spiffe:\/\/[^/]+\/?$/.test(uri)) ? "its ID names a trust domain" : undefined,
    ),
  },
  {
    id: "XS-3",
    level: "M",
    sentence: "The subject may be empty; then the SAN is critical",
    source: "XS §3.1; RFC 5280 §4.2.1.6",
    run: ofEachLeaf(({ der }) => {
      const { subjectIsEmpty, alternativeNameIsCritical } = certificateFacts(der);
      return subjectIsEmpty && !alternativeNameIsCritical ? "its subject is empty and its SAN not critical" : undefined;
    }),
  },
  {
    id: "XS-4",
    level: "M",
    sentence: "cA of the leaf is false, and BasicConstraints is present",
    source: "XS §4.1; rust-spiffe, py-spiffe, java-spiffe",
    run: ofEachLeaf(({ leaf: { basicConstraints } }) => {
      if (basicConstraints === undefined) return "it has no BasicConstraints";
      return basicConstraints.cA ? "its cA is true" : undefined;
    }),
  },
  {
    id: "XS-5",
    level: "M",
    sentence: "KeyUsage of the leaf is present and critical: digitalSignature, not keyCertSign, not cRLSign",
    source: "XS §4.3",
    run: ofEachLeaf(({ leaf: { keyUsage } }) => {
      if (keyUsage === undefined) return "it has no KeyUsage";
      if (!keyUsage.critical) return "its KeyUsage is not critical";
      if (!keyUsage.digitalSignature) return "its KeyUsage lacks digitalSignature";
      return keyUsage.keyCertSign || keyUsage.cRLSign ? "its KeyUsage is that of an authority" : undefined;
    }),
  },
  {
    id: "XS-6",
    level: "S",
    sentence: "ExtendedKeyUsage of the leaf is present with both serverAuth and clientAuth",
    source: "XS §4.4",
    run: ofEachLeaf(({ leaf: { extendedKeyUsage } }) => {
      if (extendedKeyUsage === undefined) return "it has no ExtendedKeyUsage";
      const both = extendedKeyUsage.includes(SERVER_AUTH) && extendedKeyUsage.includes(CLIENT_AUTH);
      return both ? undefined : `its ExtendedKeyUsage is ${extendedKeyUsage.join(", ")}`;
    }),
  },
  {
    id: "XS-7",
    level: "M",
    sentence:
      "A signing certificate has cA, keyCertSign, a critical KeyUsage; if it has a SPIFFE ID, its trust domain's",
    source: "XS §3.2, §4.3",
    run: async (context) => {
      const pairs = context.readSvids().flatMap((one) => issuersOf(one).map((issuer) => ({ one, issuer })));
      if (pairs.length === 0) skip("no signing certificate is among chain and bundle: XR-5");
      return problemsOf(pairs, ({ one, issuer }) => {
        const problem = issuerProblem(issuer, one);
        return problem && `the authority of ${one.svid.spiffeId}: ${problem}`;
      });
    },
  },
  {
    id: "XS-12",
    level: "I",
    sentence: "The serial is positive, at most 20 octets and unpredictable; NotBefore is in the past",
    source: "RFC 5280 §4.1.2.2; rust-spiffe",
    run: async (context) => {
      const now = context.options.clock.now();
      return problemsOf(context.readSvids(), ({ svid, leaf, der }) => {
        const problem =
          serialProblem(certificateFacts(der).serial) ?? (leaf.notBefore > now ? "it is not valid yet" : undefined);
        return problem && `${svid.spiffeId}: ${problem}`;
      });
    },
  },
];

function ofEachLeaf(problemOf: (svid: ReadSvid) => string | undefined): Check["run"] {
  return async (context: Context) =>
    problemsOf(context.readSvids(), (one) => {
      const problem = problemOf(one);
      return problem && `the certificate of ${one.svid.spiffeId}: ${problem}`;
    });
}

/** The certificates of chain and bundle that have signed the leaf or one of its signers. */
function issuersOf({ svid, chain, leaf }: ReadSvid): readonly ParsedCertificate[] {
  const candidates = [...chain.slice(1), ...rootsOf(svid.bundle)];
  const issuers = new Set<ParsedCertificate>();
  let subjects: readonly ParsedCertificate[] = [leaf];
  while (subjects.length > 0) {
    const found = candidates.filter(
      (candidate) => !issuers.has(candidate) && subjects.some((subject) => hasSigned(candidate, subject)),
    );
    for (const issuer of found) issuers.add(issuer);
    subjects = found;
  }
  return [...issuers];
}

function hasSigned(issuer: ParsedCertificate, subject: ParsedCertificate): boolean {
  return issuer !== subject && issuer.subject.equals(subject.issuer) && subject.x509.verify(issuer.x509.publicKey);
}

function issuerProblem(
  { basicConstraints, keyUsage, uris }: ParsedCertificate,
  { svid }: ReadSvid,
): string | undefined {
  if (basicConstraints?.cA !== true) return "its cA is not true";
  if (keyUsage === undefined) return "it has no KeyUsage";
  if (!keyUsage.keyCertSign) return "its KeyUsage lacks keyCertSign";
  if (!keyUsage.critical) return "its KeyUsage is not critical";
  const [id] = uris.filter((uri) => uri.startsWith("spiffe:"));
  const own = /^spiffe:\/\/[^/]+/.exec(svid.spiffeId)?.[0];
  return id === undefined || id === own ? undefined : `its SPIFFE ID is ${id}`;
}

function serialProblem(serial: Buffer): string | undefined {
  if (serial.length > MAX_SERIAL_OCTETS) return `its serial has ${serial.length} octets`;
  if ((serial[0] ?? 0) >= 0x80 || serial.every((octet) => octet === 0)) return "its serial is not positive";
  return serial.length < FEWEST_RANDOM_OCTETS ? `its serial has ${serial.length} octets: it can be guessed` : undefined;
}

/** None of a bundle that cannot be read: XR-5 says so. */
function rootsOf(bundle: Buffer): readonly ParsedCertificate[] {
  try {
    return parseX509Bundle(bundle).map((der) => parseCertificate(der));
  } catch {
    return [];
  }
}
