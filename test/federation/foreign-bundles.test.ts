import { chmodSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createMemoryAuditLog } from "../../src/audit/memory-log.js";
import { type ForeignBundle, type ForeignBundles, openForeignBundles } from "../../src/federation/foreign-bundles.js";
import { joinTrustBundles } from "../../src/federation/trust-bundles.js";
import { createTrustBundles } from "../../src/identity/bundles.js";
import { systemClock } from "../../src/platform/clock.js";
import { TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { verifyX509Svid } from "../../src/spiffe/x509-svid.js";
import { verifies } from "../requirements/verifies.js";
import {
  basicConstraints,
  KeyUsageFlags,
  keyUsage,
  leafExtensions,
  makeAuthority,
  makeLeaf,
  NOW,
} from "../spiffe/test-certificates.js";
import { codeOf, createTrustDomain, type TestTrustDomain, temporaryFolder } from "./trust-domain.js";

const shop = TrustDomain.parse("shop.local");

function open(directory: string, audit = createMemoryAuditLog({ clock: systemClock })) {
  const problems: unknown[] = [];
  const foreign = openForeignBundles({ ours: shop, directory, audit, onProblem: (thrown) => problems.push(thrown) });
  return { foreign, problems, audit };
}

/** What `other` publishes, as the administrator of shop.local would set it. */
function bundleOf(other: TestTrustDomain, changes: Partial<ForeignBundle> = {}): ForeignBundle {
  const { trustDomain, published } = other;
  return {
    ...{ trustDomain, bundle: published.current(), source: { kind: "command" }, receivedAt: new Date(0) },
    ...changes,
  };
}

const names = (foreign: ForeignBundles) => foreign.all.map(({ trustDomain }) => trustDomain.name);

describe("bundles of other trust domains", () => {
  it("survive a restart, each in a private file, with all 64 bits of the sequence", () => {
    const directory = join(temporaryFolder(), "bundles");
    const other = createTrustDomain("other.local");
    const long = createTrustDomain(`${"x".repeat(250)}.a`);
    const bundle = { ...other.published.current(), sequence: 2n ** 63n + 1n };
    const { foreign } = open(directory);
    foreign.put(bundleOf(other, { bundle, source: { kind: "endpoint", relationship: "r" } }));
    foreign.put(bundleOf(long));
    const { foreign: again, problems } = open(directory);
    expect(problems).toEqual([]);
    expect(again.all).toEqual(foreign.all);
    expect(again.find(other.trustDomain)?.bundle.sequence).toBe(2n ** 63n + 1n);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    for (const name of readdirSync(directory)) expect(statSync(join(directory, name)).mode & 0o777).toBe(0o600);
  });

  it("end with their file when they are removed, and listeners hear of it once", () => {
    const directory = join(temporaryFolder(), "bundles");
    const other = createTrustDomain("other.local");
    const { foreign, audit } = open(directory);
    let changes = 0;
    foreign.onChange(() => {
      changes += 1;
    });
    foreign.put(bundleOf(other));
    foreign.put(bundleOf(other));
    expect(changes).toBe(1);
    expect(foreign.remove(other.trustDomain, "test")).toBe(true);
    expect(foreign.remove(other.trustDomain, "test")).toBe(false);
    expect(changes).toBe(2);
    expect(existsSync(join(directory, "other.local.json"))).toBe(false);
    expect(names(open(directory).foreign)).toEqual([]);
    expect(audit.size).toBe(3);
  });

  it("are never our own, and never hold an authority that says it is of another trust domain", async () => {
    const directory = join(temporaryFolder(), "bundles");
    const ours = createTrustDomain("shop.local");
    const other = createTrustDomain("other.local");
    const { foreign } = open(directory);
    expect(await codeOf(() => foreign.put(bundleOf(ours)))).toBe("bundle-own");
    const mixed = bundleOf(other, { bundle: ours.published.current() });
    expect(await codeOf(() => foreign.put(mixed))).toBe("bundle-trust-domain");
    expect(names(foreign)).toEqual([]);
    expect(await codeOf(() => foreign.put(bundleOf(other)))).toBe("accepted");
    expect(names(foreign)).toEqual(["other.local"]);
  });

  it("do not count when they cannot be recorded", async () => {
    const other = createTrustDomain("other.local");
    const audit = createMemoryAuditLog({ clock: systemClock });
    const directory = join(temporaryFolder(), "bundles");
    const full = {
      ...audit,
      append: () => {
        throw Object.assign(new Error("full"), { code: "audit-unwritable" });
      },
    };
    const { foreign } = open(directory, full as unknown as typeof audit);
    expect(await codeOf(() => foreign.put(bundleOf(other)))).toBe("audit-unwritable");
    expect(names(foreign)).toEqual([]);
    expect(existsSync(directory)).toBe(false);
  });

  it("in files that others could have written, or that are not what was written, are not believed; the rest are", () => {
    const directory = join(temporaryFolder(), "bundles");
    const { foreign } = open(directory);
    for (const name of ["a", "b", "c", "d", "e"]) foreign.put(bundleOf(createTrustDomain(`${name}.local`)));
    const path = (name: string) => join(directory, `${name}.local.json`);
    chmodSync(path("a"), 0o644);
    writeFileSync(path("b"), readFileSync(path("c")));
    writeFileSync(path("d"), readFileSync(path("d"), "utf8").replace('"keys', '"key'));
    const { foreign: again, problems } = open(directory);
    expect(names(again)).toEqual(["c.local", "e.local"]);
    expect(problems).toHaveLength(3);
    expect(problems.map(String).join()).toMatch(/a\.local.*b\.local.*d\.local/s);
  });
});

describe("trust in several trust domains", () => {
  it(`${verifies("XR-10", "FD-7")} a federated authority vouches for its own trust domain and never for ours`, async () => {
    const ours = createTrustDomain("shop.local");
    const other = createTrustDomain("other.local");
    // It names no trust domain, so nothing but the separation of bundles stands in its way.
    const authority = await makeAuthority({
      extensions: [basicConstraints(true), keyUsage(KeyUsageFlags.keyCertSign)],
    });
    const leafOf = async (id: string) => (await makeLeaf(authority, { extensions: leafExtensions({ id }) })).der;
    const { foreign } = open(join(temporaryFolder(), "bundles"));
    const bundles = joinTrustBundles(shop, createTrustBundles(ours.authority), foreign);
    const bundle = { ...other.published.current(), x509Authorities: [authority.der] };
    foreign.put(bundleOf(other, { bundle }));
    const verify = (leaf: Buffer) =>
      codeOf(() => verifyX509Svid([leaf], (trustDomain) => bundles.x509Bundle(trustDomain)?.authorities, NOW));
    expect(await verify(await leafOf("spiffe://other.local/agents/billing"))).toBe("accepted");
    expect(await verify(await leafOf("spiffe://shop.local/agents/billing"))).toBe("x509-svid-issuer-unknown");
    expect(await verify(await leafOf("spiffe://third.local/agents/billing"))).toBe("x509-svid-trust-domain-unknown");
    expect(bundles.x509Bundle(shop)?.authorities).toEqual(ours.authority.x509Authorities);
    expect(bundles.trustDomains.map(({ name }) => name)).toEqual(["shop.local", "other.local"]);
  });

  it("ends for a trust domain whose bundle is empty, and only for that one", () => {
    const ours = createTrustDomain("shop.local");
    const other = createTrustDomain("other.local");
    const third = createTrustDomain("third.local");
    const { foreign } = open(join(temporaryFolder(), "bundles"));
    const bundles = joinTrustBundles(shop, createTrustBundles(ours.authority), foreign);
    foreign.put(bundleOf(other));
    foreign.put(bundleOf(third));
    expect(bundles.x509Bundle(other.trustDomain)?.authorities).toHaveLength(1);
    expect(bundles.jwtBundle(other.trustDomain)?.keys).toHaveLength(1);
    const empty = { x509Authorities: [], jwtKeys: [], sequence: undefined, refreshHintSeconds: undefined };
    foreign.put(bundleOf(other, { bundle: empty }));
    expect(bundles.x509Bundle(other.trustDomain)).toBeUndefined();
    expect(bundles.jwtBundle(other.trustDomain)).toBeUndefined();
    expect(bundles.x509Bundle(third.trustDomain)?.authorities).toHaveLength(1);
  });
});
