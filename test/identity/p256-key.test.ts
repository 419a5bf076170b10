import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from "node:crypto";
import { describe, expect, it } from "vitest";
import { encodeP256Key, generateP256Key, type P256Key } from "../../src/identity/p256-key.js";

/** One scalar in 256 begins with a zero octet: about four of these. */
const KEYS = 1_000;
const SCALAR = [36, 68] as const;

describe("P-256 keys", () => {
  it("XR-4 has octet for octet the encodings that OpenSSL gives of the same key, which is another one each time", () => {
    const scalars = new Set<string>();
    for (let index = 0; index < KEYS; index++) {
      const key = generateP256Key();
      expect(key).toEqual(encodedByOpenssl(key));
      expect(belongTogether(key)).toBe(true);
      scalars.add(key.privateKeyPkcs8.toString("hex", ...SCALAR));
    }
    expect(scalars.size).toBe(KEYS);
  });

  it("takes every scalar from 1 to n - 1 and draws again for any other, and leaves nothing of it behind", () => {
    const drawnFor = (...scalars: readonly string[]) => {
      const drawn = scalars.map((hex) => Buffer.from(hex.padStart(64, "0"), "hex"));
      const left = [...drawn];
      const key = generateP256Key(() => left.shift() ?? Buffer.alloc(0));
      return { scalar: key.privateKeyPkcs8.toString("hex", ...SCALAR), key, left: left.length, last: drawn.at(-1) };
    };
    for (const scalar of ["1", LARGEST]) {
      const { scalar: taken, key, last } = drawnFor(scalar);
      expect(taken).toBe(scalar.padStart(64, "0"));
      expect(key).toEqual(encodedByOpenssl(key));
      expect(belongTogether(key)).toBe(true);
      expect(last).toEqual(Buffer.alloc(32));
    }
    for (const refused of ["0", ORDER, "f".repeat(64)]) {
      const { scalar, left } = drawnFor(refused, "1");
      expect([scalar, left]).toEqual(["1".padStart(64, "0"), 0]);
    }
  });

  it("pads a scalar that comes without its leading zeros: the point of 1 is the generator, that of 2 is not", () => {
    const one = encodeP256Key(Buffer.of(1), GENERATOR);
    expect(one).toEqual(encodedByOpenssl(one));
    expect(belongTogether(one)).toBe(true);
    expect(belongTogether(encodeP256Key(Buffer.of(2), GENERATOR))).toBe(false);
  });
});

function encodedByOpenssl(key: P256Key): P256Key {
  return {
    privateKeyPkcs8: privateKeyOf(key).export({ format: "der", type: "pkcs8" }),
    publicKeyInfo: publicKeyOf(key).export({ format: "der", type: "spki" }),
  };
}

/** Whether the public half verifies what the private half signs. */
function belongTogether(key: P256Key): boolean {
  return verify("sha256", GENERATOR, publicKeyOf(key), sign("sha256", GENERATOR, privateKeyOf(key)));
}

function privateKeyOf({ privateKeyPkcs8 }: P256Key): KeyObject {
  return createPrivateKey({ key: privateKeyPkcs8, format: "der", type: "pkcs8" });
}

function publicKeyOf({ publicKeyInfo }: P256Key): KeyObject {
  return createPublicKey({ key: publicKeyInfo, format: "der", type: "spki" });
}

/** FIPS 186-4 D.1.2.3: n, and what it allows at most. */
const ORDER = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const LARGEST = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632550";
const GENERATOR = Buffer.from(
  "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
  "hex",
);
