import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { credentials, makeClientConstructor, status } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { X509BundleSource } from "../../src/identity/svid-source.js";
import { createX509Authority } from "../../src/identity/x509-authority.js";
import { TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { verifyX509Svid } from "../../src/spiffe/x509-svid.js";
import { X509SVIDResponse } from "../../src/workload-api/generated/workload.js";
import { verifies } from "../requirements/verifies.js";
import { receive } from "./received.js";
import { identity, type RunningApi, runApi, secure, trustDomain } from "./running-api.js";

const foreign = TrustDomain.parse("partner.example");
const foreignRoot = createX509Authority({ trustDomain: foreign, lifetimeSeconds: 3600, now: Date.now() }).certificate;
const longHint = "h".repeat(1025);

let running: RunningApi;
beforeAll(async () => {
  running = await runApi({
    identities: [
      identity("agents/billing", undefined, "internal"),
      identity("agents/analyst", undefined, "internal"),
      identity("agents/planner", undefined, longHint),
      identity("agents/somebody-else", { uid: 4_000_000_000 }),
    ],
    change: (dependencies) => ({
      ...dependencies,
      bundles: withForeign(dependencies.bundles),
      jwtBundles: {
        trustDomains: [foreign, trustDomain],
        refusalOfToken: () => undefined,
        jwtBundle: (domain) => dependencies.jwtBundles.jwtBundle(domain),
        onBundleChange: (listener) => dependencies.jwtBundles.onBundleChange(listener),
      },
    }),
  });
});
afterAll(() => running.close());

/** Federation has no source yet; its place in the answers is held by a bundle source that knows a second trust domain. */
function withForeign(bundles: X509BundleSource): X509BundleSource {
  return {
    ...bundles,
    x509Bundle: (domain) =>
      domain.equals(foreign) ? { trustDomain: foreign, authorities: [foreignRoot] } : bundles.x509Bundle(domain),
    onBundleChange: (listener) => bundles.onBundleChange(listener),
  };
}

async function fetchSvids(): Promise<X509SVIDResponse> {
  const stream = receive(running.client().fetchX509Svid({}, secure()));
  const message = await stream.next();
  stream.cancel();
  return message;
}

describe("FetchX509SVID", () => {
  it(`${verifies("XR-1", "XR-8", "WR-5", "EP-1", "EP-2", "EP-3")} gives every identity of the caller, in the order of the configuration`, async () => {
    const { svids } = await fetchSvids();
    expect(svids.map(({ spiffeId }) => spiffeId)).toEqual([
      "spiffe://shop.local/agents/billing",
      "spiffe://shop.local/agents/analyst",
      "spiffe://shop.local/agents/planner",
    ]);
    await running.keeper.rotateAll();
    const again = await fetchSvids();
    expect(again.svids.map(({ spiffeId }) => spiffeId)).toEqual(svids.map(({ spiffeId }) => spiffeId));
  });

  it(`${verifies("XR-2")} fills every mandatory field`, async () => {
    for (const svid of (await fetchSvids()).svids) {
      expect(svid.spiffeId).not.toBe("");
      for (const bytes of [svid.x509Svid, svid.x509SvidKey, svid.bundle]) expect(bytes.length).toBeGreaterThan(0);
    }
  });

  it(`${verifies("XR-3", "XR-6")} gives a DER chain, leaf first, whose URI SAN is the spiffe_id`, async () => {
    for (const svid of (await fetchSvids()).svids) {
      // X509Certificate reads the first certificate of concatenated DER.
      const leaf = new X509Certificate(svid.x509Svid);
      expect(leaf.raw.equals(svid.x509Svid.subarray(0, leaf.raw.length))).toBe(true);
      expect(leaf.subjectAltName).toBe(`URI:${svid.spiffeId}`);
    }
  });

  it(`${verifies("XR-4")} gives the leaf's private key as unencrypted PKCS#8`, async () => {
    for (const svid of (await fetchSvids()).svids) {
      const key = createPrivateKey({ key: svid.x509SvidKey, format: "der", type: "pkcs8" });
      const leaf = new X509Certificate(svid.x509Svid);
      expect(leaf.checkPrivateKey(key)).toBe(true);
      expect(createPublicKey(key).equals(leaf.publicKey)).toBe(true);
    }
  });

  it(`${verifies("XR-5")} gives the roots to which the chain verifies`, async () => {
    for (const svid of (await fetchSvids()).svids) {
      const root = new X509Certificate(svid.bundle);
      expect(root.raw.equals(svid.bundle)).toBe(true);
      const verified = verifyX509Svid([svid.x509Svid], () => [svid.bundle], new Date());
      expect(verified.id.toString()).toBe(svid.spiffeId);
      expect(() => verifyX509Svid([svid.x509Svid], () => [foreignRoot], new Date())).toThrow();
    }
  });

  it(`${verifies("XR-7")} gives a hint once, and none that is too long`, async () => {
    expect((await fetchSvids()).svids.map(({ hint }) => hint)).toEqual(["internal", "", ""]);
  });

  it(`${verifies("XR-9", "XR-10")} keeps federated bundles apart, by trust domain ID`, async () => {
    const { federatedBundles, svids } = await fetchSvids();
    expect(Object.keys(federatedBundles)).toEqual(["spiffe://partner.example"]);
    expect(federatedBundles["spiffe://partner.example"]?.equals(foreignRoot)).toBe(true);
    expect(svids.some(({ bundle }) => bundle.includes(foreignRoot))).toBe(false);
  });

  it("gives those that an identity of the caller federates with: all by default, none where each of its entries names others", async () => {
    const federated = async () => Object.keys((await fetchSvids()).federatedBundles);
    const bundles = async () => {
      const stream = receive(running.client().fetchX509Bundles({}, secure()));
      const { bundles } = await stream.next();
      stream.cancel();
      return Object.keys(bundles).sort();
    };
    const [own, other] = ["spiffe://shop.local", "spiffe://partner.example"];
    const billing = identity("agents/billing", undefined, "internal");
    const analyst = identity("agents/analyst");
    const before = running.registry.identities;
    try {
      running.configure([
        { ...billing, federatesWith: [] },
        { ...analyst, federatesWith: ["bank.local"] },
      ]);
      expect([await federated(), await bundles()]).toEqual([[], [own]]);
      running.configure([
        { ...billing, federatesWith: [] },
        { ...analyst, federatesWith: ["partner.example"] },
      ]);
      expect([await federated(), await bundles()]).toEqual([[other], [other, own]]);
      running.configure([{ ...billing, federatesWith: [] }, analyst]);
      expect([await federated(), await bundles()]).toEqual([[other], [other, own]]);
      // A stream hears of it.
      const stream = receive(running.client().fetchX509Svid({}, secure()));
      expect(Object.keys((await stream.next()).federatedBundles)).toEqual([other]);
      running.configure([{ ...billing, federatesWith: [] }]);
      expect(Object.keys((await stream.next()).federatedBundles)).toEqual([]);
      stream.cancel();
    } finally {
      running.configure(before);
    }
  });

  it(`${verifies("XR-14")} ignores fields that the request does not have`, async () => {
    const method = {
      path: "/SpiffeWorkloadAPI/FetchX509SVID",
      requestStream: false,
      responseStream: true,
      requestSerialize: (bytes: Buffer) => bytes,
      requestDeserialize: (bytes: Buffer) => bytes,
      responseSerialize: (bytes: Buffer) => bytes,
      responseDeserialize: (bytes: Buffer) => bytes,
    };
    const Raw = makeClientConstructor({}, "Raw");
    const client = new Raw(`unix:${running.path}`, credentials.createInsecure());
    // Field 77, a string.
    const unknown = Buffer.from([0xea, 0x04, 0x03, 0x61, 0x62, 0x63]);
    const { requestSerialize, responseDeserialize, path } = method;
    const stream = receive(
      client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, unknown, secure()),
    );
    expect(X509SVIDResponse.decode(await stream.next()).svids).toHaveLength(3);
    stream.cancel();
    client.close();
  });

  it("records what it hands out, and to whom, before the answer", async () => {
    const before = running.record.size;
    const { svids } = await fetchSvids();
    const delivered = running.record.entries.slice(before).filter(({ kind }) => kind === "svid.delivered");
    expect(delivered.map(({ fields }) => fields)).toMatchObject(
      svids.map(({ spiffeId, x509Svid }) => ({
        type: "x509",
        spiffeId,
        serial: new X509Certificate(x509Svid).serialNumber.toLowerCase(),
        pid: process.pid,
        uid: process.getuid?.(),
        exe: process.execPath,
        exeSha256: expect.stringMatching(/^[0-9a-f]{64}$/),
        evidence: "kernel",
      })),
    );
  });

  it("gives nothing that it cannot record", async () => {
    running.record.writable = false;
    const refused = await receive(running.client().fetchX509Svid({}, secure())).ended;
    running.record.writable = true;
    expect(refused.code).toBe(status.UNAVAILABLE);
    expect(refused.details).toContain("record");
    expect((await fetchSvids()).svids).toHaveLength(3);
  });
});

describe("FetchX509Bundles", () => {
  it(`${verifies("XR-11")} gives our own trust domain and the federated ones`, async () => {
    const stream = receive(running.client().fetchX509Bundles({}, secure()));
    const { bundles } = await stream.next();
    stream.cancel();
    expect(Object.keys(bundles)).toEqual(["spiffe://shop.local", "spiffe://partner.example"]);
    expect(new X509Certificate(bundles["spiffe://shop.local"] ?? "").subjectAltName).toBe("URI:spiffe://shop.local");
    expect(bundles["spiffe://partner.example"]?.equals(foreignRoot)).toBe(true);
  });

  it(`${verifies("XR-12", "EP-10")} refuses a caller without an identity, as FetchX509SVID does`, async () => {
    const allowed = receive(running.client().fetchX509Bundles({}, secure()));
    await allowed.next();
    allowed.cancel();
    const nobody = await runApi({ identities: [identity("agents/somebody-else", { uid: 4_000_000_000 })] });
    for (const stream of [
      nobody.client().fetchX509Bundles({}, secure()),
      nobody.client().fetchX509Svid({}, secure()),
    ]) {
      const { code, details } = await receive<unknown>(stream).ended;
      expect(code).toBe(status.PERMISSION_DENIED);
      expect(details).toContain(`agentid attest ${process.pid}`);
    }
    expect(nobody.record.entries.filter(({ kind }) => kind === "svid.refused")).toHaveLength(2);
    expect(nobody.refused).toMatchObject([{ pid: process.pid }, { pid: process.pid }]);
    await nobody.close();
  });
});
