import { generateKeyPairSync } from "node:crypto";
import fc from "fast-check";
import type { Case } from "./case.js";

/** SPIFFE bundles from a few real keys and certificates, and every member made wrong. */

type Members = Record<string, unknown>;

const jwtKeys: readonly Members[] = [
  generateKeyPairSync("ec", { namedCurve: "P-256" }),
  generateKeyPairSync("ec", { namedCurve: "P-384" }),
  generateKeyPairSync("rsa", { modulusLength: 2048 }),
].map(({ publicKey }, index) => ({ ...publicKey.export({ format: "jwk" }), use: "jwt-svid", kid: `key-${index}` }));

const edwardsKey = generateKeyPairSync("ed25519").publicKey.export({ format: "jwk" });

/** Bundles that hold `roots`, elements with `use: x509-svid`, and JWT keys beside them; and what is nearly one. */
export function bundleCases(roots: readonly Members[]): fc.Arbitrary<Case> {
  return fc
    .tuple(bundle(roots), fc.constantFrom(...Object.entries(changes)), fc.nat(400))
    .map(([made, [cause, change], at]) => ({ kind: "bundle", cause, text: change(made, at) }));
}

interface Bundle {
  readonly root: Members;
  readonly keys: readonly Members[];
  readonly sequence: bigint | undefined;
  readonly hint: number | undefined;
}

function bundle(roots: readonly Members[]): fc.Arbitrary<Bundle> {
  return fc.record({
    root: fc.constantFrom(...roots),
    keys: fc.subarray([...roots, ...jwtKeys]),
    sequence: fc.option(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), { nil: undefined }),
    hint: fc.option(fc.integer({ min: 0, max: 86_400 }), { nil: undefined }),
  });
}

function written(keys: readonly unknown[], numbers: Readonly<Record<string, string>> = {}): string {
  const members = Object.entries({ keys: JSON.stringify(keys), ...numbers });
  return `{${members.map(([name, text]) => `${JSON.stringify(name)}:${text}`).join(",")}}`;
}

type Change = (bundle: Bundle, at: number) => string;
const element = (members: Members): Change => {
  return ({ keys }) => written([...keys, members]);
};
const root = (members: Members): Change => {
  return ({ root: own, keys }) => written([...keys.filter((key) => key !== own), { ...own, ...members }]);
};
const jwtKey = (members: Members): Change => {
  return ({ keys }) => written([...keys.filter(({ kid }) => kid !== "key-0"), { ...jwtKeys[0], ...members }]);
};
const numbers = (members: Readonly<Record<string, string>>): Change => {
  return ({ keys }) => written(keys, members);
};
const whole = (text: string): Change => {
  return () => text;
};

const changes: Readonly<Record<string, Change>> = {
  none: ({ keys, sequence, hint }) =>
    written(keys, {
      ...(sequence === undefined ? {} : { spiffe_sequence: String(sequence) }),
      ...(hint === undefined ? {} : { spiffe_refresh_hint: String(hint) }),
    }),
  "no list of keys": whole("{}"),
  "keys that are null": whole('{"keys":null}'),
  "keys that are an object": whole('{"keys":{}}'),
  "an empty list of keys": whole('{"keys":[]}'),
  "a list": whole("[]"),
  nothing: whole(""),
  "cut off": (made, at) => written(made.keys).slice(0, at),
  "text after its end": ({ keys }) => `${written(keys)}x`,
  "an unknown member": numbers({ spiffe_color: '"blue"' }),
  "an element that is null": ({ keys }) => written([...keys, null]),
  "an element that is a number": ({ keys }) => written([...keys, 7]),
  "an element without members": element({}),
  "an element of an unknown use": jwtKey({ use: "sig" }),
  "an element with a use in upper case": jwtKey({ use: "JWT-SVID" }),
  "an element without use": jwtKey({ use: undefined }),
  "an element of an unknown key type": element({ kty: "XYZ", use: "jwt-svid", kid: "xyz" }),
  "a symmetric key": element({ kty: "oct", use: "jwt-svid", kid: "oct", k: "AAAA" }),
  "an Edwards key": element({ ...edwardsKey, use: "jwt-svid", kid: "edwards" }),
  "a JWT key without key id": jwtKey({ kid: undefined }),
  "a JWT key whose point is off the curve": jwtKey({ x: "A".repeat(43) }),
  "a JWT key on an unknown curve": jwtKey({ crv: "P-999" }),
  "a JWT key with a member missing": jwtKey({ y: undefined }),
  "a JWT key for another algorithm": jwtKey({ alg: "RS256" }),
  "a root with a key id": root({ kid: "root" }),
  "a root without certificates": root({ x5c: [] }),
  "a root without x5c": root({ x5c: undefined }),
  "a root with garbage for a certificate": root({ x5c: ["AAAA"] }),
  "a root whose certificate is no base64": root({ x5c: ["?"] }),
  "a root with two certificates": ({ root: own, keys }) =>
    written([...keys.filter((key) => key !== own), { ...own, x5c: [own.x5c, own.x5c].flat() }]),
  "a sequence that is negative": numbers({ spiffe_sequence: "-1" }),
  "a sequence with a fraction": numbers({ spiffe_sequence: "1.5" }),
  "a sequence that is text": numbers({ spiffe_sequence: '"1"' }),
  "a sequence that is null": numbers({ spiffe_sequence: "null" }),
  "a sequence of more than 64 bits": numbers({ spiffe_sequence: "18446744073709551616" }),
  "a refresh hint that is negative": numbers({ spiffe_refresh_hint: "-1" }),
  "a refresh hint with a fraction": numbers({ spiffe_refresh_hint: "0.5" }),
  "a refresh hint that is text": numbers({ spiffe_refresh_hint: '"5m"' }),
  "a refresh hint of centuries": numbers({ spiffe_refresh_hint: "10000000000" }),
  "a member twice": ({ keys }) => `{"keys":[],${written(keys).slice(1)}`,
};
