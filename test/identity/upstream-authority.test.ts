import { execFileSync } from "node:child_process";
import { hash, X509Certificate } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { KeyStore, StoredAuthorities } from "../../src/identity/key-store.js";
import { loadUpstreamAuthority } from "../../src/identity/upstream-authority.js";
import { openUpstreamFiles } from "../../src/identity/upstream-files.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { verifyX509Svid } from "../../src/spiffe/x509-svid.js";
import { createTestClock, createTestTrustDomain, shop } from "./test-trust-domain.js";

/** Authorities made by openssl, as a company's are. */

const base = mkdtempSync(join(tmpdir(), "agentid-upstream-"));
afterAll(() => rmSync(base, { recursive: true }));

const billing = SpiffeId.of(shop, "agents/billing");
const coded = (code: string) => expect.objectContaining({ code });
const DAY = 86_400_000;
/** The clock of the tests goes before the machine's, so that what openssl makes meanwhile is valid already. */
const MINUTE = 60_000;

function openssl(...args: string[]): string {
  return execFileSync("openssl", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

interface Made {
  readonly certificate: string;
  readonly key: string;
}

const KEYS = {
  "P-256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
  "P-384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
  "P-521": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
  "RSA-2048": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
  "RSA-1024": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
  Ed25519: ["-algorithm", "ED25519"],
} as const;

let made = 0;

/** A certificate with these extensions, signed by `issuer` or by itself. */
function make(options: {
  key?: keyof typeof KEYS;
  extensions?: readonly string[];
  issuer?: Made;
  days?: number;
  subject?: string;
}): Made {
  const { key = "P-256", issuer, days = 365 } = options;
  const extensions = options.extensions ?? [
    "basicConstraints=critical,CA:TRUE",
    "keyUsage=critical,keyCertSign,cRLSign",
  ];
  const name = join(base, `ca-${++made}`);
  const subject = options.subject ?? `/O=Company/CN=CA ${made}`;
  openssl("genpkey", ...KEYS[key], "-out", `${name}.key`);
  openssl(
    ...["req", "-x509", "-new", "-key", `${name}.key`, "-subj", subject, "-days", String(days), "-out", `${name}.pem`],
    ...extensions.flatMap((extension) => ["-addext", extension]),
    ...(issuer === undefined ? [] : ["-CA", issuer.certificate, "-CAkey", issuer.key]),
  );
  return { certificate: `${name}.pem`, key: `${name}.key` };
}

/** SHA-1 of a P-256 certificate's public point: the last 65 octets of its key. */
function sha1OfKeyIn(certificate: string): Buffer {
  const { publicKey } = new X509Certificate(readFileSync(certificate));
  return hash("sha1", publicKey.export({ format: "der", type: "spki" }).subarray(-65), "buffer");
}

/** One file with the certificates of all of them. */
function chained(...all: readonly Made[]): Made {
  const [first] = all;
  if (first === undefined) throw new Error("nothing to chain");
  const certificate = join(base, `chain-${++made}.pem`);
  writeFileSync(certificate, all.map((one) => readFileSync(one.certificate, "utf8")).join(""));
  return { certificate, key: first.key };
}

function pemFile(name: string, ...ders: readonly Buffer[]): string {
  const path = join(base, name);
  writeFileSync(path, ders.map((der) => new X509Certificate(der).toString()).join(""));
  return path;
}

function keptStore(): KeyStore {
  let kept: StoredAuthorities | undefined;
  return {
    protection: "none",
    load: () => kept,
    save(authorities) {
      kept = structuredClone(authorities);
    },
  };
}

type Domain = ReturnType<typeof createTestTrustDomain>;

/** openssl and our own verifier, over the bundle of the moment. */
function verify({ keeper, bundles, clock }: Domain): string {
  const { certificates } = keeper.x509Svid(billing);
  const roots = bundles.x509Bundle(shop)?.authorities ?? [];
  verifyX509Svid(certificates, (td) => bundles.x509Bundle(td)?.authorities, new Date(clock.now()));
  const [leaf, ...intermediates] = certificates;
  if (leaf === undefined) throw new Error("no certificate");
  return openssl(
    ...[
      "verify",
      "-x509_strict",
      "-attime",
      String(Math.floor(clock.now() / 1000)),
      "-CAfile",
      pemFile("roots.pem", ...roots),
    ],
    ...(intermediates.length === 0 ? [] : ["-untrusted", pemFile("intermediates.pem", ...intermediates)]),
    pemFile("leaf.pem", leaf),
  );
}

describe("upstream authority", () => {
  it.each(["P-256", "P-384", "P-521", "RSA-2048", "Ed25519"] as const)(
    "XR-3 XS-7 ours is an intermediate of a %s root: the chain holds it, the bundle is the root, openssl agrees",
    (key) => {
      const root = make({ key });
      const upstream = loadUpstreamAuthority(root, Date.now());
      const domain = createTestTrustDomain({ clock: createTestClock(Date.now() + MINUTE), upstream: () => upstream });
      expect(verify(domain)).toContain("OK");
      const { certificates } = domain.keeper.x509Svid(billing);
      expect(certificates).toHaveLength(2);
      expect(certificates[1]).toEqual(domain.authority.active.x509Certificate);
      const [bundle, another] = domain.bundles.x509Bundle(shop)?.authorities ?? [];
      expect(bundle?.equals(new X509Certificate(readFileSync(root.certificate)).raw)).toBe(true);
      expect(another).toBeUndefined();
      const ours = new X509Certificate(domain.authority.active.x509Certificate);
      expect(ours.subjectAltName).toBe("URI:spiffe://shop.local");
      expect(openssl("x509", "-in", pemFile("ours.pem", ours.raw), "-noout", "-text")).toContain("CA:TRUE, pathlen:0");
    },
  );

  it("is named by its children as it names itself: by any key identifier it has, else by its key's hash", () => {
    const authority = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"];
    const own = loadUpstreamAuthority(
      make({ extensions: [...authority, "subjectKeyIdentifier=0102030405", "authorityKeyIdentifier=none"] }),
      Date.now(),
    );
    expect(own.keyId.toString("hex")).toBe("0102030405");
    const files = make({ extensions: [...authority, "subjectKeyIdentifier=none"] });
    const text = openssl("x509", "-in", files.certificate, "-noout", "-text");
    expect(text).not.toContain("Subject Key Identifier");
    const hashed = loadUpstreamAuthority(files, Date.now());
    expect(hashed.keyId).toEqual(sha1OfKeyIn(files.certificate));
    const domain = createTestTrustDomain({ clock: createTestClock(Date.now() + MINUTE), upstream: () => own });
    expect(verify(domain)).toContain("OK");
  });

  it("below intermediates: all but the root are sent", () => {
    const root = make({ key: "RSA-2048" });
    const issuing = make({ key: "P-384", issuer: root });
    const upstream = loadUpstreamAuthority(chained(issuing, root), Date.now());
    const domain = createTestTrustDomain({ clock: createTestClock(Date.now() + MINUTE), upstream: () => upstream });
    expect(domain.keeper.x509Svid(billing).certificates).toHaveLength(3);
    expect(verify(domain)).toContain("OK");
  });

  it("is renewed below it, again and again, and never outlives it", () => {
    const upstream = loadUpstreamAuthority(make({ days: 3 }), Date.now());
    const domain = createTestTrustDomain({ clock: createTestClock(Date.now() + MINUTE), upstream: () => upstream });
    const keyIds = new Set<string>();
    for (let hour = 0; hour < 70; hour += 5) {
      keyIds.add(domain.authority.active.keyId);
      expect(verify(domain)).toContain("OK");
      expect(domain.authority.active.notAfter.getTime()).toBeLessThanOrEqual(upstream.notAfter.getTime());
      domain.clock.advance(5 * 3_600_000);
    }
    expect(keyIds.size).toBeGreaterThan(2);
    // Its successor could not live longer, so none is made over and over while the end comes near.
    expect(keyIds.size).toBeLessThan(8);
    domain.clock.advance(DAY);
    expect(() => domain.keeper.x509Svid(SpiffeId.of(shop, "agents/planner"))).toThrow(coded("not-ready"));
    expect(domain.problems.some((thrown) => (thrown as { code: string }).code === "upstream-expired")).toBe(true);
  });

  it("is the same after a restart; another upstream takes over once verifiers have had its root for 5 seconds", () => {
    const clock = createTestClock(Date.now() + MINUTE);
    const keyStore = keptStore();
    const old = loadUpstreamAuthority(make({}), clock.now());
    const one = createTestTrustDomain({ clock, keyStore, upstream: () => old });
    const { keyId } = one.authority.active;
    one.authority.close();
    const two = createTestTrustDomain({ clock, keyStore, upstream: () => old });
    expect(two.authority.active.keyId).toBe(keyId);
    expect(verify(two)).toContain("OK");
    two.authority.close();

    const next = loadUpstreamAuthority(make({ key: "RSA-2048" }), clock.now());
    const three = createTestTrustDomain({ clock, keyStore, upstream: () => next });
    expect(three.bundles.x509Bundle(shop)?.authorities).toHaveLength(2);
    expect(three.authority.active.keyId).toBe(keyId);
    expect(verify(three)).toContain("OK");
    clock.advance(16_000);
    expect(three.authority.active.upstreamChain).toEqual(next.chain);
    expect(verify(three)).toContain("OK");
    three.authority.close();

    // And without one it becomes a root again, in the same way.
    const four = createTestTrustDomain({ clock, keyStore });
    clock.advance(16_000);
    expect(four.authority.active.upstreamChain).toEqual([]);
    expect(verify(four)).toContain("OK");
  });

  it("files that change are read again; half of a pair is a problem and changes nothing", () => {
    const clock = createTestClock(Date.now() + MINUTE);
    const directory = join(base, "live");
    mkdirSync(directory);
    const files = { certificate: join(directory, "ca.pem"), key: join(directory, "ca.key") };
    let stamp = 1_000;
    const put = (file: "certificate" | "key", from: Made) => {
      writeFileSync(files[file], readFileSync(from[file]));
      // Two writes within one tick of the filesystem's clock differ all the same.
      utimesSync(files[file], ++stamp, stamp);
    };
    const [first, second] = [make({}), make({})];
    put("certificate", first);
    put("key", first);
    const problems: unknown[] = [];
    const upstream = openUpstreamFiles({
      configured: () => files,
      clock,
      onProblem: (thrown) => problems.push(thrown),
    });
    const domain = createTestTrustDomain({ clock, upstream: () => upstream.current });
    const tick = () => {
      if (upstream.refresh()) domain.authority.wake();
    };
    const before = domain.authority.active.keyId;
    tick();
    put("certificate", second);
    tick();
    tick();
    expect(problems).toEqual([coded("upstream-key-mismatch")]);
    expect(domain.authority.active.keyId).toBe(before);
    put("key", second);
    tick();
    expect(problems).toHaveLength(1);
    expect(domain.authority.prepared?.upstreamChain).toEqual(upstream.current?.chain);
    clock.advance(16_000);
    expect(domain.authority.active.keyId).not.toBe(before);
    expect(verify(domain)).toContain("OK");
    rmSync(files.key);
    tick();
    expect(problems.at(-1)).toEqual(coded("upstream-unreadable"));
    expect(verify(domain)).toContain("OK");
  });

  const CA = "basicConstraints=critical,CA:TRUE";
  const SIGNS = "keyUsage=critical,keyCertSign,cRLSign";
  const root = () => make({});
  const refusals: readonly (readonly [string, string, () => Made])[] = [
    ["the key of another certificate", "upstream-key-mismatch", () => ({ ...root(), key: root().key })],
    ["a leaf", "upstream-not-ca", () => make({ extensions: ["basicConstraints=critical,CA:FALSE"] })],
    [
      "a CA that may not sign certificates",
      "upstream-not-ca",
      () => make({ extensions: [CA, "keyUsage=critical,cRLSign"] }),
    ],
    ["pathlen 0", "upstream-path-length", () => make({ extensions: [`${CA},pathlen:0`, SIGNS] })],
    [
      "pathlen 1 above another intermediate",
      "upstream-path-length",
      () => {
        const top = make({ extensions: [`${CA},pathlen:1`, SIGNS] });
        return chained(make({ issuer: top }), top);
      },
    ],
    [
      "name constraints",
      "upstream-name-constraints",
      () => make({ extensions: [CA, SIGNS, "nameConstraints=critical,permitted;URI:.company.example"] }),
    ],
    ["a chain without its root", "upstream-chain", () => make({ issuer: root() })],
    ["a chain with a stranger in it", "upstream-chain", () => chained(make({ issuer: root() }), root())],
    ["a weak key", "upstream-key-unsupported", () => make({ key: "RSA-1024" })],
    ["no certificate", "upstream-malformed", () => ({ ...root(), certificate: root().key })],
    ["no key", "upstream-malformed", () => ({ ...root(), key: root().certificate })],
    ["a file that is not there", "upstream-unreadable", () => ({ ...root(), certificate: join(base, "absent") })],
    [
      "an encrypted key",
      "upstream-malformed",
      () => {
        const plain = root();
        const key = `${plain.key}.enc`;
        openssl("pkcs8", "-topk8", "-in", plain.key, "-out", key, "-passout", "pass:secret");
        return { ...plain, key };
      },
    ],
  ];

  it.each(refusals)("refuses %s: %s", (_what, code, files) => {
    expect(() => loadUpstreamAuthority(files(), Date.now())).toThrow(coded(code));
  });

  it("refuses one that has expired or is not valid yet, and takes it in between; pathlen 1 suffices", () => {
    const files = make({ days: 2, extensions: [`${CA},pathlen:1`, SIGNS] });
    expect(() => loadUpstreamAuthority(files, Date.now() + 3 * DAY)).toThrow(coded("upstream-expired"));
    expect(() => loadUpstreamAuthority(files, Date.now() - DAY)).toThrow(coded("upstream-not-yet-valid"));
    expect(loadUpstreamAuthority(files, Date.now()).chain).toHaveLength(1);
  });
});
