import { execFileSync } from "node:child_process";
import { createPrivateKey, X509Certificate } from "node:crypto";
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
  it("XS-1 XS-3 XS-4 XS-5 XS-6 XR-5 a leaf has exactly the extensions the standard asks for, and verifies", () => {
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
    const privateKey = createPrivateKey({ key: issued.privateKeyPkcs8, format: "der", type: "pkcs8" });
    expect(new X509Certificate(leaf).checkPrivateKey(privateKey)).toBe(true);
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

  it("XS-12 serials are positive, of 128 random bits, and NotBefore lies in the past", () => {
    const { authority } = leafOf();
    const now = Date.now();
    const serials = new Set<string>();
    for (let index = 0; index < 100; index++) {
      const { issued, leaf } = leafOf(authority, now);
      expect(BigInt(`0x${new X509Certificate(leaf).serialNumber}`)).toBe(BigInt(`0x${issued.serial}`));
      serials.add(issued.serial);
      expect(issued.serial).toHaveLength(32);
      expect(issued.notBefore.getTime()).toBeLessThanOrEqual(now - 9_000);
      expect(issued.notAfter.getTime() - now).toBeLessThanOrEqual(600_000);
    }
    expect(serials.size).toBe(100);
    const high = createX509Authority({
      trustDomain,
      lifetimeSeconds: 60,
      now,
      random: (size) => Buffer.alloc(size, 0xff),
    });
    const [leaf] = high.issue({ id: billing, dnsNames: [], lifetimeSeconds: 60 }, now).certificates;
    expect(openssl("x509", "-in", pemFile("high", leaf as Buffer), "-noout", "-serial").trim()).toBe(
      `serial=${"F".repeat(32)}`,
    );
    const small = [Buffer.alloc(16), Buffer.concat([Buffer.alloc(15), Buffer.of(1)])];
    const never0 = createX509Authority({
      trustDomain,
      lifetimeSeconds: 60,
      now,
      random: () => small.shift() ?? Buffer.alloc(16, 7),
    });
    expect(BigInt(`0x${new X509Certificate(never0.certificate).serialNumber}`)).toBe(1n);
  });

  it("XS-2 makes no SVID for the trust domain itself or for another one, and none outside its own life", () => {
    const now = Date.now();
    const { authority } = leafOf();
    const issue = (id: string, at = now) =>
      authority.issue({ id: SpiffeId.parse(id), dnsNames: [], lifetimeSeconds: 600 }, at);
    expect(issue("spiffe://shop.local/a").certificates).toHaveLength(1);
    for (const id of ["spiffe://shop.local", "spiffe://other.local/a"]) {
      expect(() => issue(id)).toThrow(expect.objectContaining({ code: "identity-foreign" }));
    }
    for (const at of [now - 3_600_000, now + 3_700_000]) {
      expect(() => issue("spiffe://shop.local/a", at)).toThrow(expect.objectContaining({ code: "authority-expired" }));
    }
    const late = issue("spiffe://shop.local/a", now + 3_500_000);
    expect(late.notAfter).toEqual(authority.notAfter);
    const dnsNames = ["b\u00fcro.local"];
    expect(() => authority.issue({ id: billing, dnsNames, lifetimeSeconds: 600 }, now)).toThrow(
      expect.objectContaining({ code: "dns-name-invalid" }),
    );
  });

  it("refuses a key that is not its certificate's, and lives of less than 10 s", () => {
    const one = leafOf().authority;
    const other = leafOf().authority;
    const restore = (key: Buffer) =>
      restoreX509Authority({ trustDomain, certificate: one.certificate, privateKeyPkcs8: key });
    expect(restore(one.privateKeyPkcs8).keyId).toBe(one.keyId);
    expect(() => restore(other.privateKeyPkcs8)).toThrow(expect.objectContaining({ code: "authority-key-mismatch" }));
    const create = (lifetimeSeconds: number) => createX509Authority({ trustDomain, lifetimeSeconds, now: Date.now() });
    expect(create(10).keyId).toHaveLength(40);
    for (const short of [9, 0, -1, Number.NaN]) {
      expect(() => create(short)).toThrow(expect.objectContaining({ code: "lifetime-too-short" }));
    }
  });

  it("writes times before and after 2050, and bundles of long names, as openssl reads them", () => {
    const now = Date.parse("2049-12-31T23:00:00Z");
    const authority = createX509Authority({ trustDomain, lifetimeSeconds: 86_400, now });
    const dates = openssl("x509", "-in", pemFile("2050", authority.certificate), "-noout", "-dates");
    expect(dates).toContain("notBefore=Dec 31 22:59:50 2049 GMT");
    expect(dates).toContain("notAfter=Jan  1 23:00:00 2050 GMT");
    const long = SpiffeId.of(trustDomain, "a".repeat(2000));
    const [leaf] = authority.issue({ id: long, dnsNames: [], lifetimeSeconds: 600 }, now).certificates;
    expect(extensionText(leaf as Buffer, "Subject Alternative Name")).toContain(long.toString());
  });
});
