import { createPrivateKey, generateKeyPairSync } from "node:crypto";
import { describe, expect, it } from "vitest";
import { encodeP256Key } from "../../src/identity/p256-key.js";

/** One key in 85 has a number that begins with a zero octet. */
const KEYS = 400;

describe("encoding of P-256 keys", () => {
  it("XR-4 gives octet for octet what OpenSSL's encoders give, also for numbers that begin with zeros", () => {
    for (let index = 0; index < KEYS; index++) {
      const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
      const encoded = encodeP256Key(privateKey);
      expect(encoded.privateKeyPkcs8.equals(privateKey.export({ format: "der", type: "pkcs8" }))).toBe(true);
      expect(encoded.publicKeyInfo.equals(publicKey.export({ format: "der", type: "spki" }))).toBe(true);
    }
    const one = Buffer.alloc(32);
    one[31] = 1;
    // The scalar 1, whose point is the generator: every leading octet of the scalar is zero.
    const jwk = { kty: "EC", crv: "P-256", d: one.toString("base64url"), x: GENERATOR_X, y: GENERATOR_Y };
    const smallest = createPrivateKey({ key: jwk, format: "jwk" });
    expect(encodeP256Key(smallest).privateKeyPkcs8.equals(smallest.export({ format: "der", type: "pkcs8" }))).toBe(
      true,
    );
  });

  it("refuses other keys", () => {
    for (const namedCurve of ["P-384", "secp256k1"]) {
      const { privateKey } = generateKeyPairSync("ec", { namedCurve });
      expect(() => encodeP256Key(privateKey)).toThrow(expect.objectContaining({ code: "authority-key-mismatch" }));
    }
  });
});

const coordinate = (hex: string) => Buffer.from(hex, "hex").toString("base64url");
/** FIPS 186-4 D.1.2.3. */
const GENERATOR_X = coordinate("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296");
const GENERATOR_Y = coordinate("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5");
