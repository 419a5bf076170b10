import { verifyPath } from "./certificate-path.js";
import { judge, type Rule, type RuleOutcome } from "./rule-outcome.js";
import { type ParsedCertificate, parseCertificate } from "./x509-certificate.js";
import { checkExtendedKeyUsage, idOf, MAX_CHAIN_LENGTH, type X509Authorities } from "./x509-svid.js";
import { X509SvidError } from "./x509-svid-error.js";

interface Presented {
  readonly leaf: ParsedCertificate;
  readonly intermediates: readonly ParsedCertificate[];
  readonly authoritiesOf: X509Authorities | undefined;
  readonly now: number;
}

/**
 * Every rule that a chain (leaf first) keeps or breaks as an X.509-SVID at `now`. `verifyX509Svid` accepts exactly the chains that keep all
 * rules of X509-SVID §2–5; `authoritiesOf` undefined leaves trust unjudged. Throws X509SvidError `x509-svid-malformed`, `x509-svid-chain-empty`
 * for what is no certificate at all.
 */
export function judgeX509Svid(
  chain: readonly Buffer[],
  authoritiesOf: X509Authorities | undefined,
  now: Date,
): readonly RuleOutcome[] {
  const [leaf, ...intermediates] = chain.map((one) => parseCertificate(one));
  if (leaf === undefined) throw new X509SvidError("x509-svid-chain-empty", "there is no certificate");
  return judge(RULES, { leaf, intermediates, authoritiesOf, now: now.getTime() });
}

const NO_ID = "it has no SPIFFE ID";

const RULES: readonly Rule<Presented>[] = [
  {
    source: "X509-SVID §2",
    sentence: "An X.509 SVID MUST contain exactly one URI SAN, and by extension, exactly one SPIFFE ID.",
    check({ leaf: { uris } }) {
      if (uris.length === 0) throw new X509SvidError("x509-svid-uri-missing", "the certificate holds no URI");
      if (uris.length > 1)
        throw new X509SvidError("x509-svid-uri-several", `it holds ${uris.length}: ${uris.join(", ")}`);
      return undefined;
    },
  },
  {
    source: "X509-SVID §5.2",
    sentence: "The validator MUST also ensure that the scheme of the SPIFFE ID is set to spiffe.",
    check({ leaf }) {
      if (leaf.uris.length !== 1) return NO_ID;
      idOf(leaf);
      return undefined;
    },
  },
  {
    source: "X509-SVID §3.1",
    sentence: "Leaf certificate SPIFFE IDs MUST have a non-root path component.",
    check({ leaf }) {
      const id = idIfAny(leaf);
      if (id === undefined) return NO_ID;
      if (id.path === "")
        throw new X509SvidError("x509-svid-path-missing", `${id} names a trust domain, not a workload`);
      return undefined;
    },
  },
  {
    source: "X509-SVID §4.1",
    sentence: "Leaf certificates MUST set the cA field to false.",
    check({ leaf: { basicConstraints } }) {
      if (basicConstraints?.cA === true) throw new X509SvidError("x509-svid-leaf-is-ca", "it is a signing certificate");
      return undefined;
    },
  },
  {
    source: "X509-SVID §4.3",
    sentence: "The key usage extension MUST be set on all SVIDs, and MUST be marked critical.",
    check({ leaf: { keyUsage } }) {
      if (keyUsage === undefined) throw new X509SvidError("x509-svid-key-usage-missing", "it has no key usage");
      if (!keyUsage.critical) throw new X509SvidError("x509-svid-key-usage-not-critical", "it is not marked critical");
      return undefined;
    },
  },
  {
    source: "X509-SVID §4.3",
    sentence: "Leaf SVIDs MUST set digitalSignature.",
    check({ leaf: { keyUsage } }) {
      if (keyUsage === undefined) return "it has no key usage";
      if (!keyUsage.digitalSignature) {
        throw new X509SvidError("x509-svid-digital-signature-missing", "the key usage lacks digitalSignature");
      }
      return undefined;
    },
  },
  {
    source: "X509-SVID §4.3",
    sentence: "Leaf SVIDs MUST NOT set keyCertSign or cRLSign.",
    check({ leaf: { keyUsage } }) {
      if (keyUsage?.keyCertSign === true) {
        throw new X509SvidError("x509-svid-leaf-signs-certificates", "the key usage includes keyCertSign");
      }
      if (keyUsage?.cRLSign === true) {
        throw new X509SvidError("x509-svid-leaf-signs-crls", "the key usage includes cRLSign");
      }
      return undefined;
    },
  },
  {
    source: "X509-SVID §4.4",
    sentence: "When included, fields id-kp-serverAuth and id-kp-clientAuth MUST be set.",
    check({ leaf }) {
      checkExtendedKeyUsage(leaf, "the certificate");
      return undefined;
    },
  },
  {
    source: "RFC 5280 §6.1.3",
    sentence: "The certificate validity period includes the current time.",
    check({ leaf, now }) {
      const [from, until] = [new Date(leaf.notBefore).toISOString(), new Date(leaf.notAfter).toISOString()];
      if (now < leaf.notBefore) throw new X509SvidError("x509-svid-not-yet-valid", `it is valid from ${from} on`);
      if (now > leaf.notAfter) throw new X509SvidError("x509-svid-expired", `it expired at ${until}`);
      return undefined;
    },
  },
  {
    source: "Workload API §4.6",
    sentence: "If no matching bundle is present for the SVID in use, then the peer is untrusted.",
    check({ leaf, authoritiesOf }) {
      const id = idIfAny(leaf);
      if (id === undefined) return NO_ID;
      if (authoritiesOf === undefined) return "there is no bundle to look at";
      if ((authoritiesOf(id.trustDomain) ?? []).length === 0) {
        throw new X509SvidError("x509-svid-trust-domain-unknown", `no trust bundle for ${id.trustDomain}`);
      }
      return undefined;
    },
  },
  {
    source: "X509-SVID §5.1",
    sentence: "The validation of trust in a given SVID … MUST follow RFC 5280 path validation semantics.",
    check({ leaf, intermediates, authoritiesOf, now }) {
      const id = idIfAny(leaf);
      const authorities = id === undefined ? undefined : authoritiesOf?.(id.trustDomain);
      if (authorities === undefined || authorities.length === 0) return "there is no bundle of its trust domain";
      if (intermediates.length >= MAX_CHAIN_LENGTH) {
        throw new X509SvidError("x509-svid-chain-too-long", `it is longer than ${MAX_CHAIN_LENGTH} certificates`);
      }
      // The leaf's own times have a rule of their own: an expired leaf says nothing of who signed it.
      const at = Math.min(Math.max(now, leaf.notBefore), leaf.notAfter);
      verifyPath(
        leaf,
        intermediates,
        authorities.map((der) => parseCertificate(der)),
        at,
      );
      return undefined;
    },
  },
];

function idIfAny(leaf: ParsedCertificate): ReturnType<typeof idOf> | undefined {
  try {
    return idOf(leaf);
  } catch {
    return undefined; // the rules on the ID itself say why
  }
}
