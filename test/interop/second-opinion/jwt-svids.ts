import { constants, createHmac, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import fc from "fast-check";
import type { Case } from "./case.js";

/** Tokens of `shop.local` for `orders`, made with jose's rules by hand, so that each rule can be broken. */

const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
const ec384 = generateKeyPairSync("ec", { namedCurve: "P-384" });
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const stranger = generateKeyPairSync("ec", { namedCurve: "P-256" });

const keys = { ec, ec384, rsa };
const signers: Readonly<Record<string, { kid: keyof typeof keys; hash: string; pss?: boolean }>> = {
  ES256: { kid: "ec", hash: "sha256" },
  ES384: { kid: "ec384", hash: "sha384" },
  RS256: { kid: "rsa", hash: "sha256" },
  RS512: { kid: "rsa", hash: "sha512" },
  PS256: { kid: "rsa", hash: "sha256", pss: true },
};

/** The bundle of the trust domain. */
export const jwtBundleText = JSON.stringify({
  keys: Object.entries(keys).map(([kid, { publicKey }]) => ({
    ...publicKey.export({ format: "jwk" }),
    kid,
    use: "jwt-svid",
  })),
});

interface Token {
  readonly alg: string;
  readonly header: Record<string, unknown>;
  readonly claims: Record<string, unknown>;
}

const now = Math.floor(Date.now() / 1000);

const token: fc.Arbitrary<Token> = fc
  .record({
    alg: fc.constantFrom(...Object.keys(signers)),
    typ: fc.constantFrom("JWT", "JOSE", undefined),
    path: fc.stringMatching(/^(\/[a-z0-9-]{1,8}){1,3}$/),
    others: fc.array(fc.string({ unit: "grapheme", maxLength: 12 }), { maxLength: 2 }),
    list: fc.boolean(),
    lifetime: fc.integer({ min: 600, max: 3600 }),
    own: fc.dictionary(fc.stringMatching(/^x_[a-z]{1,8}$/), fc.jsonValue({ maxDepth: 1 }), { maxKeys: 3 }),
  })
  .map(({ alg, typ, path, others, list, lifetime, own }) => ({
    alg,
    header: { alg, kid: signers[alg]?.kid, ...(typ === undefined ? {} : { typ }) },
    claims: {
      ...own,
      sub: `spiffe://shop.local${path}`,
      aud: list ? ["orders", ...others] : "orders",
      exp: now + lifetime,
      iat: now - 1,
    },
  }));

const encode = (value: unknown) =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

function signed(alg: string, header: unknown, claims: unknown, key?: KeyObject): string {
  const { kid, hash, pss = false } = signers[alg] ?? { kid: "ec", hash: "sha256" };
  const padding = pss
    ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
    : undefined;
  const text = `${encode(header)}.${encode(claims)}`;
  const privateKey = key ?? keys[kid].privateKey;
  const signature = sign(hash, Buffer.from(text), { key: privateKey, dsaEncoding: "ieee-p1363", ...padding });
  return `${text}.${signature.toString("base64url")}`;
}

type Change = (token: Token, at: number) => string;
const header = (members: Record<string, unknown>): Change => {
  return ({ alg, header: own, claims }) => signed(alg, { ...own, ...members }, claims);
};
const claim = (members: Record<string, unknown>): Change => {
  return ({ alg, header: own, claims }) => signed(alg, own, { ...claims, ...members });
};
const text = (change: (whole: string, at: number) => string): Change => {
  return ({ alg, header: own, claims }, at) => change(signed(alg, own, claims), at);
};

/** Each breaks one thing, or keeps to the letter where implementations like to be strict. */
const changes: Readonly<Record<string, Change>> = {
  none: text((whole) => whole),
  "no key id": header({ kid: undefined }),
  "an empty key id": header({ kid: "" }),
  "another key's id": header({ kid: "nobody" }),
  "a key id that is a number": header({ kid: 7 }),
  "type in lower case": header({ typ: "jwt" }),
  "another type": header({ typ: "at+jwt" }),
  "a type that is a number": header({ typ: 1 }),
  "algorithm none": ({ header: own, claims }) => `${encode({ ...own, alg: "none" })}.${encode(claims)}.`,
  "algorithm HS256 with the bundle as its secret": ({ header: own, claims }) => {
    const unsigned = `${encode({ ...own, alg: "HS256" })}.${encode(claims)}`;
    return `${unsigned}.${createHmac("sha256", jwtBundleText).update(unsigned).digest("base64url")}`;
  },
  "algorithm EdDSA": header({ alg: "EdDSA" }),
  "an algorithm of another key": header({ alg: "ES512" }),
  "no algorithm": header({ alg: undefined }),
  "an extension that must be understood": header({ crit: ["x"], x: 1 }),
  "an empty list of extensions": header({ crit: [] }),
  "a header member that is not alg, kid or typ": header({ jku: "https://example.org/keys" }),
  "no subject": claim({ sub: undefined }),
  "an empty subject": claim({ sub: "" }),
  "a subject that is a number": claim({ sub: 5 }),
  "a subject that is no SPIFFE ID": claim({ sub: "https://shop.local/agents/billing" }),
  "a subject with a percent-encoded path": claim({ sub: "spiffe://shop.local/%61" }),
  "a subject without a path": claim({ sub: "spiffe://shop.local" }),
  "a subject of another trust domain": claim({ sub: "spiffe://partner.example/agents/billing" }),
  "no audience": claim({ aud: undefined }),
  "an empty list of audiences": claim({ aud: [] }),
  "another audience": claim({ aud: ["payments"] }),
  "an audience in upper case": claim({ aud: "ORDERS" }),
  "an audience that is a number": claim({ aud: [7] }),
  "one audience that is a number": claim({ aud: ["orders", 7] }),
  "no expiry": claim({ exp: undefined }),
  "expired an hour ago": claim({ exp: now - 3600 }),
  "expired seconds ago": claim({ exp: now - 20 }),
  "an expiry that is text": claim({ exp: String(now + 600) }),
  "an expiry with a fraction": claim({ exp: now + 600.5 }),
  "an expiry beyond all calendars": ({ alg, header: own, claims }) =>
    signed(alg, own, JSON.stringify(claims).replace(/"exp":\d+/, '"exp":1e999')),
  "valid in an hour": claim({ nbf: now + 3600 }),
  "valid in half a minute": claim({ nbf: now + 30 }),
  "valid since an hour": claim({ nbf: now - 3600 }),
  "a not-before that is text": claim({ nbf: "now" }),
  "issued in an hour": claim({ iat: now + 3600 }),
  "an issuing time that is text": claim({ iat: "now" }),
  "a claim twice": ({ alg, header: own, claims }) =>
    signed(alg, own, JSON.stringify(claims).replace("{", '{"sub":"spiffe://shop.local/agents/root",')),
  "a header member twice": ({ alg, header: own, claims }) =>
    signed(alg, JSON.stringify(own).replace("{", '{"typ":"JWT","typ":"JWT",'), claims),
  "claims that are a list": ({ alg, header: own, claims }) => signed(alg, own, [claims]),
  "claims that are no JSON": ({ alg, header: own }) => signed(alg, own, "sub=spiffe://shop.local/a"),
  "signed by a stranger": ({ header: own, claims }) =>
    signed("ES256", { ...own, alg: "ES256", kid: "ec" }, claims, stranger.privateKey),
  "claims of another token": text((whole) =>
    whole.replace(
      /\.[^.]+\./,
      `.${encode({ sub: "spiffe://shop.local/agents/root", aud: "orders", exp: now + 600 })}.`,
    ),
  ),
  "no signature": text((whole) => whole.slice(0, whole.lastIndexOf(".") + 1)),
  "two parts": text((whole) => whole.slice(0, whole.lastIndexOf("."))),
  "four parts": text((whole) => `${whole}.AAAA`),
  padded: text((whole) => `${whole}==`),
  "a line break at the end": text((whole) => `${whole}\n`),
  "a line break in the signature": text((whole) => `${whole.slice(0, -8)}\n${whole.slice(-8)}`),
  "spare bits of base64url set": text(withSpareBits),
  "the alphabet of plain base64": text((whole) => whole.replaceAll("-", "+").replaceAll("_", "/")),
  "JSON serialization": text((whole) => {
    const [protectedPart, payload, signature] = whole.split(".");
    return JSON.stringify({ protected: protectedPart, payload, signature });
  }),
  // Never a last character, whose spare bits are a cause of their own.
  "one character of the claims or the signature changed": text((whole, at) => {
    const place = whole.indexOf(".") + 1 + (at % 60);
    return whole.slice(0, place) + (whole[place] === "A" ? "B" : "A") + whole.slice(place + 1);
  }),
  "cut off": text((whole, at) => whole.slice(0, at)),
};

/** A signature of 64, 96 or 256 bytes leaves 4, 0 or 4 bits of its last character unused. */
function withSpareBits(whole: string): string {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const last = alphabet.indexOf(whole.at(-1) ?? "");
  return last % 16 === 0 ? whole.slice(0, -1) + (alphabet[last + 1] ?? "") : whole;
}

/** JWT-SVIDs that keep every rule, and each way to break one. */
export const jwtSvidCases: fc.Arbitrary<Case> = fc
  .tuple(token, fc.constantFrom(...Object.entries(changes)), fc.nat(200))
  .map(([made, [cause, change], at]) => ({ kind: "jwt-svid", cause, text: change(made, at) }));
