import "reflect-metadata";
import { webcrypto } from "node:crypto";
import {
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from "@peculiar/x509";

/** Certificates made by somebody else's encoder, so that what we read is not only what we write. */

export const NOW = new Date("2026-11-22T12:00:00Z");
export const HOUR = 3_600_000;
export const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
export const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";

interface TestKeys {
  readonly algorithm: webcrypto.RsaHashedKeyGenParams | (EcKeyGenParams & { hash: string }) | { name: "Ed25519" };
  readonly pair: webcrypto.CryptoKeyPair;
}
interface EcKeyGenParams {
  name: "ECDSA";
  namedCurve: string;
}

export interface TestCertificate {
  readonly der: Buffer;
  readonly keys: TestKeys;
  readonly name: string;
}

type Algorithm = "P-256" | "P-384" | "RSA-2048" | "RSA-1024" | "RSA-SHA1" | "Ed25519";

function algorithmOf(algorithm: Algorithm): TestKeys["algorithm"] {
  if (algorithm === "Ed25519") return { name: "Ed25519" };
  if (algorithm === "P-256" || algorithm === "P-384") return { name: "ECDSA", namedCurve: algorithm, hash: "SHA-256" };
  return {
    name: "RSASSA-PKCS1-v1_5",
    hash: algorithm === "RSA-SHA1" ? "SHA-1" : "SHA-256",
    publicExponent: new Uint8Array([1, 0, 1]),
    modulusLength: algorithm === "RSA-1024" ? 1024 : 2048,
  };
}

async function generateKeys(algorithm: Algorithm): Promise<TestKeys> {
  const parameters = algorithmOf(algorithm);
  const pair = await webcrypto.subtle.generateKey(parameters as webcrypto.EcKeyGenParams, true, ["sign", "verify"]);
  return { algorithm: parameters, pair };
}

export interface CertificateOptions {
  readonly issuer?: TestCertificate;
  readonly name?: string;
  readonly algorithm?: Algorithm;
  /** The key of another certificate with this one's name: two certificates of one authority. */
  readonly keys?: TestKeys;
  /** Milliseconds from NOW. */
  readonly notBefore?: number;
  readonly notAfter?: number;
  /** Hex. Default: the next small number. */
  readonly serialNumber?: string;
  readonly extensions: readonly Extension[];
}

let serial = 1;

export async function makeCertificate(options: CertificateOptions): Promise<TestCertificate> {
  const { issuer, name = "CN=test", algorithm = "P-256", notBefore = -HOUR, notAfter = HOUR, extensions } = options;
  const keys = options.keys ?? (await generateKeys(algorithm));
  const signer = issuer?.keys ?? keys;
  const certificate = await X509CertificateGenerator.create({
    serialNumber: options.serialNumber ?? (0x10000 + serial++).toString(16),
    subject: name,
    issuer: issuer?.name ?? name,
    notBefore: new Date(NOW.getTime() + notBefore),
    notAfter: new Date(NOW.getTime() + notAfter),
    publicKey: keys.pair.publicKey,
    signingKey: signer.pair.privateKey,
    signingAlgorithm: signer.algorithm as { name: "ECDSA"; hash: string },
    extensions: [...extensions],
  });
  return { der: Buffer.from(certificate.rawData), keys, name };
}

export const basicConstraints = (cA: boolean, pathLength?: number) =>
  new BasicConstraintsExtension(cA, pathLength, true);
export const keyUsage = (flags: number, critical = true) => new KeyUsagesExtension(flags as KeyUsageFlags, critical);
export const extendedKeyUsage = (...usages: string[]) => new ExtendedKeyUsageExtension(usages);
export const uris = (...values: string[]) =>
  new SubjectAlternativeNameExtension(values.map((value) => ({ type: "url", value })));
export const unknownExtension = (critical: boolean) => new Extension("1.3.6.1.4.1.55555.1", critical, Buffer.of(5, 0));
/** permitted: URI host shop.local. */
export const nameConstraints = (critical = true) =>
  new Extension("2.5.29.30", critical, Buffer.from("3010a00e300c860a73686f702e6c6f63616c", "hex"));
export { KeyUsageFlags };

/** The extensions of a good leaf; a vector changes one. */
export function leafExtensions(changes: {
  names?: Extension | null;
  constraints?: Extension | null;
  usage?: Extension | null;
  extendedUsage?: Extension | null;
  more?: Extension[];
  id?: string;
}): Extension[] {
  const {
    names = uris(changes.id ?? "spiffe://shop.local/agents/billing"),
    constraints = basicConstraints(false),
    usage = keyUsage(KeyUsageFlags.digitalSignature),
    extendedUsage = extendedKeyUsage(SERVER_AUTH, CLIENT_AUTH),
    more = [],
  } = changes;
  return [names, constraints, usage, extendedUsage, ...more].filter((extension) => extension !== null);
}

export function makeAuthority(
  options: Partial<CertificateOptions> & { pathLength?: number } = {},
): Promise<TestCertificate> {
  const extensions = [
    basicConstraints(true, options.pathLength),
    keyUsage(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign),
    uris("spiffe://shop.local"),
  ];
  return makeCertificate({ name: "CN=root", notBefore: -24 * HOUR, notAfter: 24 * HOUR, extensions, ...options });
}

export function makeLeaf(issuer: TestCertificate, options: Partial<CertificateOptions> = {}): Promise<TestCertificate> {
  return makeCertificate({ issuer, name: "CN=leaf", extensions: leafExtensions({}), ...options });
}
