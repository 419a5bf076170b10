import { execFile } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { z } from "zod";

const execute = promisify(execFile);

/** What a workload says of an X.509-SVID that it was handed: DER in base64, leaf first, and the authorities of its trust domain. */
const HandedOut = z.object({ chain: z.array(z.string()).min(1), authorities: z.array(z.string()).min(1) });

/** openssl's word on an X.509-SVID, with every rule of RFC 5280 that it knows. Rejects with what openssl found wrong. */
export async function opensslVerifies(said: unknown): Promise<void> {
  const { chain, authorities } = HandedOut.parse(said);
  const folder = mkdtempSync(join(tmpdir(), "agentid-openssl-"));
  const file = (name: string, certificates: readonly string[]) => {
    const path = join(folder, name);
    writeFileSync(path, certificates.map((one) => certificate(one).toString()).join(""));
    return path;
  };
  try {
    const [leaf = "", ...intermediates] = chain;
    const untrusted = intermediates.length === 0 ? [] : ["-untrusted", file("intermediates.pem", intermediates)];
    const roots = ["-no-CApath", "-no-CAstore", "-CAfile", file("authorities.pem", authorities)];
    for (const purpose of ["sslclient", "sslserver"]) {
      const flags = ["-x509_strict", "-purpose", purpose, ...roots, ...untrusted];
      await execute("openssl", ["verify", ...flags, file("leaf.pem", [leaf])]);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The serial number of the leaf that a workload was handed, in hexadecimal. */
export function serialOf(said: unknown): string {
  return certificate(HandedOut.parse(said).chain[0] ?? "").serialNumber;
}

/** How many authorities the workload's trust domain has. */
export function authoritiesOf(said: unknown): number {
  return HandedOut.parse(said).authorities.length;
}

function certificate(base64: string): X509Certificate {
  return new X509Certificate(Buffer.from(base64, "base64"));
}
