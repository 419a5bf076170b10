import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { CodedError, messageOf } from "../coded-error.js";
import { type ParsedCertificate, parseCertificate, subjectKeyIdOf } from "../spiffe/x509-certificate.js";
import { subjectKeyIdentifier } from "./certificate-template.js";
import { algorithmOf, type SignatureAlgorithm } from "./signed-structure.js";

/** Somebody else's authority, under which ours is an intermediate. */
export interface UpstreamAuthority {
  /** DER: the certificate that signs ours, then those above it, the root last. */
  readonly chain: readonly Buffer[];
  readonly privateKey: KeyObject;
  readonly algorithm: SignatureAlgorithm;
  /** DER of the signing certificate's name. */
  readonly subject: Buffer;
  /** As the signing certificate gives it, else as RFC 5280 §4.2.1.2 (1) makes it. */
  readonly keyId: Buffer;
  /** When the whole chain is valid; nothing that we issue outlives it. */
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** Where it lies: absolute paths of PEM files. */
export interface UpstreamAuthorityFiles {
  /** The signing certificate first; if it is not a root, followed by the certificates above it up to the root. */
  readonly certificate: string;
  /** Its private key, unencrypted: PKCS#8, SEC 1 or PKCS#1. */
  readonly key: string;
}

/**
 * Reads and checks an upstream authority at `now` (ms), so that whatever we issue under it will be believed.
 *
 * Throws CodedError: `upstream-unreadable`, `upstream-malformed`, `upstream-key-mismatch`, `upstream-key-unsupported`, `upstream-not-ca`,
 * `upstream-expired`, `upstream-not-yet-valid`, `upstream-path-length`, `upstream-name-constraints`, `upstream-chain`.
 */
export function loadUpstreamAuthority(files: UpstreamAuthorityFiles, now: number): UpstreamAuthority {
  const chain = readCertificates(files.certificate);
  const [signer] = chain;
  if (signer === undefined) throw refused("upstream-malformed", `${files.certificate} holds no certificate`);
  chain.forEach((certificate, below) => {
    checkAuthority(certificate, below, files.certificate, now);
  });
  checkChain(chain, files.certificate);
  const privateKey = readKey(files.key);
  if (!signer.x509.checkPrivateKey(privateKey)) {
    throw refused("upstream-key-mismatch", `${files.key} is not the key of the certificate in ${files.certificate}`);
  }
  const algorithm = algorithmOf(privateKey);
  if (algorithm === undefined) {
    throw refused(
      "upstream-key-unsupported",
      `the key in ${files.key} is none that peers accept signatures of`,
      "use an EC key on P-256, P-384 or P-521, an RSA key of 2048 bits or more, or Ed25519",
    );
  }
  return {
    chain: chain.map(({ x509 }) => Buffer.from(x509.raw)),
    privateKey,
    algorithm,
    subject: signer.subject,
    keyId: keyIdOf(signer),
    notBefore: new Date(Math.max(...chain.map((certificate) => certificate.notBefore))),
    notAfter: new Date(Math.min(...chain.map((certificate) => certificate.notAfter))),
  };
}

/** RFC 5280 §6.1.4 for a certificate with `below` upstream certificates between it and ours. */
function checkAuthority(certificate: ParsedCertificate, below: number, path: string, now: number): void {
  const { basicConstraints, keyUsage, hasNameConstraints, unprocessedCritical } = certificate;
  const which = `${path}: the certificate of ${certificate.x509.subject.replaceAll("\n", ", ")}`;
  if (basicConstraints?.cA !== true || (keyUsage !== undefined && !keyUsage.keyCertSign)) {
    throw refused("upstream-not-ca", `${which} may not sign certificates`, "it needs CA:TRUE and keyCertSign");
  }
  if (now < certificate.notBefore) throw refused("upstream-not-yet-valid", `${which} is not valid yet`);
  if (now >= certificate.notAfter) {
    throw refused("upstream-expired", `${which} has expired on ${new Date(certificate.notAfter).toISOString()}`);
  }
  // §4.2.1.9: how many intermediates may follow. Ours is one more than those between.
  if (basicConstraints.pathLength !== undefined && basicConstraints.pathLength < below + 1) {
    throw refused(
      "upstream-path-length",
      `${which} allows ${basicConstraints.pathLength} authorities below it, and ours needs ${below + 1}`,
      "have it issued with a larger pathlen, or without one",
    );
  }
  if (hasNameConstraints) {
    throw refused(
      "upstream-name-constraints",
      `${which} has name constraints, which SPIFFE peers (ours too) do not process, so they refuse every chain below it`,
      "use an authority without name constraints",
    );
  }
  if (unprocessedCritical.length > 0) {
    throw refused("upstream-chain", `${which} has the critical extension ${unprocessedCritical.join(", ")}`);
  }
}

/** Each one signed by the next, the last by itself: that one becomes the trust bundle. */
function checkChain(chain: readonly ParsedCertificate[], path: string): void {
  chain.forEach((certificate, index) => {
    const issuer = chain[index + 1] ?? certificate;
    if (certificate.issuer.equals(issuer.subject) && certificate.x509.verify(issuer.x509.publicKey)) return;
    throw refused(
      "upstream-chain",
      index === chain.length - 1
        ? `${path} does not end in a root: the last certificate is not signed by itself`
        : `${path}: certificate ${index + 1} is not signed by the one after it`,
      "put the signing certificate first, then each one's issuer, the root last",
    );
  });
}

function readCertificates(path: string): readonly ParsedCertificate[] {
  const blocks = readText(path).match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
  try {
    return blocks.map((pem) => parseCertificate(new X509Certificate(pem)));
  } catch (cause) {
    throw refused(
      "upstream-malformed",
      `${path} holds what is not a certificate: ${messageOf(cause)}`,
      undefined,
      cause,
    );
  }
}

function readKey(path: string): KeyObject {
  const text = readText(path);
  try {
    return createPrivateKey(text);
  } catch (cause) {
    const encrypted = text.includes("ENCRYPTED");
    throw refused(
      "upstream-malformed",
      encrypted ? `the private key in ${path} is encrypted` : `${path} holds no private key in PEM`,
      encrypted ? `openssl pkey -in ${path} takes the password off` : undefined,
      cause,
    );
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch (cause) {
    throw refused("upstream-unreadable", `cannot read ${path}: ${messageOf(cause)}`, undefined, cause);
  }
}

function keyIdOf({ x509 }: ParsedCertificate): Buffer {
  return subjectKeyIdOf(x509) ?? subjectKeyIdentifier(x509.publicKey.export({ format: "der", type: "spki" }));
}

function refused(code: string, message: string, hint?: string, cause?: unknown): CodedError {
  return new CodedError(code, `upstream authority: ${message}`, {
    ...(hint === undefined ? {} : { hint }),
    ...(cause === undefined ? {} : { cause }),
  });
}
