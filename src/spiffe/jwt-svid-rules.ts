import { algorithmFor } from "./jwt-algorithm.js";
import {
  checkSignature,
  type JwtBundles,
  JwtSvidError,
  parsePart,
  readAudience,
  readHeader,
  readSubject,
  splitToken,
} from "./jwt-svid.js";
import { judge, type Rule, type RuleOutcome, unlessBroken } from "./rule-outcome.js";
import { rulesOfTime } from "./rules-of-time.js";
import type { SpiffeId } from "./spiffe-id.js";

interface Presented {
  readonly parts: ReturnType<typeof splitToken>;
  readonly header: Readonly<Record<string, unknown>>;
  readonly claims: Readonly<Record<string, unknown>>;
  readonly audience: string | undefined;
  readonly bundles: JwtBundles | undefined;
  readonly seconds: number;
}

export interface JwtJudgement {
  /** Who the token is for, or undefined to leave that unjudged. */
  readonly audience: string | undefined;
  /** Undefined leaves trust and signature unjudged. */
  readonly bundles: JwtBundles | undefined;
  readonly now: Date;
}

/**
 * Every rule that `token` keeps or breaks as a JWT-SVID. `parseAndValidateJwtSvid` accepts exactly the tokens that keep them all.
 * Throws JwtSvidError `jwt-svid-malformed`, `jwt-svid-too-long`, `jwt-svid-json-serialization` for what is no compact JWS at all.
 */
export function judgeJwtSvid(token: string, { audience, bundles, now }: JwtJudgement): readonly RuleOutcome[] {
  const parts = splitToken(token);
  const header = parsePart(parts.headerPart, "header");
  const claims = parsePart(parts.payloadPart, "payload");
  return judge(RULES, { parts, header, claims, audience, bundles, seconds: now.getTime() / 1000 });
}

/** A header that breaks nothing by itself, to judge one member of another in. */
const plainHeader = { alg: "ES256" };
const NO_ID = "its subject is no SPIFFE ID";

const RULES: readonly Rule<Presented>[] = [
  {
    source: "JWT-SVID §5.1",
    sentence: "JWT-SVIDs MUST be serialized using the JWS Compact Serialization method.",
    // What is not was refused before any rule could be asked.
    check: () => undefined,
  },
  {
    source: "JWT-SVID §2.1",
    sentence: "The alg header MUST be set to one of the values defined in RFC 7518 sections 3.3, 3.4, or 3.5.",
    check({ header }) {
      readHeader({ alg: header.alg });
      return undefined;
    },
  },
  {
    source: "JWT-SVID §2.2",
    sentence: "The kid header is optional.",
    check({ header }) {
      readHeader({ ...plainHeader, ...member(header, "kid") });
      return undefined;
    },
  },
  {
    source: "JWT-SVID §2.3",
    sentence: "The typ header is optional. If set, its value MUST be either JWT or JOSE.",
    check({ header }) {
      readHeader({ ...plainHeader, ...member(header, "typ") });
      return undefined;
    },
  },
  {
    source: "JWT-SVID §2",
    sentence: "Any header not described here, registered or private, MUST NOT be included in the JWT-SVID JOSE Header.",
    check({ header }) {
      const { alg: _alg, kid: _kid, typ: _typ, ...others } = header;
      readHeader({ ...plainHeader, ...others });
      return undefined;
    },
  },
  {
    source: "JWT-SVID §3.1",
    sentence: "The sub claim MUST be set to the SPIFFE ID of the workload to which it is issued.",
    check({ claims }) {
      readSubject(claims.sub);
      return undefined;
    },
  },
  {
    source: "JWT-SVID §3.2",
    sentence: "The aud claim MUST be present, containing one or more values.",
    check({ claims }) {
      readAudience(claims.aud);
      return undefined;
    },
  },
  {
    source: "JWT-SVID §3.2",
    sentence:
      "Validators MUST reject tokens … if the value that the validator identifies with is not present as an aud element.",
    check({ claims, audience }) {
      if (audience === undefined) return "no audience was named";
      const audiences = audiencesIfAny(claims);
      if (audiences === undefined) return "it has no aud claim";
      if (audiences.includes(audience)) return undefined;
      throw new JwtSvidError(
        "jwt-svid-audience",
        `it is for ${JSON.stringify(audiences)}, not ${JSON.stringify(audience)}`,
      );
    },
  },
  ...rulesOfTime<Presented>(
    {
      source: "JWT-SVID §3.3",
      sentence: "The exp claim MUST be set, and validators MUST reject tokens without this claim.",
    },
    (rule, message) => new JwtSvidError(`jwt-svid-${rule}`, message),
  ),
  {
    source: "Workload API §6.3",
    sentence: "If a JWT bundle for the specified trust domain is not present, then the token is untrusted.",
    check({ claims, bundles }) {
      const id = idIfAny(claims);
      if (id === undefined) return NO_ID;
      if (bundles === undefined) return "there is no bundle to look at";
      if (bundles(id.trustDomain) !== undefined) return undefined;
      throw new JwtSvidError("jwt-svid-trust-domain-unknown", `no trust bundle for ${id.trustDomain}`);
    },
  },
  {
    source: "JWT-SVID §4",
    sentence: "JWT-SVID signatures are computed and validated following the steps outlined in RFC 7515 section 7.",
    check({ parts, header, claims, bundles }) {
      const id = idIfAny(claims);
      const bundle = id === undefined ? undefined : bundles?.(id.trustDomain);
      if (bundle === undefined) return "there is no bundle of its trust domain";
      const algorithm = algorithmFor(header.alg);
      if (algorithm === undefined) return "its algorithm is refused";
      checkSignature(parts, { algorithm, keyId: typeof header.kid === "string" ? header.kid : undefined }, bundle);
      return undefined;
    },
  },
];

function member(header: Readonly<Record<string, unknown>>, name: string): Record<string, unknown> {
  return Object.hasOwn(header, name) ? { [name]: header[name] } : {};
}

function idIfAny(claims: Readonly<Record<string, unknown>>): SpiffeId | undefined {
  return unlessBroken(() => readSubject(claims.sub));
}

function audiencesIfAny(claims: Readonly<Record<string, unknown>>): readonly string[] | undefined {
  return unlessBroken(() => readAudience(claims.aud));
}
