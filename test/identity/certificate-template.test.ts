import "reflect-metadata";
import { randomBytes } from "node:crypto";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Name,
  SubjectAlternativeNameExtension,
} from "@peculiar/x509";
import { describe, expect, it } from "vitest";
import {
  authorityExtensions,
  authorityName,
  leafNames,
  sharedLeafExtensions,
} from "../../src/identity/certificate-template.js";
import { encode } from "../../src/spiffe/der.js";

const keyId = randomBytes(20);

/** What somebody else's encoder writes for the same. */
function written(...extensions: readonly Extension[]): string {
  return extensions.map(({ rawData }) => Buffer.from(rawData).toString("hex")).join("");
}

describe("parts of certificates, octet for octet as @peculiar/x509 writes them", () => {
  it("XS-4 XS-5 XS-6 what all leaves share", () => {
    expect(sharedLeafExtensions(keyId).toString("hex")).toBe(
      written(
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
        new AuthorityKeyIdentifierExtension(keyId.toString("hex")),
      ),
    );
  });

  it("XS-1 XS-3 a leaf's names", () => {
    for (const dnsNames of [[], ["billing.local"], ["a", "b.local"]]) {
      expect(encode(leafNames("spiffe://shop.local/a", dnsNames)).toString("hex")).toBe(
        written(
          new SubjectAlternativeNameExtension(
            [
              { type: "url", value: "spiffe://shop.local/a" },
              ...dnsNames.map((value) => ({ type: "dns", value }) as const),
            ],
            true,
          ),
        ),
      );
    }
  });

  it("XS-7 the extensions of a root, and of an authority below somebody else's", () => {
    const hexOf = (issuerKeyId?: Buffer) =>
      authorityExtensions("spiffe://shop.local", issuerKeyId)
        .map((extension) => encode(extension).toString("hex"))
        .join("");
    const keyUsage = new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true);
    const name = new SubjectAlternativeNameExtension([{ type: "url", value: "spiffe://shop.local" }]);
    expect(hexOf()).toBe(written(new BasicConstraintsExtension(true, undefined, true), keyUsage, name));
    expect(hexOf(keyId)).toBe(
      written(
        new BasicConstraintsExtension(true, 0, true),
        keyUsage,
        name,
        new AuthorityKeyIdentifierExtension(keyId.toString("hex")),
      ),
    );
  });

  it("an authority's name", () => {
    for (const serial of [Buffer.alloc(16, 0xff), Buffer.from("00000000000000000000000000000001", "hex")]) {
      const decimal = BigInt(`0x${serial.toString("hex")}`).toString();
      const theirs = new Name([{ C: ["US"] }, { O: ["SPIFFE"] }, { "2.5.4.5": [decimal] }]).toArrayBuffer();
      expect(authorityName(serial).toString("hex")).toBe(Buffer.from(theirs).toString("hex"));
    }
  });
});
