import "reflect-metadata";
import { webcrypto } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { SubjectAlternativeNameExtension } from "@peculiar/x509";
import { encodePem } from "../../src/spiffe/pem.js";
import {
  basicConstraints,
  extendedKeyUsage,
  KeyUsageFlags,
  keyUsage,
  makeCertificate,
  NOW,
  SERVER_AUTH,
  type TestCertificate,
} from "../spiffe/test-certificates.js";

/** An authority of a Web PKI of the tests' own. */
export interface WebAuthority {
  readonly pem: string;
  /** Writes certificate and key for 127.0.0.1 and `names` into `folder`, as PEM files. */
  issue(folder: string, names?: readonly string[]): Promise<{ certificate: string; key: string; cert: string }>;
}

export async function createWebAuthority(): Promise<WebAuthority> {
  // Good from a year before to a year after: the handshake reads the real clock.
  const life = { notBefore: Date.now() - NOW.getTime() - YEAR, notAfter: Date.now() - NOW.getTime() + YEAR };
  const extensions = [basicConstraints(true), keyUsage(KeyUsageFlags.keyCertSign)];
  const root = await makeCertificate({ name: "CN=web root", extensions, ...life });
  return {
    pem: encodePem("CERTIFICATE", root.der),
    async issue(folder, names = []) {
      const alternative = new SubjectAlternativeNameExtension([
        { type: "ip", value: "127.0.0.1" },
        ...names.map((value) => ({ type: "dns", value }) as const),
      ]);
      const usage = [keyUsage(KeyUsageFlags.digitalSignature), extendedKeyUsage(SERVER_AUTH)];
      const leaf = await makeCertificate({
        ...{ issuer: root, name: "CN=web", extensions: [alternative, basicConstraints(false), ...usage], ...life },
      });
      const files = { certificate: join(folder, "web.pem"), key: join(folder, "web.key") };
      const cert = encodePem("CERTIFICATE", leaf.der);
      writeFileSync(files.certificate, cert);
      writeFileSync(files.key, encodePem("PRIVATE KEY", await privateKeyOf(leaf)), { mode: 0o600 });
      return { ...files, cert };
    },
  };
}

const YEAR = 365 * 86_400_000;

export async function privateKeyOf({ keys }: TestCertificate): Promise<Buffer> {
  return Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.pair.privateKey));
}
