import { execFileSync, spawnSync } from "node:child_process";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Exportable, encodeExport } from "../../../src/client/spiffe/export/export-formats.js";
import { createJwtSource, createX509Source } from "../../../src/client/spiffe/index.js";
import { parseSpiffeBundle } from "../../../src/spiffe/spiffe-bundle.js";
import { identity, runApi } from "../../workload-api/running-api.js";

const ID = "spiffe://shop.local/agents/billing";
const PASSPHRASE = "correct horse; battery";
const hasKeytool = spawnSync("keytool", ["-help"]).error === undefined;
if (!hasKeytool) process.stderr.write("SKIPPED: Java's keytool as a judge of PKCS#12: it is not installed\n");
const hasNss = spawnSync("pk12util", ["-v"]).error === undefined;
if (!hasNss)
  process.stderr.write("SKIPPED: NSS, which keeps browsers' certificates, as a judge of PKCS#12: not installed\n");

let directory: string;
let parts: Exportable;

/** A real SVID under the second of two authorities. */
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "agentid-ex-"));
  const running = await runApi({ identities: [identity("agents/billing")] });
  running.authority.rotate();
  await running.keeper.rotateAll();
  const socketPath = `unix://${running.path}`;
  const [x509, jwt] = await Promise.all([createX509Source({ socketPath }), createJwtSource({ socketPath })]);
  parts = {
    svid: x509.svid(),
    authorities: x509.bundleFor("shop.local") ?? [],
    jwtKeys: jwt.bundleFor("shop.local") ?? { keys: [] },
  };
  x509.close();
  jwt.close();
  await running.close();
});
afterAll(() => rmSync(directory, { recursive: true }));

function file(name: string, contents: Buffer | string): string {
  const path = join(directory, name);
  writeFileSync(path, contents);
  return path;
}

function openssl(...args: readonly string[]): string {
  return execFileSync("openssl", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

const withPassphrase = ["-passin", `pass:${PASSPHRASE}`];

/** The public half of a private key that openssl took out of a file. */
function publicOf(privatePem: string): unknown {
  return createPrivateKey(privatePem).export({ format: "jwk" }).x;
}

describe("an encrypted PKCS#8 key", () => {
  it.each([PASSPHRASE, "Würfel – 🎲"])("is opened by openssl with its passphrase %j only", (passphrase) => {
    const path = file("key.p8", encodeExport("p8", parts, passphrase));
    const opened = openssl("pkcs8", "-in", path, "-passin", `pass:${passphrase}`);
    expect(publicOf(opened)).toBe(parts.svid.privateKey.export({ format: "jwk" }).x);
    expect(() => openssl("pkcs8", "-in", path, "-passin", "pass:wrong")).toThrow();
    expect(openssl("asn1parse", "-in", path)).toMatch(/PBES2[\s\S]*PBKDF2[\s\S]*hmacWithSHA256[\s\S]*aes-256-cbc/);
  });
});

describe("a PKCS#12 key store", () => {
  it("gives openssl key and whole chain, which verifies", () => {
    const path = file("store.p12", encodeExport("p12", parts, PASSPHRASE));
    const text = openssl("pkcs12", "-in", path, ...withPassphrase, "-nodes");
    const [, key = ""] = /(-----BEGIN PRIVATE KEY[\s\S]*?END PRIVATE KEY-----)/.exec(text) ?? [];
    expect(publicOf(key)).toBe(parts.svid.privateKey.export({ format: "jwk" }).x);
    expect(text).toContain("friendlyName: billing");
    const leaf = openssl("pkcs12", "-in", path, ...withPassphrase, "-clcerts", "-nokeys");
    expect(new X509Certificate(leaf.slice(leaf.indexOf("-----BEGIN"))).subjectAltName).toBe(`URI:${ID}`);
    const root = openssl("pkcs12", "-in", path, ...withPassphrase, "-cacerts", "-nokeys");
    const [leafPath, rootPath] = [file("leaf.pem", leaf), file("root.pem", root)];
    expect(openssl("verify", "-CAfile", rootPath, leafPath)).toContain("OK");
    expect(parts.authorities).toHaveLength(2);
  });

  it("is refused with another passphrase, and when a byte of it is changed", () => {
    const store = encodeExport("p12", parts, PASSPHRASE);
    const path = file("store.p12", store);
    expect(() => openssl("pkcs12", "-in", path, "-passin", "pass:wrong", "-noout")).toThrow();
    expect(() => openssl("pkcs12", "-in", path, ...withPassphrase, "-noout")).not.toThrow();
    const changed = Buffer.from(store);
    const middle = changed.length >> 1;
    changed[middle] = (changed[middle] ?? 0) ^ 1;
    expect(() => openssl("pkcs12", "-in", file("changed.p12", changed), ...withPassphrase, "-noout")).toThrow();
  });

  it.skipIf(!hasKeytool)(
    "is a key entry with its chain for Java",
    () => {
      const listed = keytool("-v", "store.p12", encodeExport("p12", parts, PASSPHRASE));
      expect(listed).toContain("Alias name: billing");
      expect(listed).toContain("Entry type: PrivateKeyEntry");
      expect(listed).toContain("Certificate chain length: 2");
      expect(listed).toContain(`URIName: ${ID}`);
    },
    60_000,
  );
});

/** NSS opens key stores for Firefox, and for Chromium on Linux. */
describe.skipIf(!hasNss)("a browser's certificate store", () => {
  const nss = (command: string, ...args: readonly string[]) =>
    execFileSync(command, ["-d", `sql:${directory}/nss`, ...args], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
    });

  it("takes key and chain from PKCS#12 and believes them once the root is trusted", () => {
    mkdirSync(join(directory, "nss"));
    nss("certutil", "-N", "--empty-password");
    const path = file("browser.p12", encodeExport("p12", parts, PASSPHRASE));
    expect(() => nss("pk12util", "-i", path, "-W", "wrong")).toThrow();
    expect(nss("certutil", "-L")).not.toContain("billing");
    expect(nss("pk12util", "-i", path, "-W", PASSPHRASE)).toContain("PKCS12 IMPORT SUCCESSFUL");
    expect(nss("certutil", "-L", "-n", "billing")).toContain(`URI: "${ID}"`);
    expect(nss("certutil", "-K")).toMatch(/ec\s+[0-9a-f]+\s+billing/);
    const forClients = ["-V", "-u", "C", "-n", "billing"];
    expect(() => nss("certutil", ...forClients)).toThrow();
    for (const [index, der] of parts.authorities.entries()) {
      nss("certutil", "-A", "-n", `root ${index}`, "-t", "CT,,", "-i", file(`root-${index}.der`, der));
    }
    expect(nss("certutil", ...forClients)).toContain("certificate is valid");
  });
});

describe("a Java trust store", () => {
  it.skipIf(!hasKeytool)(
    "lists every authority as trusted",
    () => {
      const listed = keytool("-v", "trust.p12", encodeExport("truststore", parts, PASSPHRASE));
      expect(listed.match(/Entry type: trustedCertEntry/g)).toHaveLength(2);
      expect(listed).toContain("Alias name: shop.local-1");
      expect(listed).toContain("Alias name: shop.local-2");
      expect(listed).toContain("URIName: spiffe://shop.local");
      expect(listed).not.toContain("PrivateKeyEntry");
    },
    60_000,
  );

  it("holds the authorities for openssl, and no key", () => {
    const path = file("trust.p12", encodeExport("truststore", parts, PASSPHRASE));
    const text = openssl("pkcs12", "-in", path, ...withPassphrase, "-nodes");
    expect(text.match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
    expect(text).toContain("2.16.840.1.113894.746875.1.1");
    expect(text).not.toContain("PRIVATE KEY");
  });
});

describe("other formats", () => {
  it("PEM holds key and chain", () => {
    const path = file("svid.pem", encodeExport("pem", parts, undefined));
    expect(publicOf(openssl("pkey", "-in", path))).toBe(parts.svid.privateKey.export({ format: "jwk" }).x);
    expect(openssl("x509", "-in", path, "-noout", "-ext", "subjectAltName")).toContain(`URI:${ID}`);
  });

  it("JWKS is the trust domain's SPIFFE bundle, without private members", () => {
    const text = encodeExport("jwks", parts, undefined).toString();
    const { x509Authorities, jwtKeys } = parseSpiffeBundle(text);
    expect(x509Authorities).toEqual(parts.authorities);
    expect(jwtKeys.map(({ kid }) => kid)).toEqual(parts.jwtKeys.keys.map(({ kid }) => kid));
    expect(JSON.parse(text).keys.some((jwk: object) => "d" in jwk)).toBe(false);
  });

  it.each(["p8", "p12", "truststore"] as const)("%s is not written without a passphrase", (format) => {
    for (const none of [undefined, ""]) {
      expect(() => encodeExport(format, parts, none)).toThrow(expect.objectContaining({ code: "passphrase-missing" }));
    }
  });

  it.each(["p12", "truststore"] as const)("%s takes no passphrase that Java could not open it with", (format) => {
    expect(() => encodeExport(format, parts, "Würfel")).toThrow(
      expect.objectContaining({ code: "passphrase-not-ascii" }),
    );
  });
});

function keytool(verbose: string, name: string, store: Buffer): string {
  const passphrase = file(`${name}.pass`, PASSPHRASE);
  const options = ["-list", verbose, "-storetype", "PKCS12", "-keystore", file(name, store)];
  const english = "-J-Duser.language=en";
  return execFileSync("keytool", [english, ...options, "-storepass:file", passphrase], { encoding: "utf8" });
}
