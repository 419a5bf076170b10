import { X509Certificate } from "node:crypto";
import { describe, expect, it, vi } from "vitest";
import type { TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { parseX509Chain, verifyX509Svid, type X509SvidErrorCode } from "../../src/spiffe/x509-svid.js";
import { X509SvidError } from "../../src/spiffe/x509-svid-error.js";
import { judgeX509Svid } from "../../src/spiffe/x509-svid-rules.js";
import {
  basicConstraints,
  type CertificateOptions,
  CLIENT_AUTH,
  extendedKeyUsage,
  HOUR,
  KeyUsageFlags,
  keyUsage,
  leafExtensions,
  makeAuthority,
  makeCertificate,
  makeLeaf,
  NOW,
  nameConstraints,
  SERVER_AUTH,
  type TestCertificate,
  unknownExtension,
  uris,
} from "./test-certificates.js";

const root = await makeAuthority();
const good = await makeLeaf(root);

function bundleOf(...roots: TestCertificate[]) {
  const authorities = roots.map(({ der }) => der);
  return ({ name }: TrustDomain) => (name === "shop.local" ? authorities : undefined);
}

function verify(chain: readonly TestCertificate[], roots: readonly TestCertificate[] = [root], now = NOW) {
  return verifyX509Svid(
    chain.map(({ der }) => der),
    bundleOf(...roots),
    now,
  );
}

/** The code that refuses, with the positive control: the chain that differs in nothing else is accepted. */
function refusal(chain: readonly TestCertificate[], roots: readonly TestCertificate[] = [root], now = NOW): string {
  expect(verify([good]).id.toString()).toBe("spiffe://shop.local/agents/billing");
  const explained = explanation(chain, roots, now);
  try {
    verify(chain, roots, now);
  } catch (thrown) {
    if (!(thrown instanceof X509SvidError)) throw thrown;
    expect(explained).toContain(thrown.code);
    return thrown.code;
  }
  expect(explained).toEqual([]);
  return "accepted";
}

/** The codes of all rules that the chain breaks, as they are explained to people: none exactly for a chain that is accepted. */
function explanation(chain: readonly TestCertificate[], roots: readonly TestCertificate[], now: Date): unknown[] {
  const ders = chain.map(({ der }) => der);
  try {
    const outcomes = judgeX509Svid(ders, bundleOf(...roots), now);
    return outcomes.filter(({ verdict }) => verdict === "broken").map(({ code }) => code);
  } catch (thrown) {
    if (!(thrown instanceof X509SvidError)) throw thrown;
    return [thrown.code];
  }
}

describe("X.509-SVID leaf rules (XS-9), one code each", () => {
  const { digitalSignature, keyCertSign, cRLSign, keyAgreement } = KeyUsageFlags;
  const vectors: [string, X509SvidErrorCode | "accepted", Parameters<typeof leafExtensions>[0]][] = [
    ["no URI", "x509-svid-uri-missing", { names: null }],
    ["two URIs", "x509-svid-uri-several", { names: uris("spiffe://shop.local/a", "spiffe://shop.local/b") }],
    ["two equal URIs", "x509-svid-uri-several", { names: uris("spiffe://shop.local/a", "spiffe://shop.local/a") }],
    ["another scheme", "x509-svid-uri-invalid", { id: "https://shop.local/agents/billing" }],
    ["upper case trust domain", "x509-svid-uri-invalid", { id: "spiffe://SHOP.local/agents/billing" }],
    ["NUL in the URI", "x509-svid-uri-invalid", { id: "spiffe://shop.local/agents/billing\0x" }],
    ["XS-2 root path", "x509-svid-path-missing", { id: "spiffe://shop.local" }],
    ["XS-4 XS-8 cA true", "x509-svid-leaf-is-ca", { constraints: basicConstraints(true) }],
    ["no basic constraints", "accepted", { constraints: null }],
    ["XS-5 no key usage", "x509-svid-key-usage-missing", { usage: null }],
    ["XS-5 key usage not critical", "x509-svid-key-usage-not-critical", { usage: keyUsage(digitalSignature, false) }],
    ["XS-5 keyCertSign", "x509-svid-leaf-signs-certificates", { usage: keyUsage(digitalSignature | keyCertSign) }],
    ["XS-5 cRLSign", "x509-svid-leaf-signs-crls", { usage: keyUsage(digitalSignature | cRLSign) }],
    ["XS-5 no digitalSignature", "x509-svid-digital-signature-missing", { usage: keyUsage(keyAgreement) }],
    ["XS-5 keyAgreement as well", "accepted", { usage: keyUsage(digitalSignature | keyAgreement) }],
    ["XS-6 only serverAuth", "x509-svid-extended-key-usage", { extendedUsage: extendedKeyUsage(SERVER_AUTH) }],
    ["XS-6 only clientAuth", "x509-svid-extended-key-usage", { extendedUsage: extendedKeyUsage(CLIENT_AUTH) }],
    ["XS-6 no extended key usage", "accepted", { extendedUsage: null }],
    ["unknown critical extension", "x509-svid-critical-extension", { more: [unknownExtension(true)] }],
    ["unknown extension", "accepted", { more: [unknownExtension(false)] }],
    ["name constraints", "x509-svid-name-constraints", { more: [nameConstraints()] }],
    ["XS-10 foreign trust domain", "x509-svid-trust-domain-unknown", { id: "spiffe://other.local/agents/billing" }],
  ];
  it.each(vectors)("XS-1 XS-2 XS-4 XS-5 XS-6 XS-8 XS-9 %s: %s", async (_name, code, changes) => {
    expect(refusal([await makeLeaf(root, { extensions: leafExtensions(changes) })])).toBe(code);
  });

  it("XS-9 the same extension twice is malformed", async () => {
    const extensions = leafExtensions({ more: [unknownExtension(false), unknownExtension(false)] });
    expect(refusal([await makeLeaf(root, { extensions })])).toBe("x509-svid-malformed");
  });
});

describe("RFC 5280 path (XS-9)", () => {
  it("XS-9 accepts a leaf below two intermediates in any order, and takes the earliest end of the path", async () => {
    const upper = await makeAuthority({ issuer: root, name: "CN=upper", notAfter: HOUR / 2 });
    const lower = await makeAuthority({ issuer: upper, name: "CN=lower" });
    const leaf = await makeLeaf(lower);
    expect(verify([leaf, lower, upper]).notAfter.getTime()).toBe(NOW.getTime() + HOUR / 2);
    expect(verify([leaf, upper, lower]).leaf.raw.equals(leaf.der)).toBe(true);
    expect(refusal([leaf, upper])).toBe("x509-svid-issuer-unknown");
  });

  it("XS-9 an authority may stand at the end of any of several paths", async () => {
    const crossSigned = await makeAuthority({ issuer: await makeAuthority({ name: "CN=unknown" }), keys: root.keys });
    expect(refusal([good, crossSigned])).toBe("accepted");
    const renewed = await makeAuthority({ keys: root.keys });
    expect(refusal([good], [await makeAuthority({ name: "CN=other" }), renewed])).toBe("accepted");
  });

  const times: [string, Partial<CertificateOptions>, X509SvidErrorCode][] = [
    ["expired", { notBefore: -2 * HOUR, notAfter: -1000 }, "x509-svid-expired"],
    ["not yet valid", { notBefore: 1000 }, "x509-svid-not-yet-valid"],
  ];
  it.each(times)("XS-9 %s leaf, intermediate or root", async (_name, validity, code) => {
    expect(refusal([await makeLeaf(root, validity)])).toBe(code);
    const intermediate = await makeAuthority({ issuer: root, name: "CN=i", ...validity });
    expect(refusal([await makeLeaf(intermediate), intermediate])).toBe(code);
    const authority = await makeAuthority(validity);
    expect(refusal([await makeLeaf(authority)], [authority])).toBe(code);
  });

  it("XS-9 a signature by another key under the same name", async () => {
    const impostor = await makeAuthority();
    expect(refusal([await makeLeaf(impostor)])).toBe("x509-svid-signature");
    expect(refusal([await makeLeaf(impostor), impostor])).toBe("x509-svid-signature");
    const bent = Buffer.from(good.der);
    bent.writeUInt8((bent.at(-1) ?? 0) ^ 1, bent.length - 1);
    expect(refusal([{ ...good, der: bent }])).toBe("x509-svid-signature");
  });

  it("XS-9 an unknown issuer, and one that is only presented", async () => {
    const stranger = await makeAuthority({ name: "CN=stranger" });
    expect(refusal([await makeLeaf(stranger)])).toBe("x509-svid-issuer-unknown");
    expect(refusal([await makeLeaf(stranger), stranger])).toBe("x509-svid-issuer-unknown");
  });

  it("XS-7 XS-8 another workload's certificate issues nothing", async () => {
    const leafAsIssuer = await makeLeaf(good, { name: "CN=below" });
    expect(refusal([leafAsIssuer, good])).toBe("x509-svid-issuer-not-ca");
  });

  it("XS-7 an issuer needs keyCertSign", async () => {
    const extensions = [basicConstraints(true), keyUsage(KeyUsageFlags.cRLSign)];
    const weak = await makeCertificate({ issuer: root, name: "CN=weak", extensions });
    expect(refusal([await makeLeaf(weak), weak])).toBe("x509-svid-issuer-key-usage");
    const plainExtensions = [basicConstraints(false), keyUsage(KeyUsageFlags.keyCertSign)];
    const plain = await makeCertificate({ issuer: root, name: "CN=plain", extensions: plainExtensions });
    expect(refusal([await makeLeaf(plain), plain])).toBe("x509-svid-issuer-not-ca");
  });

  it("XS-9 path length", async () => {
    const allowsOne = await makeAuthority({ pathLength: 1 });
    const upper = await makeAuthority({ issuer: allowsOne, name: "CN=upper" });
    const lower = await makeAuthority({ issuer: upper, name: "CN=lower" });
    expect(refusal([await makeLeaf(upper), upper], [allowsOne])).toBe("accepted");
    expect(refusal([await makeLeaf(lower), lower, upper], [allowsOne])).toBe("x509-svid-path-length");
  });

  it("XS-9 an authority with name constraints or unknown critical extensions", async () => {
    const base = [basicConstraints(true), keyUsage(KeyUsageFlags.keyCertSign)];
    for (const [extension, code] of [
      [nameConstraints(), "x509-svid-name-constraints"],
      [nameConstraints(false), "x509-svid-name-constraints"],
      [unknownExtension(true), "x509-svid-critical-extension"],
      [unknownExtension(false), "accepted"],
    ] as const) {
      const authority = await makeAuthority({ extensions: [...base, extension] });
      expect(refusal([await makeLeaf(authority)], [authority])).toBe(code);
    }
  });

  it("XS-9 weak signatures and keys", async () => {
    for (const [algorithm, code] of [
      ["RSA-SHA1", "x509-svid-signature-algorithm"],
      ["RSA-1024", "x509-svid-signature-algorithm"],
      ["RSA-2048", "accepted"],
      ["P-384", "accepted"],
      ["Ed25519", "accepted"],
    ] as const) {
      const authority = await makeAuthority({ algorithm });
      expect(refusal([await makeLeaf(authority)], [authority]), algorithm).toBe(code);
    }
  });

  it("XS-10 only the bundle of the leaf's own trust domain is asked for", () => {
    const asked: string[] = [];
    const bundle = bundleOf(root);
    const authorities = (trustDomain: TrustDomain) => {
      asked.push(trustDomain.name);
      return bundle(trustDomain);
    };
    verifyX509Svid([good.der], authorities, NOW);
    expect(asked).toEqual(["shop.local"]);
    expect(refusal([good], [])).toBe("x509-svid-trust-domain-unknown");
  });

  it("XS-9 bounds the work that a presented chain can ask for", async () => {
    const looping = await Promise.all(
      Array.from({ length: 9 }, () => makeAuthority({ name: "CN=loop", keys: root.keys })),
    );
    const self = { ...root, name: "CN=loop" };
    const leaf = await makeLeaf(self);
    expect(refusal([leaf, ...looping], [root])).toBe("x509-svid-chain-too-long");
    expect(refusal([leaf, ...looping, root], [root])).toBe("x509-svid-chain-too-long");
  });

  it("takes certificates as TLS hands them over", () => {
    expect(verifyX509Svid([new X509Certificate(good.der)], bundleOf(root), NOW).id.name).toBe("agents/billing");
  });
});

describe("concatenated DER (XR-3)", () => {
  const parse = (der: Buffer) => parseX509Chain(der).map(({ raw }) => raw.toString("hex"));
  const code = (der: Buffer) => {
    try {
      parseX509Chain(der);
    } catch (thrown) {
      return (thrown as { code: string }).code;
    }
    return "accepted";
  };

  it("XR-3 splits at the ASN.1 lengths", () => {
    expect(parse(Buffer.concat([good.der, root.der]))).toEqual([good.der.toString("hex"), root.der.toString("hex")]);
  });

  it("XR-3 refuses everything else", () => {
    const { der } = good;
    expect(code(der)).toBe("accepted");
    expect(code(Buffer.alloc(0))).toBe("x509-svid-chain-empty");
    const padded = Buffer.concat([Buffer.of(0x30, 0x83, 0x00), der.subarray(2)]);
    const indefinite = Buffer.concat([Buffer.of(0x30, 0x80), der.subarray(4), Buffer.of(0, 0)]);
    const wrong = {
      "one byte more": Buffer.concat([der, Buffer.of(0)]),
      "one byte less": der.subarray(0, -1),
      PEM: Buffer.from(new X509Certificate(der).toString()),
      "padded length": padded,
      "indefinite length": indefinite,
      "not a certificate": Buffer.of(0x30, 0x00),
      "another tag": Buffer.of(0x04, 0x00),
    };
    for (const [what, bytes] of Object.entries(wrong)) expect(code(bytes), what).toBe("x509-svid-malformed");
  });
});

describe("a chain that was good before", () => {
  it("is good without verifying its signatures again, whoever presents it", async () => {
    const leaf = await makeLeaf(root);
    const checks = vi.spyOn(X509Certificate.prototype, "verify");
    try {
      for (const _ of [1, 2, 3]) expect(verify([leaf]).id.toString()).toBe("spiffe://shop.local/agents/billing");
      // As bytes elsewhere in memory, and as TLS hands it over.
      verifyX509Svid([Buffer.from(leaf.der)], bundleOf(root), NOW);
      verifyX509Svid([new X509Certificate(leaf.der)], bundleOf(root), NOW);
      expect(checks).toHaveBeenCalledTimes(1);
    } finally {
      checks.mockRestore();
    }
  });

  it("is refused when it has run out, when its authority is gone, and with one octet changed", async () => {
    const leaf = await makeLeaf(root);
    expect(refusal([leaf])).toBe("accepted");
    expect(refusal([leaf], [root], new Date(NOW.getTime() + 100 * 24 * HOUR))).toBe("x509-svid-expired");
    expect(refusal([leaf], [await makeAuthority()])).not.toBe("accepted");
    const forged = Buffer.from(leaf.der);
    forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1;
    for (const _ of [1, 2]) {
      expect(() => verifyX509Svid([forged], bundleOf(root), NOW)).toThrow(
        expect.objectContaining({ code: "x509-svid-signature" }),
      );
    }
    expect(refusal([leaf])).toBe("accepted");
  });
});
