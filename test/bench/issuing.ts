/**
 * X.509-SVIDs issued a second on one core, key generation included (bar 8,000), beside `@peculiar/x509` used as its documentation shows;
 * and the parts of a handshake's verification.
 */
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import {
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { createJwtAuthority } from "../../src/identity/jwt-authority.js";
import { createX509Authority } from "../../src/identity/x509-authority.js";
import { parseAndValidateJwtSvid } from "../../src/spiffe/jwt-svid.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { verifyX509Svid } from "../../src/spiffe/x509-svid.js";

const ROUNDS = 5;
const trustDomain = TrustDomain.parse("shop.local");
const id = SpiffeId.of(trustDomain, "agents/billing");
const now = Date.now();
const authority = createX509Authority({ trustDomain, lifetimeSeconds: 86_400, now });
const jwtAuthority = createJwtAuthority({ trustDomain, notBefore: authority.notBefore, notAfter: authority.notAfter });
const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const issuerKeys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
const { certificates } = authority.issue({ id, dnsNames: [], lifetimeSeconds: 600 }, now);
const { token } = jwtAuthority.issue({ id, audiences: ["orders"], lifetimeSeconds: 300 }, now);
const keySet = { keys: [jwtAuthority.publicJwk] };

async function naively(): Promise<void> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  await X509CertificateGenerator.create({
    issuer: "C=US, O=SPIFFE",
    notBefore: new Date(now),
    notAfter: new Date(now + 600_000),
    publicKey: keys.publicKey,
    signingKey: issuerKeys.privateKey,
    signingAlgorithm: algorithm,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension(["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]),
      new SubjectAlternativeNameExtension([{ type: "url", value: id.toString() }], true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
}

/** Calls of `action` for each second of one core's time: the best of some rounds, since others use this machine too. */
async function rate(count: number, action: () => unknown): Promise<number> {
  let best = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const started = process.cpuUsage();
    for (let index = 0; index < count; index++) await action();
    const { user, system } = process.cpuUsage(started);
    best = Math.max(best, (count * 1e6) / (user + system));
  }
  return Math.round(best);
}

const say = (text: string) => process.stdout.write(`${text}\n`);
const ours = await rate(2_000, () => authority.issue({ id, dnsNames: [], lifetimeSeconds: 600 }, now));
const naive = await rate(300, naively);
const tokens = await rate(4_000, () => jwtAuthority.issue({ id, audiences: ["orders"], lifetimeSeconds: 300 }, now));
const verified = await rate(2_000, () => verifyX509Svid(certificates, () => [authority.certificate], new Date(now)));
const validated = await rate(2_000, () => parseAndValidateJwtSvid(token, "orders", () => keySet, new Date(now)));
say(`X.509-SVIDs issued      ${ours}/s, ${(ours / naive).toFixed(1)} times @peculiar/x509 used naively (${naive}/s)`);
say(`X.509-SVIDs verified    ${verified}/s`);
say(`JWT-SVIDs issued        ${tokens}/s`);
say(`JWT-SVIDs validated     ${validated}/s`);
