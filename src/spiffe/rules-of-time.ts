import { readTime } from "./jwt-svid.js";
import { type Rule, unlessBroken } from "./rule-outcome.js";

interface WithTimes {
  readonly claims: Readonly<Record<string, unknown>>;
  readonly seconds: number;
}

type TimeRule = "expiry-missing" | "expired" | "not-yet-valid";

/** The rules about a token's times, which all kinds of tokens share: `expiry` is where its standard asks for `exp`, `broken` makes its error. */
export function rulesOfTime<Presented extends WithTimes>(
  expiry: { readonly source: string; readonly sentence: string },
  broken: (rule: TimeRule, message: string) => Error,
): readonly Rule<Presented>[] {
  const when = (seconds: number): string => new Date(seconds * 1000).toISOString();
  return [
    {
      ...expiry,
      check({ claims }) {
        if (claims.exp === undefined) throw broken("expiry-missing", "the token has no exp claim");
        readTime(claims.exp, "exp");
        return undefined;
      },
    },
    {
      source: "RFC 7519 §4.1.4",
      sentence: "The current date/time MUST be before the expiration date/time listed in the exp claim.",
      check({ claims, seconds }) {
        const expires = unlessBroken(() => readTime(claims.exp, "exp"));
        if (expires === undefined) return "it has no expiry";
        if (seconds < expires) return undefined;
        throw broken("expired", `it expired at ${when(expires)}`);
      },
    },
    {
      source: "RFC 7519 §4.1.5",
      sentence: "The current date/time MUST be after or equal to the not-before date/time listed in the nbf claim.",
      check({ claims, seconds }) {
        if (claims.nbf === undefined) return undefined;
        const begins = readTime(claims.nbf, "nbf");
        if (seconds >= begins) return undefined;
        throw broken("not-yet-valid", `it is valid from ${when(begins)} on`);
      },
    },
  ];
}
