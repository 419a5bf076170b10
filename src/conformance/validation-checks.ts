import { createPublicKey, generateKeyPairSync } from "node:crypto";
import { status } from "@grpc/grpc-js";
import { SpiffeWorkloadAPIService as Api } from "../workload-api/generated/workload.js";
import { type Check, skip } from "./check.js";
import type { Context } from "./context.js";
import { audiencesOf, invalidOrProblem, keysOf } from "./jwt-checks.js";
import { described, statusOf } from "./probe.js";
import {
  AUDIENCE,
  ecdsa,
  ed25519,
  hmac,
  type JsonObject,
  jsonObject,
  reused,
  type TokenParts,
  tokenParts,
  unsigned,
  writeToken,
} from "./token-parts.js";

/** ValidateJWTSVID. */
export const validationChecks: readonly Check[] = [
  {
    id: "JR-10",
    level: "S",
    sentence: "ValidateJWTSVID with an empty audience or svid is InvalidArgument",
    source: "WA §4.5; spire handler.go",
    async run(context) {
      const { token } = await acceptedToken(context);
      return [
        ...invalidOrProblem("an empty audience", await validate(context, token, "")),
        ...invalidOrProblem("an empty svid", await validate(context, "", AUDIENCE)),
      ];
    },
  },
  {
    id: "JR-11",
    level: "M",
    sentence: "ValidateJWTSVID refuses every token that is not valid for the audience with InvalidArgument",
    source: "WA §6.2.3, §6.3; JS §§2-5",
    async run(context) {
      const accepted = await acceptedToken(context);
      const problems = [
        ...invalidOrProblem("a token for another audience", await validate(context, accepted.token, `${AUDIENCE}2`)),
      ];
      for (const [what, token] of await badTokens(context, accepted)) {
        problems.push(...invalidOrProblem(what, await validate(context, token, AUDIENCE)));
      }
      return problems;
    },
  },
  {
    id: "JR-12",
    level: "M",
    sentence: "Success returns spiffe_id and claims with at least sub, aud and exp",
    source: "WA §6.2.3",
    async run(context) {
      const { token, parts } = await someToken(context);
      const { sub } = parts.claims;
      const answer = await validate(context, token, AUDIENCE);
      if (statusOf(answer) === status.UNIMPLEMENTED) skip("the JWT profile is not served: WR-5");
      if (!answer.ok) return [`a token of FetchJWTSVID is answered with ${described(answer)}`];
      const { spiffeId, claims } = answer.message;
      const missing = ["sub", "aud", "exp"].filter((claim) => claims?.[claim] === undefined);
      const changed = ["sub", "exp"].filter(
        (claim) => claims?.[claim] !== undefined && claims[claim] !== parts.claims[claim],
      );
      return [
        ...(spiffeId === sub
          ? []
          : [`the token of ${String(sub)} is answered with spiffe_id ${JSON.stringify(spiffeId)}`]),
        ...(missing.length > 0 ? [`claims lacks ${missing.join(", ")}`] : []),
        ...(changed.length > 0 ? [`claims says another ${changed.join(", ")} than the token`] : []),
      ];
    },
  },
  {
    id: "JR-13",
    level: "I",
    sentence: "claims.aud is always a list",
    source: "spire handler.go",
    async run(context) {
      const { claims } = await acceptedToken(context);
      if (claims.aud === undefined) skip("claims has no aud: JR-12");
      return Array.isArray(claims.aud) ? [] : [`claims.aud is ${JSON.stringify(claims.aud)}`];
    },
  },
  {
    id: "JR-15",
    level: "M",
    sentence: "A federated token validates, with its own trust domain's bundle only",
    source: "WA §6.3",
    run: federatedToken,
  },
];

interface SomeToken {
  readonly token: string;
  readonly id: string;
  readonly parts: TokenParts;
}

function validate(context: Context, svid: string, audience: string) {
  return context.probe.ask(Api.validateJwtsvid, { audience, svid });
}

async function someToken(context: Context): Promise<SomeToken> {
  for (const { svid, spiffeId } of await context.tokens()) {
    const parts = tokenParts(svid);
    if (parts !== undefined) return { token: svid, id: spiffeId, parts };
  }
  return skip("no token can be read: JR-6");
}

/** The positive control of every refusal: a token that is accepted, and what it was answered with. */
async function acceptedToken(context: Context): Promise<SomeToken & { readonly claims: JsonObject }> {
  const some = await someToken(context);
  const answer = await validate(context, some.token, AUDIENCE);
  return answer.ok ? { ...some, claims: answer.message.claims ?? {} } : skip("no token is accepted: JR-12");
}

/**
 * Tokens to refuse. Only the server holds the keys of its trust domain, so a token that is wrong in its claims and rightly signed cannot be made here:
 * such tokens carry the signature of a good one, or that of a key of nobody, and must be refused whichever is noticed first.
 */
async function badTokens(context: Context, good: SomeToken): Promise<readonly (readonly [string, string])[]> {
  const { header, claims, signature } = good.parts;
  const nobody = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const jwk = nobody.publicKey.export({ format: "jwk" });
  const es256 = { ...header, alg: "ES256" };
  const forged = (changes: JsonObject, from: JsonObject = claims) =>
    writeToken({ ...es256, ...changes }, from, ecdsa(nobody.privateKey));
  const changed = (changes: JsonObject) => writeToken(header, { ...claims, ...changes }, reused(signature));
  const [head, payload] = good.token.split(".");
  const now = Math.floor(context.options.clock.now() / 1000);
  const trustDomain = good.id.split("/").slice(0, 3).join("/");
  const secrets = await publicKeyTexts(context, header.kid);

  return [
    ["a changed signature", `${head}.${payload}.${altered(signature)}`],
    ["the signature of nobody", forged({})],
    ["the signature of nobody without kid", forged({ kid: undefined })],
    ["the signature of nobody with its key in the header", forged({ jwk, kid: undefined })],
    ["the signature of nobody with the address of its key", forged({ jku: "https://conformance.invalid/keys" })],
    ["alg none", writeToken({ ...header, alg: "none" }, claims, unsigned)],
    ["alg None", writeToken({ ...header, alg: "None" }, claims, unsigned)],
    ["alg none with a signature", writeToken({ ...header, alg: "none" }, claims, reused(signature))],
    ["no signature", `${head}.${payload}.`],
    ["alg HS256", writeToken({ ...header, alg: "HS256" }, claims, hmac("secret"))],
    ...secrets.map(
      (secret) =>
        [
          "alg HS256 with the public key as its secret",
          writeToken({ ...header, alg: "HS256" }, claims, hmac(secret)),
        ] as const,
    ),
    ["alg EdDSA", writeToken({ ...header, alg: "EdDSA" }, claims, ed25519())],
    ["no alg", forged({ alg: undefined })],
    ["typ at+jwt", forged({ typ: "at+jwt" })],
    ["an unknown crit", forged({ crit: ["conformance"], conformance: true })],
    ["another sub", changed({ sub: `${trustDomain}/conformance/nobody` })],
    ["another exp", changed({ exp: now + 86_400 })],
    ["a past exp", changed({ exp: now - 60 })],
    ["no exp", changed({ exp: undefined })],
    ["no aud", changed({ aud: undefined })],
    ["a future nbf", changed({ nbf: now + 3600 })],
    ["no sub", forged({}, { ...claims, sub: undefined })],
    ["a sub that is no SPIFFE ID", forged({}, { ...claims, sub: "conformance" })],
    ["a sub of an unknown trust domain", forged({}, { ...claims, sub: "spiffe://conformance.invalid/a" })],
    ["the flattened JSON serialization", JSON.stringify({ protected: head, payload, signature })],
    ["the general JSON serialization", JSON.stringify({ payload, signatures: [{ protected: head, signature }] })],
    ["two parts", `${head}.${payload}`],
    ["four parts", `${good.token}.${signature}`],
    ["no JSON", "a.b.c"],
    ["a token between blanks", ` ${good.token} `],
    ...(await witTokens(context)),
  ];
}

/** A WIT-SVID is rightly signed, and no JWT-SVID: it has another typ and no audience. */
async function witTokens(context: Context): Promise<readonly (readonly [string, string])[]> {
  const svids = await context.witSvids().catch(() => []);
  return svids.slice(0, 1).map(({ witSvid }) => ["a WIT-SVID", witSvid] as const);
}

/** The public key with this `kid` as texts and bytes that a careless verifier might take for a secret. */
async function publicKeyTexts(context: Context, kid: unknown): Promise<readonly (string | Buffer)[]> {
  const bundles = Object.values(await context.jwtBundles().catch(() => ({})));
  const keys = bundles.flatMap((bytes) => keysOf(jsonObject(bytes.toString("utf8")) ?? {}) ?? []);
  const named = keys.find((jwk) => jwk.kid === kid);
  if (named === undefined) return [];
  try {
    const key = createPublicKey({ key: { ...named }, format: "jwk" });
    return [key.export({ format: "pem", type: "spki" }), key.export({ format: "der", type: "spki" })];
  } catch {
    return [];
  }
}

/** Another character in its middle, where every bit counts. */
function altered(signature: string): string {
  const middle = Math.floor(signature.length / 2);
  return signature.slice(0, middle) + (signature[middle] === "A" ? "B" : "A") + signature.slice(middle + 1);
}

/** A token from the Workload API of a federated trust domain, and the same one in the name of our own. */
async function federatedToken(context: Context): Promise<readonly string[]> {
  const { federatedTarget } = context.options;
  if (Object.keys(context.federatedBundles()).length === 0) skip("there is no federated trust domain");
  if (federatedTarget === undefined) skip("needs a Workload API of the federated trust domain: --federated-socket");
  const other = context.connect(federatedTarget);
  const given = await other.ask(Api.fetchJwtsvid, { audience: [AUDIENCE], spiffeId: "" });
  const [svid] = given.ok ? given.message.svids : [];
  const parts = svid && tokenParts(svid.svid);
  if (svid === undefined || parts === undefined) return skip(`--federated-socket gives no token: ${described(given)}`);

  const answer = await validate(context, svid.svid, AUDIENCE);
  const own = await acceptedToken(context);
  const borrowed = writeToken(parts.header, { ...parts.claims, sub: own.id }, reused(parts.signature));
  const lent = writeToken(own.parts.header, { ...own.parts.claims, sub: svid.spiffeId }, reused(own.parts.signature));
  const accepted = answer.ok && answer.message.spiffeId === svid.spiffeId;
  return [
    ...(accepted ? [] : [`a token of ${svid.spiffeId} is answered with ${described(answer)}`]),
    ...(answer.ok && audiencesOf(answer.message.claims ?? {}).length === 0 ? ["its claims lack aud"] : []),
    ...invalidOrProblem("a federated key in our own name", await validate(context, borrowed, AUDIENCE)),
    ...invalidOrProblem("our own key in a federated name", await validate(context, lent, AUDIENCE)),
  ];
}
