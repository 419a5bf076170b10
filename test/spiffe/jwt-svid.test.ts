import { createHmac, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import fc from "fast-check";
import { generateKeyPair, SignJWT } from "jose";
import { describe, expect, it } from "vitest";
import type { Jwk } from "../../src/spiffe/jwt-bundle.js";
import { JwtSvidError, type JwtSvidErrorCode, parseAndValidateJwtSvid } from "../../src/spiffe/jwt-svid.js";
import { judgeJwtSvid } from "../../src/spiffe/jwt-svid-rules.js";
import type { TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { runs } from "../properties.js";

const NOW = new Date("2026-11-22T12:00:00Z");
const SECONDS = NOW.getTime() / 1000;

const own = generateKeyPairSync("ec", { namedCurve: "P-256" });
const other = generateKeyPairSync("ec", { namedCurve: "P-256" });
const foreign = generateKeyPairSync("ec", { namedCurve: "P-256" });

function jwk(key: KeyObject, members: Record<string, unknown>): Jwk {
  return {
    ...key.export({ format: "jwk" }),
    kty: String(key.export({ format: "jwk" }).kty),
    use: "jwt-svid",
    ...members,
  };
}

const bundles: Record<string, { keys: Jwk[] }> = {
  "shop.local": { keys: [jwk(own.publicKey, { kid: "own" }), jwk(other.publicKey, { kid: "other" })] },
  "partner.example": { keys: [jwk(foreign.publicKey, { kid: "foreign" })] },
};
const bundleOf = (trustDomain: TrustDomain) => bundles[trustDomain.name];

const HEADER = { alg: "ES256", kid: "own", typ: "JWT" };
const CLAIMS = { sub: "spiffe://shop.local/agents/billing", aud: ["orders"], exp: SECONDS + 60, iat: SECONDS };

const encode = (value: unknown) =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

function makeToken(header: unknown = HEADER, claims: unknown = CLAIMS, key: KeyObject = own.privateKey): string {
  const signed = `${encode(header)}.${encode(claims)}`;
  const signature = sign("sha256", Buffer.from(signed), { key, dsaEncoding: "ieee-p1363" });
  return `${signed}.${signature.toString("base64url")}`;
}

const validate = (token: string, audience = "orders") => parseAndValidateJwtSvid(token, audience, bundleOf, NOW);

/** The code that refuses; the good token, which differs only in the one thing, is accepted each time. */
function refusal(token: string, audience?: string): JwtSvidErrorCode | "accepted" {
  expect(validate(makeToken()).id.toString()).toBe(CLAIMS.sub);
  const explained = explanation(token, audience);
  try {
    validate(token, audience);
  } catch (thrown) {
    if (!(thrown instanceof JwtSvidError)) throw thrown;
    // What cannot be read at all is said before any rule is judged.
    if (!explained.includes("jwt-svid-malformed")) expect(explained).toContain(thrown.code);
    return thrown.code;
  }
  expect(explained).toEqual([]);
  return "accepted";
}

/** The codes of all rules that the token breaks, as they are explained to people: none exactly for a token that is accepted. */
function explanation(token: string, audience = "orders"): unknown[] {
  try {
    const outcomes = judgeJwtSvid(token, { audience, bundles: bundleOf, now: NOW });
    return outcomes.filter(({ verdict }) => verdict === "broken").map(({ code }) => code);
  } catch (thrown) {
    if (!(thrown instanceof JwtSvidError)) throw thrown;
    return [thrown.code];
  }
}

const without = (object: Record<string, unknown>, member: string) =>
  Object.fromEntries(Object.entries(object).filter(([name]) => name !== member));

describe("JWT-SVID validation", () => {
  const headers: [string, unknown, JwtSvidErrorCode | "accepted"][] = [
    ["JS-3 typ JOSE", { ...HEADER, typ: "JOSE" }, "accepted"],
    ["JS-6 no typ", without(HEADER, "typ"), "accepted"],
    ["JS-6 no kid", without(HEADER, "kid"), "accepted"],
    ["JS-3 typ at+jwt", { ...HEADER, typ: "at+jwt" }, "jwt-svid-type"],
    ["JS-3 typ wit+jwt", { ...HEADER, typ: "wit+jwt" }, "jwt-svid-type"],
    ["JS-3 typ jwt", { ...HEADER, typ: "jwt" }, "jwt-svid-type"],
    ["JS-3 typ null", { ...HEADER, typ: null }, "jwt-svid-type"],
    ["JS-1 alg none", { ...HEADER, alg: "none" }, "jwt-svid-algorithm"],
    ["JS-1 alg HS256", { ...HEADER, alg: "HS256" }, "jwt-svid-algorithm"],
    ["JS-1 alg EdDSA", { ...HEADER, alg: "EdDSA" }, "jwt-svid-algorithm"],
    ["JS-1 alg es256", { ...HEADER, alg: "es256" }, "jwt-svid-algorithm"],
    ["JS-1 no alg", without(HEADER, "alg"), "jwt-svid-algorithm"],
    ["JS-1 alg of another curve", { ...HEADER, alg: "ES384" }, "jwt-svid-key-mismatch"],
    ["JS-1 alg of another key type", { ...HEADER, alg: "RS256" }, "jwt-svid-key-mismatch"],
    ["crit", { ...HEADER, crit: ["exp"], exp: 1 }, "jwt-svid-critical"],
    ["empty crit", { ...HEADER, crit: [] }, "jwt-svid-critical"],
    ["JS-2 jku", { ...HEADER, jku: "https://evil.example/keys" }, "jwt-svid-header-member"],
    ["JS-2 jwk", { ...HEADER, jwk: jwk(other.publicKey, {}) }, "jwt-svid-header-member"],
    ["JS-2 b64", { ...HEADER, b64: true }, "jwt-svid-header-member"],
    ["kid of nobody", { ...HEADER, kid: "nobody" }, "jwt-svid-key-unknown"],
    ["kid of another key of the bundle", { ...HEADER, kid: "other" }, "jwt-svid-signature"],
    ["JR-11 kid of another trust domain", { ...HEADER, kid: "foreign" }, "jwt-svid-key-unknown"],
    ["kid is a number", { ...HEADER, kid: 7 }, "jwt-svid-key-id"],
    ["header twice alg", '{"alg":"ES256","alg":"ES256","kid":"own"}', "jwt-svid-malformed"],
    ["header is a list", [HEADER], "jwt-svid-malformed"],
    ["header is not JSON", "{", "jwt-svid-malformed"],
  ];
  it.each(headers)("JR-11 JS-1 JS-2 JS-3 header: %s", (_name, header, code) => {
    expect(refusal(makeToken(header))).toBe(code);
  });

  const payloads: [string, unknown, JwtSvidErrorCode | "accepted"][] = [
    ["JS-6 aud is a string", { ...CLAIMS, aud: "orders" }, "accepted"],
    ["one of several aud", { ...CLAIMS, aud: ["payments", "orders"] }, "accepted"],
    ["unknown claims", { ...CLAIMS, act: { sub: "x" } }, "accepted"],
    ["nbf now", { ...CLAIMS, nbf: SECONDS }, "accepted"],
    ["fractional exp", { ...CLAIMS, exp: SECONDS + 0.5 }, "accepted"],
    ["JS-5 no sub", without(CLAIMS, "sub"), "jwt-svid-subject-missing"],
    ["sub is not a SPIFFE ID", { ...CLAIMS, sub: "billing" }, "jwt-svid-subject-invalid"],
    ["sub is a list", { ...CLAIMS, sub: [CLAIMS.sub] }, "jwt-svid-subject-invalid"],
    ["sub is a trust domain", { ...CLAIMS, sub: "spiffe://shop.local" }, "jwt-svid-subject-path-missing"],
    [
      "sub of an unknown trust domain",
      { ...CLAIMS, sub: "spiffe://nowhere.example/a" },
      "jwt-svid-trust-domain-unknown",
    ],
    ["JR-15 sub of another trust domain", { ...CLAIMS, sub: "spiffe://partner.example/a" }, "jwt-svid-key-unknown"],
    ["JS-5 no aud", without(CLAIMS, "aud"), "jwt-svid-audience-missing"],
    ["empty aud", { ...CLAIMS, aud: [] }, "jwt-svid-audience-missing"],
    ["aud for another", { ...CLAIMS, aud: ["payments"] }, "jwt-svid-audience"],
    ["aud with the audience as a prefix", { ...CLAIMS, aud: "orders2" }, "jwt-svid-audience"],
    ["aud with a number", { ...CLAIMS, aud: ["orders", 1] }, "jwt-svid-malformed"],
    ["JS-5 no exp", without(CLAIMS, "exp"), "jwt-svid-expiry-missing"],
    ["exp now", { ...CLAIMS, exp: SECONDS }, "jwt-svid-expired"],
    ["exp past", { ...CLAIMS, exp: SECONDS - 1 }, "jwt-svid-expired"],
    ["exp is a string", { ...CLAIMS, exp: String(SECONDS + 60) }, "jwt-svid-malformed"],
    ["exp is null", { ...CLAIMS, exp: null }, "jwt-svid-malformed"],
    ["exp overflows", JSON.stringify(CLAIMS).replace(`"exp":${SECONDS + 60}`, '"exp":1e999'), "jwt-svid-malformed"],
    ["nbf in the future", { ...CLAIMS, nbf: SECONDS + 1 }, "jwt-svid-not-yet-valid"],
    ["nbf is a string", { ...CLAIMS, nbf: "0" }, "jwt-svid-malformed"],
    ["sub twice", JSON.stringify(CLAIMS).replace("{", '{"sub":"spiffe://shop.local/admin",'), "jwt-svid-malformed"],
    [
      "sub twice, escaped",
      JSON.stringify(CLAIMS).replace("{", '{"s\\u0075b":"spiffe://shop.local/admin",'),
      "jwt-svid-malformed",
    ],
    ["nested key twice", JSON.stringify(CLAIMS).replace("{", '{"x":[{"a":1,"a":2}],'), "jwt-svid-malformed"],
    ["equal keys of different objects", { ...CLAIMS, x: { sub: "," }, y: [{ sub: '","sub":{' }] }, "accepted"],
    ["invalid UTF-8", "BYTES", "jwt-svid-malformed"],
  ];
  it.each(payloads)("JR-11 JR-15 JS-5 JS-6 payload: %s", (_name, claims, code) => {
    const bytes = Buffer.from(JSON.stringify({ ...CLAIMS, x: "é" }), "latin1").toString("base64url");
    expect(refusal(claims === "BYTES" ? resign(encode(HEADER), bytes) : makeToken(HEADER, claims))).toBe(code);
  });

  function resign(header: string, payload: string): string {
    const signature = sign("sha256", Buffer.from(`${header}.${payload}`), {
      key: own.privateKey,
      dsaEncoding: "ieee-p1363",
    });
    return `${header}.${payload}.${signature.toString("base64url")}`;
  }

  it("JR-11 form of the token", () => {
    const token = makeToken();
    const [header = "", payload = "", signature = ""] = token.split(".");
    const forms: [string, JwtSvidErrorCode][] = [
      ["", "jwt-svid-malformed"],
      [`${header}.${payload}`, "jwt-svid-malformed"],
      [`${token}.x`, "jwt-svid-malformed"],
      [`${token}=`, "jwt-svid-malformed"],
      [`${token} `, "jwt-svid-malformed"],
      [`${header}..${signature}`, "jwt-svid-malformed"],
      [`${header}.${payload}.`, "jwt-svid-signature"],
      [resign(`${header}=`, payload), "jwt-svid-malformed"],
      [resign(header, `${payload.slice(0, 4)}\n${payload.slice(4)}`), "jwt-svid-malformed"],
      [resign(header, Buffer.from(payload, "base64url").toString("base64").replace(/=*$/, "==")), "jwt-svid-malformed"],
      [JSON.stringify({ payload, protected: header, signature }), "jwt-svid-json-serialization"],
      [`${token}${"A".repeat(70_000)}`, "jwt-svid-too-long"],
    ];
    for (const [form, code] of forms) expect(refusal(form), form.slice(0, 60)).toBe(code);
  });

  it("JR-11 signatures that are not the key's: another key, HMAC with the public key, DER instead of the two numbers", () => {
    const [header = "", payload = ""] = makeToken().split(".");
    const signed = Buffer.from(`${header}.${payload}`);
    expect(refusal(makeToken(HEADER, CLAIMS, other.privateKey))).toBe("jwt-svid-signature");
    const mac = createHmac("sha256", own.publicKey.export({ format: "pem", type: "spki" }))
      .update(signed)
      .digest("base64url");
    expect(refusal(`${header}.${payload}.${mac}`)).toBe("jwt-svid-signature");
    const der = sign("sha256", signed, own.privateKey).toString("base64url");
    expect(refusal(`${header}.${payload}.${der}`)).toBe("jwt-svid-signature");
    expect(refusal(`${header}.${payload}.${Buffer.alloc(64).toString("base64url")}`)).toBe("jwt-svid-signature");
  });

  it("JS-6 without kid every fitting key of the bundle is tried, and no key of another bundle", () => {
    const header = without(HEADER, "kid");
    expect(refusal(makeToken(header, CLAIMS, other.privateKey))).toBe("accepted");
    expect(refusal(makeToken(header, CLAIMS, foreign.privateKey))).toBe("jwt-svid-signature");
  });

  it("JS-7 a key for another use, or for another algorithm, verifies nothing", () => {
    const bundle = (members: Record<string, unknown>) => () => ({
      keys: [jwk(own.publicKey, { kid: "own", ...members })],
    });
    const attempt = (members: Record<string, unknown>) => {
      try {
        return parseAndValidateJwtSvid(makeToken(), "orders", bundle(members), NOW).id.name;
      } catch (thrown) {
        return (thrown as { code: string }).code;
      }
    };
    expect(attempt({})).toBe("agents/billing");
    expect(attempt({ use: undefined })).toBe("agents/billing");
    expect(attempt({ alg: "ES256" })).toBe("agents/billing");
    expect(attempt({ use: "x509-svid" })).toBe("jwt-svid-key-unknown");
    expect(attempt({ use: "wit-svid" })).toBe("jwt-svid-key-unknown");
    expect(attempt({ alg: "RS256" })).toBe("jwt-svid-key-mismatch");
  });

  it.each(["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"])(
    "JS-1 accepts %s as jose signs it",
    async (alg) => {
      const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
      const token = await new SignJWT({ aud: "orders" })
        .setProtectedHeader({ alg, kid: "jose" })
        .setSubject(CLAIMS.sub)
        .setExpirationTime(SECONDS + 60)
        .sign(privateKey);
      const { exportJWK } = await import("jose");
      const keys = [{ kty: "", ...(await exportJWK(publicKey)), kid: "jose", use: "jwt-svid" }] as Jwk[];
      const valid = parseAndValidateJwtSvid(token, "orders", () => ({ keys }), NOW);
      expect(valid).toMatchObject({ audience: ["orders"], keyId: "jose" });
      const [header = "", payload = "", signature = ""] = token.split(".");
      const bent = Buffer.from(signature, "base64url");
      bent.writeUInt8((bent.at(-1) ?? 0) ^ 1, bent.length - 1);
      expect(() =>
        parseAndValidateJwtSvid(`${header}.${payload}.${bent.toString("base64url")}`, "orders", () => ({ keys }), NOW),
      ).toThrow(expect.objectContaining({ code: "jwt-svid-signature" }));
    },
  );

  it("JR-11 any change of any character is refused with a code of ours", () => {
    const token = makeToken();
    const places = fc.integer({ min: 0, max: token.length - 1 });
    const characters = fc.constantFrom(..."ABCxyz019-_.= {");
    fc.assert(
      fc.property(places, characters, (at, character) => {
        const bent = token.slice(0, at) + character + token.slice(at + 1);
        return bent === token || /^jwt-svid-/.test(refusal(bent));
      }),
      { numRuns: runs(300) },
    );
  });

  it("JR-11 any text is refused with a code of ours", () => {
    const parts = fc.array(fc.oneof(fc.string(), fc.json().map(encode)), { maxLength: 4 });
    fc.assert(
      fc.property(parts, (some) => /^jwt-svid-/.test(refusal(some.join(".")))),
      { numRuns: runs(300) },
    );
  });
});
