import { generateKeyPairSync } from "node:crypto";
import { describe, expect, it } from "vitest";
import { parseJwtBundle, serialiseJwtBundle } from "../../src/spiffe/jwt-bundle.js";
import { parseSpiffeBundle, serialiseSpiffeBundle } from "../../src/spiffe/spiffe-bundle.js";
import { parseX509Bundle, serialiseX509Bundle, x509AuthorityJwk } from "../../src/spiffe/x509-bundle.js";
import { makeAuthority } from "./test-certificates.js";

const root = await makeAuthority();
const second = await makeAuthority({ algorithm: "RSA-2048" });
const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const jwtKey = { ...publicKey.export({ format: "jwk" }), kty: "EC", kid: "one", use: "jwt-svid" };
const bundle = {
  x509Authorities: [root.der, second.der],
  jwtKeys: [jwtKey],
  sequence: undefined,
  refreshHintSeconds: 60,
};

const codeOf = (action: () => unknown) => {
  try {
    action();
  } catch (thrown) {
    return (thrown as { code: string }).code;
  }
  return "accepted";
};

describe("SPIFFE bundle", () => {
  it("comes back as it was written, with all 64 bits of the sequence", () => {
    for (const sequence of [0n, 2n ** 53n + 1n, 2n ** 64n - 1n]) {
      expect(parseSpiffeBundle(serialiseSpiffeBundle({ ...bundle, sequence }))).toEqual({ ...bundle, sequence });
    }
  });

  it("XS-11 an X.509 element has use, no kid and x5c with exactly one certificate", () => {
    expect(x509AuthorityJwk(root.der)).toEqual({
      ...publicMembers(root.der),
      use: "x509-svid",
      x5c: [root.der.toString("base64")],
    });
  });

  it("XS-11 an element without a certificate is ignored, and of several only the first is used", () => {
    const element = x509AuthorityJwk(root.der);
    const x5c = [root.der.toString("base64"), second.der.toString("base64")];
    const keys = [
      { ...element, x5c: [] },
      { ...element, x5c: undefined },
      { ...element, x5c },
    ];
    expect(parseSpiffeBundle(JSON.stringify({ keys })).x509Authorities).toEqual([root.der]);
  });

  it("JS-7 elements with an unknown or missing use, type or kid are ignored, the others are not", () => {
    const ignored = [
      { ...jwtKey, use: "sig" },
      { ...jwtKey, use: "JWT-SVID" },
      { ...jwtKey, use: undefined },
      { ...jwtKey, kid: undefined },
      { ...jwtKey, kty: "OKP" },
      { ...jwtKey, kty: undefined },
      { ...jwtKey, x: "short" },
      "no object",
      null,
    ];
    expect(parseSpiffeBundle(JSON.stringify({ keys: [...ignored, jwtKey] })).jwtKeys).toEqual([jwtKey]);
  });

  it("refuses what is not a bundle", () => {
    const cases = {
      '{"keys":[]}': "accepted",
      "[]": "bundle-malformed",
      "{}": "bundle-malformed",
      '{"keys":{}}': "bundle-malformed",
      '{"keys":[],"keys":[]}': "bundle-malformed",
      '{"keys":[],"spiffe_sequence":1.5}': "bundle-sequence",
      '{"keys":[],"spiffe_sequence":-1}': "bundle-sequence",
      '{"keys":[],"spiffe_sequence":"1"}': "bundle-sequence",
      '{"keys":[],"spiffe_refresh_hint":"1"}': "bundle-refresh-hint",
      '{"keys":[{"kty":"EC","use":"x509-svid","x5c":["AAAA"]}]}': "bundle-certificate",
    };
    for (const [json, code] of Object.entries(cases))
      expect(
        codeOf(() => parseSpiffeBundle(json)),
        json,
      ).toBe(code);
    expect(parseSpiffeBundle('{"keys":[{"kty":"x","keys":0,"spiffe_sequence":5}]}').sequence).toBeUndefined();
  });
});

describe("JWT bundle of the Workload API", () => {
  it("JR-7 JR-8 shows kid, kty and use, and never a private member", () => {
    const leaky = { ...privateKey.export({ format: "jwk" }), kty: "EC", kid: "one", key_ops: ["sign"] };
    const { keys } = JSON.parse(serialiseJwtBundle({ keys: [leaky] })) as { keys: object[] };
    expect(keys).toEqual([jwtKey]);
    expect(leaky).toHaveProperty("d");
    expect(parseJwtBundle(JSON.stringify({ keys: [leaky] })).keys).toEqual([jwtKey]);
  });

  it("JR-7 keeps keys without use, which that API may leave out, but none of another use", () => {
    const keys = [
      { ...jwtKey, use: undefined },
      { ...jwtKey, use: "x509-svid" },
    ];
    expect(parseJwtBundle(JSON.stringify({ keys })).keys).toEqual([jwtKey]);
  });
});

describe("X.509 bundle as DER", () => {
  it("XR-5 is concatenated DER, read back to the same roots", () => {
    const roots = [root.der, second.der];
    expect(parseX509Bundle(serialiseX509Bundle(roots))).toEqual(roots);
    expect(parseX509Bundle(Buffer.alloc(0))).toEqual([]);
    expect(codeOf(() => parseX509Bundle(Buffer.concat([root.der, Buffer.of(1)])))).toBe("bundle-certificate");
  });
});

function publicMembers(der: Buffer) {
  const { kty, crv, x, y } = x509AuthorityJwk(der);
  return { kty, crv, x, y };
}
