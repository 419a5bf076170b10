import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { createX509Authority, restoreX509Authority } from "../../src/identity/x509-authority.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";

const directory = mkdtempSync(join(tmpdir(), "agentid-x509-authority-"));
afterAll(() => rmSync(directory, { recursive: true }));

const trustDomain = TrustDomain.parse("shop.local");
const billing = SpiffeId.parse("spiffe://shop.local/agents/billing");

function pemFile(name: string, der: Buffer): string {
  const path = join(directory, `${name}.pem`);
  writeFileSync(path, new X509Certificate(der).toString());
  return path;
}

function openssl(...args: string[]): string {
  return execFileSync("openssl", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** The text openssl prints for an extension, with its own line. */
function extensionText(der: Buffer, heading: string): string {
  const lines = openssl("x509", "-in", pemFile("text", der), "-noout", "-text").split("\n");
  const at = lines.findIndex((line) => line.includes(heading));
  return at === -1 ? "absent" : `${lines[at]?.trim()} ${lines[at + 1]?.trim()}`;
}

function leafOf(
  authority = createX509Authority({ trustDomain, lifetimeSeconds: 3600, now: Date.now() }),
  now = Date.now(),
) {
  const issued = authority.issue({ id: billing, dnsNames: ["billing.local"], lifetimeSeconds: 600 }, now);
  const [leaf] = issued.certificates;
  if (leaf === undefined) throw new Error("no certificate");
  return { authority, issued, leaf };
}

describe("X.509 authority, with openssl as the judge", () => {
  it("XS-3 XS-4 XS-5 XS-6 XR-5 a leaf has exactly the extensions the standard asks for, and verifies", () => {
    const { authority, leaf, issued } = leafOf();
    const root = pemFile("root", authority.certificate);
    for (const purpose of ["sslserver", "sslclient"]) {
      expect(openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", root, pemFile("leaf", leaf))).toContain(
        "OK",
      );
    }
    expect(extensionText(leaf, "Subject Alternative Name")).toBe(
      "X509v3 Subject Alternative Name: critical URI:spiffe://shop.local/agents/billing, DNS:billing.local",
    );
    expect(extensionText(leaf, "Basic Constraints")).toBe("X509v3 Basic Constraints: critical CA:FALSE");
    expect(extensionText(leaf, "X509v3 Key Usage")).toBe("X509v3 Key Usage: critical Digital Signature");
    expect(extensionText(leaf, "Extended Key Usage")).toBe(
      "X509v3 Extended Key Usage: TLS Web Server Authentication, TLS Web Client Authentication",
    );
    expect(openssl("x509", "-in", pemFile("leaf", leaf), "-noout", "-subject").trim()).toBe("subject=");
    expect(new X509Certificate(leaf).checkPrivateKey(issued.privateKey)).toBe(true);
    expect(() =>
      openssl("verify", "-CAfile", pemFile("other", leafOf().authority.certificate), pemFile("leaf", leaf)),
    ).toThrow();
  });

  it("XS-7 the authority's certificate may sign, names the trust domain and can be restored", () => {
    const { authority } = leafOf();
    const der = authority.certificate;
    expect(openssl("verify", "-x509_strict", "-CAfile", pemFile("root", der), pemFile("root", der))).toContain("OK");
    expect(extensionText(der, "Basic Constraints")).toBe("X509v3 Basic Constraints: critical CA:TRUE");
    expect(extensionText(der, "X509v3 Key Usage")).toBe("X509v3 Key Usage: critical Certificate Sign, CRL Sign");
    expect(extensionText(der, "Subject Alternative Name")).toContain("URI:spiffe://shop.local");
    const { leaf } = leafOf(
      restoreX509Authority({ trustDomain, certificate: der, privateKeyPkcs8: authority.privateKeyPkcs8 }),
    );
    expect(openssl("verify", "-CAfile", pemFile("root", der), pemFile("leaf", leaf))).toContain("OK");
  });
});
