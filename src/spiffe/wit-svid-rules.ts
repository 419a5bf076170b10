import { createPublicKey } from "node:crypto";
import { CodedError } from "../coded-error.js";
import { algorithmFor } from "./jwt-algorithm.js";
import { checkSignature, type JwtBundles, parsePart, readSubject, readTime, splitToken } from "./jwt-svid.js";
import { judge, type Rule, type RuleOutcome, unlessBroken } from "./rule-outcome.js";
import { rulesOfTime } from "./rules-of-time.js";
import type { SpiffeId } from "./spiffe-id.js";

type WitSvidErrorCode =
  | "wit-svid-type"
  | "wit-svid-algorithm"
  | "wit-svid-key-id"
  | "wit-svid-expiry-missing"
  | "wit-svid-expired"
  | "wit-svid-not-yet-valid"
  | "wit-svid-audience"
  | "wit-svid-confirmation"
  | "wit-svid-trust-domain-unknown";

/** A token breaks a rule that only WIT-SVIDs have; those that they share with JWT-SVIDs are JwtSvidErrors. */
class WitSvidError extends CodedError<WitSvidErrorCode> {
  override readonly name = "WitSvidError";
}

/** The `typ` of a WIT-SVID, and of no JWT-SVID. */
const TYPE = "wit+jwt";

interface Presented {
  readonly parts: ReturnType<typeof splitToken>;
  readonly header: Readonly<Record<string, unknown>>;
  readonly claims: Readonly<Record<string, unknown>>;
  readonly bundles: JwtBundles | undefined;
  readonly seconds: number;
}

/** True for a token that says of itself that it is a WIT-SVID; false for every other text. */
export function saysItIsWitSvid(token: string): boolean {
  try {
    return parsePart(splitToken(token).headerPart, "header").typ === TYPE;
  } catch {
    return false;
  }
}

/** What a WIT-SVID says of itself; nobody has vouched for it yet. */
export interface ReadWitSvid {
  readonly id: SpiffeId;
  readonly keyId: unknown;
  readonly expiresAt: Date;
  readonly claims: Readonly<Record<string, unknown>>;
}

/** Reads `token` without judging signature, time or key. Throws JwtSvidError for what has no subject or expiry that can be shown. */
export function readWitSvid(token: string): ReadWitSvid {
  const { headerPart, payloadPart } = splitToken(token);
  const { kid } = parsePart(headerPart, "header");
  const claims = parsePart(payloadPart, "payload");
  return { id: readSubject(claims.sub), keyId: kid, expiresAt: new Date(readTime(claims.exp, "exp") * 1000), claims };
}

/**
 * Every rule that `token` keeps or breaks as a WIT-SVID (Incubating). Whether its presenter holds the key of `cnf` is not the token's to show.
 * `bundles` undefined leaves trust and signature unjudged. Throws JwtSvidError for what is no compact JWS at all.
 */
export function judgeWitSvid(
  token: string,
  { bundles, now }: { readonly bundles: JwtBundles | undefined; readonly now: Date },
): readonly RuleOutcome[] {
  const parts = splitToken(token);
  const header = parsePart(parts.headerPart, "header");
  const claims = parsePart(parts.payloadPart, "payload");
  return judge(RULES, { parts, header, claims, bundles, seconds: now.getTime() / 1000 });
}

const RULES: readonly Rule<Presented>[] = [
  {
    source: "WIT-SVID header",
    sentence: "typ MUST be wit+jwt.",
    check({ header: { typ } }) {
      if (typ === TYPE) return undefined;
      throw new WitSvidError("wit-svid-type", `its type is ${JSON.stringify(typ) ?? "not there"}`);
    },
  },
  {
    source: "WIT-SVID header",
    sentence: "alg MUST be one of the algorithms that JWT-SVIDs may have.",
    check({ header: { alg } }) {
      if (algorithmFor(alg) !== undefined) return undefined;
      throw new WitSvidError(
        "wit-svid-algorithm",
        `the algorithm ${JSON.stringify(alg) ?? "is not there and"} is refused`,
      );
    },
  },
  {
    source: "WIT-SVID header",
    sentence: "kid MUST be set.",
    check({ header: { kid } }) {
      if (typeof kid === "string" && kid !== "") return undefined;
      throw new WitSvidError("wit-svid-key-id", "the token names no key");
    },
  },
  {
    source: "WIT-SVID claims",
    sentence: "sub MUST be the SPIFFE ID of the workload to which it is issued.",
    check({ claims }) {
      readSubject(claims.sub);
      return undefined;
    },
  },
  {
    source: "WIT-SVID claims",
    sentence: "aud MUST NOT be set.",
    check({ claims }) {
      if (claims.aud === undefined) return undefined;
      throw new WitSvidError("wit-svid-audience", "it has an aud claim, as a bearer token has");
    },
  },
  ...rulesOfTime<Presented>(
    { source: "WIT-SVID claims", sentence: "exp MUST be set." },
    (rule, message) => new WitSvidError(`wit-svid-${rule}`, message),
  ),
  {
    source: "WIT-SVID claims",
    sentence: "cnf MUST hold the public key of the workload as jwk, with an alg that JWT-SVIDs may have.",
    check({ claims }) {
      checkConfirmation(claims.cnf);
      return undefined;
    },
  },
  {
    source: "WIT-SVID bundle",
    sentence: "The token's trust domain has a bundle.",
    check({ claims, bundles }) {
      const id = idIfAny(claims);
      if (id === undefined) return "its subject is no SPIFFE ID";
      if (bundles === undefined) return "there is no bundle to look at";
      if (bundles(id.trustDomain) !== undefined) return undefined;
      throw new WitSvidError("wit-svid-trust-domain-unknown", `no WIT bundle for ${id.trustDomain}`);
    },
  },
  {
    source: "WIT-SVID bundle",
    sentence: "The signature is that of the bundle's key with this kid and use: wit-svid.",
    check({ parts, header, claims, bundles }) {
      const id = idIfAny(claims);
      const bundle = id === undefined ? undefined : bundles?.(id.trustDomain);
      if (bundle === undefined) return "there is no bundle of its trust domain";
      const algorithm = algorithmFor(header.alg);
      if (algorithm === undefined) return "its algorithm is refused";
      if (typeof header.kid !== "string" || header.kid === "") return "it names no key";
      checkSignature(parts, { algorithm, keyId: header.kid }, bundle);
      return undefined;
    },
  },
];

function checkConfirmation(cnf: unknown): void {
  const jwk = isObject(cnf) ? cnf.jwk : undefined;
  if (!isObject(jwk)) throw new WitSvidError("wit-svid-confirmation", "it has no cnf.jwk");
  const algorithm = algorithmFor(jwk.alg);
  if (algorithm === undefined)
    throw new WitSvidError("wit-svid-confirmation", `the algorithm of cnf.jwk, ${JSON.stringify(jwk.alg)}, is refused`);
  if (Object.hasOwn(jwk, "d")) throw new WitSvidError("wit-svid-confirmation", "cnf.jwk holds the private key");
  try {
    createPublicKey({ key: jwk, format: "jwk" });
  } catch (cause) {
    throw new WitSvidError("wit-svid-confirmation", "cnf.jwk is not a usable public key", { cause });
  }
}

function idIfAny(claims: Readonly<Record<string, unknown>>): SpiffeId | undefined {
  return unlessBroken(() => readSubject(claims.sub));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
