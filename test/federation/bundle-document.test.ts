import { generateKeyPairSync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseBundleFile } from "../../src/federation/first-bundle.js";
import { createPublishedBundle } from "../../src/federation/published-bundle.js";
import { parseSpiffeBundle, serialiseSpiffeBundle } from "../../src/spiffe/spiffe-bundle.js";
import { parseX509BundlePem, serialiseX509BundlePem, x509AuthorityJwk } from "../../src/spiffe/x509-bundle.js";
import { createTestClock } from "../identity/test-trust-domain.js";
import { verifies } from "../requirements/verifies.js";
import { codeOf, createTrustDomain, temporaryFolder } from "./trust-domain.js";

describe("a bundle as a document", () => {
  it(`${verifies("TB-2")} keeps every sequence of 64 bits to the last digit`, () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.nat({ max: 86_400 }), (sequence, hint) => {
        const json = `{"spiffe_refresh_hint": ${hint}, "keys": [], "spiffe_sequence":${sequence}}`;
        const bundle = parseSpiffeBundle(json);
        expect(bundle).toEqual({ x509Authorities: [], jwtKeys: [], sequence, refreshHintSeconds: hint });
        expect(parseSpiffeBundle(serialiseSpiffeBundle(bundle))).toEqual(bundle);
      }),
    );
  });

  it(`${verifies("TB-1", "TB-5")} without keys, or with a key twice at any depth, is refused; an empty list is read`, async () => {
    expect(parseSpiffeBundle('{"keys":[]}').x509Authorities).toEqual([]);
    const refused = [
      "{}",
      '{"keys":null}',
      '{"keys":[],"keys":[]}',
      '{"keys":[],"spiffe_sequence":1,"spiffe_sequence":1}',
      '{"keys":[{"kty":"EC","kty":"RSA"}]}',
      // The same key, written in two ways.
      '{"keys":[],"k\\u0065ys":[]}',
      '{"keys":[]} x',
    ];
    for (const json of refused) expect(await codeOf(() => parseSpiffeBundle(json)), json).toBe("bundle-malformed");
  });

  it(`${verifies("TB-4")} ignores each element that it does not know, and keeps the others`, () => {
    const { published } = createTrustDomain("other.local");
    const { x509Authorities, jwtKeys } = published.current();
    const [root] = x509Authorities;
    if (root === undefined) throw new Error("no root");
    const x509 = x509AuthorityJwk(root);
    const [jwt] = jwtKeys;
    const unknown = [
      { ...x509, use: "x509" },
      { ...x509, use: undefined },
      { ...x509, kty: "ML-DSA" },
      { ...jwt, use: "JWT-SVID" },
      { ...jwt, kty: "ML-DSA" },
      { kty: "oct", use: "jwt-svid", kid: "k", k: "AAAA" },
      { use: "x509-svid", x5c: x509.x5c },
      7,
    ];
    for (const one of unknown) {
      const found = parseSpiffeBundle(JSON.stringify({ keys: [one, x509, jwt] }));
      expect(found, JSON.stringify(one)).toMatchObject({ x509Authorities, jwtKeys });
      expect(parseSpiffeBundle(JSON.stringify({ keys: [one] }))).toMatchObject({ x509Authorities: [], jwtKeys: [] });
    }
  });

  it("may be PEM in a file: certificates only, of that trust domain", async () => {
    const { trustDomain, authority } = createTrustDomain("other.local");
    const pem = serialiseX509BundlePem(authority.x509Authorities);
    expect(parseBundleFile(`explanation\n${pem}`, trustDomain).x509Authorities).toEqual(authority.x509Authorities);
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const key = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
    const other = createTrustDomain("third.local").trustDomain;
    expect(await codeOf(() => parseX509BundlePem(pem + key))).toBe("bundle-certificate");
    expect(await codeOf(() => parseX509BundlePem(""))).toBe("bundle-certificate");
    expect(await codeOf(() => parseX509BundlePem(pem.replace(/\nMI.{10}/, "\nMIIBAAAAAAAA")))).toBe(
      "bundle-certificate",
    );
    expect(await codeOf(() => parseBundleFile(pem, other))).toBe("bundle-trust-domain");
  });
});

describe("our own bundle's sequence", () => {
  it(`${verifies("TB-2")} stays while the keys stay and grows with each change, across restarts and a clock set back`, () => {
    const clock = createTestClock();
    const folder = temporaryFolder();
    const { authority, bundles, trustDomain, published } = createTrustDomain("shop.local", { clock, folder });
    const first = published.current().sequence ?? 0n;
    expect(first).toBe(BigInt(clock.now() / 1000));
    clock.jump(60_000);
    expect(published.current().sequence).toBe(first);
    const restarted = () =>
      createPublishedBundle({
        ...{ ours: trustDomain, bundles, clock, file: join(folder, "bundle-sequence.json") },
        authorityLifetimeSeconds: () => 86_400,
      });
    expect(restarted().current().sequence).toBe(first);
    clock.jump(-60_000);
    authority.rotate();
    const second = restarted().current().sequence ?? 0n;
    expect(second).toBe(first + 1n);
    clock.jump(-3_600_000);
    authority.rotate();
    expect(restarted().current().sequence).toBe(second + 1n);
  });

  it("begins above all that was counted before when its file is lost or torn", () => {
    const clock = createTestClock();
    const folder = temporaryFolder();
    const { authority, published } = createTrustDomain("shop.local", { clock, folder });
    const first = published.current().sequence ?? 0n;
    authority.rotate();
    clock.jump(10_000);
    writeFileSync(join(folder, "bundle-sequence.json"), "{", { mode: 0o600 });
    const again = createTrustDomain("shop.local", { clock, folder }).published.current().sequence ?? 0n;
    expect(again).toBeGreaterThan(first);
    expect(readFileSync(join(folder, "bundle-sequence.json"), "utf8")).toContain(String(again));
  });

  it("is not published when it cannot be kept", async () => {
    const folder = temporaryFolder();
    const { published } = createTrustDomain("shop.local", { folder: join(folder, "file", "below") });
    writeFileSync(join(folder, "file"), "");
    expect(await codeOf(() => published.current())).toMatch(/^(key-store-|ENOTDIR)/);
  });
});
