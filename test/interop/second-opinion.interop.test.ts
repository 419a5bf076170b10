import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CodedError } from "../../src/coded-error.js";
import { parseJwtBundle } from "../../src/spiffe/jwt-bundle.js";
import { parseAndValidateJwtSvid } from "../../src/spiffe/jwt-svid.js";
import { parseSpiffeBundle } from "../../src/spiffe/spiffe-bundle.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { x509AuthorityJwk } from "../../src/spiffe/x509-bundle.js";
import { verifies } from "../requirements/verifies.js";
import { makeAuthority } from "../spiffe/test-certificates.js";
import { bundleCases } from "./second-opinion/bundles.js";
import type { Case, Verdict } from "./second-opinion/case.js";
import { prepareSecondOpinion } from "./second-opinion/go-spiffe.js";
import { jwtBundleText, jwtSvidCases } from "./second-opinion/jwt-svids.js";
import { spiffeIdCases } from "./second-opinion/spiffe-ids.js";

const prepared = await prepareSecondOpinion();
if ("missing" in prepared) process.stderr.write(`SKIPPED: second opinion of go-spiffe: ${prepared.missing}\n`);

interface Difference {
  /** What we say, then what go-spiffe says. */
  readonly verdicts: "accept, reject" | "reject, accept" | "other contents";
  readonly why: string;
}

const LENIENT =
  "an element that cannot be used is ignored, each for itself (Trust Domain and Bundle §4.2); go-spiffe drops the whole bundle";

/** Where we and go-spiffe differ, by kind and cause. What is not here must agree; what is here must be seen to differ. */
const DIFFERENCES: Readonly<Record<string, Difference>> = {
  "jwt-svid: no key id": {
    verdicts: "accept, reject",
    why: "kid is optional (JWT-SVID §2.2, JS-6): every key of the bundle is tried; go-spiffe demands one",
  },
  "jwt-svid: an empty list of extensions": {
    verdicts: "reject, accept",
    why: "crit must not be empty (RFC 7515 §4.1.11), and has no place in a JWT-SVID (JWT-SVID §2); go-jose skips it",
  },
  "jwt-svid: a header member that is not alg, kid or typ": {
    verdicts: "reject, accept",
    why: "only alg, kid and typ may be there (JWT-SVID §2, JS-2); go-spiffe does not look",
  },
  "jwt-svid: a subject without a path": {
    verdicts: "reject, accept",
    why: "a trust domain is no workload: it has no JWT-SVID that we would believe; go-spiffe demands a path of X.509-SVIDs only",
  },
  "jwt-svid: expired seconds ago": {
    verdicts: "reject, accept",
    why: "issuer and validator share this machine's clock; go-jose allows a minute",
  },
  "jwt-svid: valid in half a minute": {
    verdicts: "reject, accept",
    why: "issuer and validator share this machine's clock; go-jose allows a minute",
  },
  "jwt-svid: issued in an hour": {
    verdicts: "accept, reject",
    why: "iat says nothing of validity (RFC 7519 §4.1.6), and JWT-SVID §3 does not name it; go-jose refuses the future",
  },
  "jwt-svid: an issuing time that is text": {
    verdicts: "accept, reject",
    why: "iat is not looked at, whatever it holds; go-jose reads it into a number",
  },
  "jwt-svid: a line break at the end": {
    verdicts: "reject, accept",
    why: "a compact JWS holds no white space (RFC 7515 §2, base64url); go-jose strips it",
  },
  "jwt-svid: a line break in the signature": {
    verdicts: "reject, accept",
    why: "a compact JWS holds no white space (RFC 7515 §2, base64url); go-jose strips it",
  },
  "jwt-svid: spare bits of base64url set": {
    verdicts: "reject, accept",
    why: "one token has one spelling, else a list of refused tokens could be evaded (RFC 4648 §3.5); Go decodes leniently",
  },
  "bundle: a member twice": {
    verdicts: "reject, accept",
    why: "what two parsers could read differently is refused (RFC 8259 §4); Go takes the last",
  },
  "bundle: a sequence that is null": {
    verdicts: "reject, accept",
    why: "spiffe_sequence is an integer (Trust Domain and Bundle §4.1.1); Go takes null as absent",
  },
  "bundle: a sequence of more than 64 bits": {
    verdicts: "accept, reject",
    why: "at least 64 bits are asked for (Trust Domain and Bundle §4.1.1) and ours is not bounded by them; Go's ends there",
  },
  "bundle: a refresh hint that is negative": {
    verdicts: "reject, accept",
    why: "a negative time between polls is none; go-spiffe keeps it",
  },
  "bundle: a refresh hint of centuries": {
    verdicts: "reject, accept",
    why: "more than nine digits of seconds would stop all polling; go-spiffe keeps it, and its Duration overflows",
  },
  "bundle: a symmetric key": {
    verdicts: "other contents",
    why: "no key for a JWT-SVID (JS-1), so it is ignored; go-spiffe holds it as an authority",
  },
  "bundle: an Edwards key": {
    verdicts: "other contents",
    why: "no key for a JWT-SVID (JS-1: no EdDSA), so it is ignored; go-spiffe holds it as an authority",
  },
  "bundle: an element that is null": { verdicts: "accept, reject", why: LENIENT },
  "bundle: an element that is a number": { verdicts: "accept, reject", why: LENIENT },
  "bundle: an element without members": { verdicts: "accept, reject", why: LENIENT },
  "bundle: an element of an unknown key type": { verdicts: "accept, reject", why: LENIENT },
  "bundle: a JWT key without key id": { verdicts: "accept, reject", why: LENIENT },
  "bundle: a JWT key whose point is off the curve": { verdicts: "accept, reject", why: LENIENT },
  "bundle: a JWT key on an unknown curve": { verdicts: "accept, reject", why: LENIENT },
  "bundle: a JWT key with a member missing": { verdicts: "accept, reject", why: LENIENT },
  "bundle: a root without certificates": {
    verdicts: "accept, reject",
    why: "consumers ignore entries with an empty x5c (X509-SVID §6, XS-11); go-spiffe drops the whole bundle",
  },
  "bundle: a root without x5c": {
    verdicts: "accept, reject",
    why: "consumers ignore entries with an empty x5c (X509-SVID §6, XS-11); go-spiffe drops the whole bundle",
  },
  "bundle: a root with two certificates": {
    verdicts: "accept, reject",
    why: "consumers use only the first value of x5c (X509-SVID §6, XS-11); go-spiffe drops the whole bundle",
  },
};

const SEED = 20_261_122;
const jwtBundle = parseJwtBundle(jwtBundleText);

/** What our own parsers say. */
function ours({ kind, text }: Case): Verdict {
  try {
    switch (kind) {
      case "spiffe-id":
        SpiffeId.parse(text);
        return { accept: true, x509: 0, jwt: 0 };
      case "jwt-svid":
        parseAndValidateJwtSvid(
          text,
          "orders",
          ({ name }) => (name === "shop.local" ? jwtBundle : undefined),
          new Date(),
        );
        return { accept: true, x509: 0, jwt: 0 };
      case "bundle": {
        const { x509Authorities, jwtKeys } = parseSpiffeBundle(text);
        return { accept: true, x509: x509Authorities.length, jwt: jwtKeys.length };
      }
    }
  } catch (thrown) {
    if (!(thrown instanceof CodedError)) throw thrown;
    return { accept: false, reason: thrown.code, x509: 0, jwt: 0 };
  }
}

function compared(own: Verdict, other: Verdict): Difference["verdicts"] | undefined {
  const word = ({ accept }: Verdict) => (accept ? "accept" : "reject");
  if (own.accept !== other.accept) return `${word(own)}, ${word(other)}` as Difference["verdicts"];
  return own.x509 === other.x509 && own.jwt === other.jwt ? undefined : "other contents";
}

describe.skipIf("missing" in prepared)("go-spiffe's second opinion", () => {
  const seen = new Map<string, string>();
  it.each([
    { what: `${verifies("ID-1", "ID-2")} SPIFFE IDs`, cases: async () => sample(spiffeIdCases, 4000) },
    { what: `${verifies("JR-11", "JS-1", "JS-3", "JS-5")} JWT-SVIDs`, cases: async () => sample(jwtSvidCases, 3000) },
    { what: `${verifies("XS-11", "JS-7")} bundles`, cases: async () => sample(bundleCases(await roots()), 2000) },
  ])("$what: we agree, or the table says why not", async ({ cases }) => {
    if ("missing" in prepared) throw new Error(prepared.missing);
    const asked = await cases();
    const others = await prepared.judge(asked);
    const unexplained: unknown[] = [];
    const accepted = { ours: 0, theirs: 0 };
    asked.forEach((one, index) => {
      const own = ours(one);
      const other = others[index] as Verdict;
      accepted.ours += Number(own.accept);
      accepted.theirs += Number(other.accept);
      const difference = compared(own, other);
      if (difference === undefined) return;
      const name = `${one.kind}: ${one.cause}`;
      seen.set(name, difference);
      if (DIFFERENCES[name]?.verdicts !== difference)
        unexplained.push({ name, difference, own, other, text: one.text });
    });
    // Neither yes to all nor no to all is an opinion.
    for (const count of Object.values(accepted)) {
      expect(count).toBeGreaterThan(asked.length / 10);
      expect(count).toBeLessThan(asked.length);
    }
    expect(unexplained).toEqual([]);
  });

  it("has no difference in the table that is none any more", () => {
    expect(Object.fromEntries(seen)).toEqual(
      Object.fromEntries(Object.entries(DIFFERENCES).map(([name, { verdicts }]) => [name, verdicts])),
    );
  });
});

function sample(cases: fc.Arbitrary<Case>, numRuns: number): readonly Case[] {
  return fc.sample(cases, { seed: SEED, numRuns });
}

async function roots(): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const made = await Promise.all([
    makeAuthority(),
    makeAuthority({ algorithm: "P-384" }),
    makeAuthority({ algorithm: "RSA-2048" }),
  ]);
  return made.map(({ der }) => ({ ...x509AuthorityJwk(der) }));
}
