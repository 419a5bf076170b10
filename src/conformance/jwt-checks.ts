import { status } from "@grpc/grpc-js";
import { algorithmFor } from "../spiffe/jwt-algorithm.js";
import { publicKeyOf } from "../spiffe/jwt-bundle.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import { SpiffeWorkloadAPIService as Api } from "../workload-api/generated/workload.js";
import { type Check, problemsOf, skip, whyNot } from "./check.js";
import type { Context } from "./context.js";
import { type Answer, described, statusOf } from "./probe.js";
import { AUDIENCE, type JsonObject, jsonObject, type TokenParts, tokenParts } from "./token-parts.js";
import { keyProblem, ownTrustDomains } from "./x509-checks.js";

/** RFC 7517 §9.3, RFC 7518 §6: members that no public key has. */
const PRIVATE_MEMBERS = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/** FetchJWTSVID and FetchJWTBundles. */
export const jwtChecks: readonly Check[] = [
  {
    id: "JR-1",
    level: "S",
    sentence: "FetchJWTSVID with an empty audience is InvalidArgument",
    source: "WA §4.5; spire handler.go",
    async run(context) {
      await context.tokens();
      return invalidOrProblem("an empty audience", await fetchTokens(context, "", []));
    },
  },
  {
    id: "JR-2",
    level: "M",
    sentence: "All requested audiences are in aud",
    source: "WA §6.2.1",
    async run(context) {
      const audience = [AUDIENCE, "conformance-other-audience"];
      const answer = await fetchTokens(context, "", audience);
      if (statusOf(answer) === status.UNIMPLEMENTED) skip("the JWT profile is not served: WR-5");
      if (!answer.ok) return [`FetchJWTSVID for two audiences answers ${described(answer)}`];
      return problemsOf(answer.message.svids, ({ spiffeId, svid }) => {
        const parts = tokenParts(svid);
        const missing = parts && audience.filter((one) => !audiencesOf(parts.claims).includes(one));
        return missing?.length ? `the token of ${spiffeId} is not for ${missing.join(", ")}` : undefined;
      });
    },
  },
  {
    id: "JR-3",
    level: "M",
    sentence: "An empty spiffe_id gives one SVID for each identity",
    source: "WA §6.2.1",
    async run(context) {
      const answer = await fetchTokens(context, "", [AUDIENCE]);
      if (!answer.ok) skip(`FetchJWTSVID answers ${described(answer)}`);
      const given = answer.message.svids.map(({ spiffeId }) => spiffeId);
      const ids = context.svids().map(({ spiffeId }) => spiffeId);
      return [
        ...problemsOf(ids, (id) => (given.includes(id) ? undefined : `there is no JWT-SVID for ${id}`)),
        ...problemsOf(given, (id) =>
          ids.includes(id) ? undefined : `there is a JWT-SVID for ${id}, but no X.509-SVID`,
        ),
      ];
    },
  },
  {
    id: "JR-4",
    level: "S",
    sentence: "spiffe_id: exactly that one if entitled, PermissionDenied if not, InvalidArgument if it is no SPIFFE ID",
    source: "WA §6.2.1; spire handler.go",
    async run(context) {
      await context.tokens();
      const id = context.svids().at(-1)?.spiffeId ?? "";
      const [name] = ownTrustDomains(context);
      const [own, foreign, unreadable] = await Promise.all(
        [id, `spiffe://${name}/conformance/nobody`, "no SPIFFE ID"].map((one) => fetchTokens(context, one, [AUDIENCE])),
      );
      const given = own?.ok ? own.message.svids.map(({ spiffeId }) => spiffeId) : [];
      return [
        ...(new Set(given).size === 1 && given.includes(id)
          ? []
          : [`asked for ${id} it answers ${given.join(", ") || (own && described(own))}`]),
        ...(foreign && statusOf(foreign) !== status.PERMISSION_DENIED
          ? [`another identity is answered with ${described(foreign)}`]
          : []),
        ...(unreadable ? invalidOrProblem("a spiffe_id that is no SPIFFE ID", unreadable) : []),
      ];
    },
  },
  {
    id: "JR-5",
    level: "M",
    sentence: "spiffe_id in the message equals sub",
    source: "proto",
    run: ofEachToken(({ claims }, id) =>
      claims.sub === id ? undefined : `its sub is ${JSON.stringify(claims.sub ?? null)}`,
    ),
  },
  {
    id: "JR-6",
    level: "M",
    sentence: "svid is a compact JWS",
    source: "JS §5.1",
    run: async (context) =>
      problemsOf(await context.tokens(), ({ spiffeId, svid }) =>
        tokenParts(svid) === undefined ? `the token of ${spiffeId} is not three parts of base64url JSON` : undefined,
      ),
  },
  {
    id: "JR-7",
    level: "M",
    sentence: "Bundles are JWK Sets by SPIFFE ID, hold the own trust domain, only JWT-SVID keys and no private members",
    source: "WA §6.2.2",
    run: jwtBundleProblems,
  },
  {
    id: "JR-8",
    level: "I",
    sentence: "Each JWK has kid and a valid kty; use, where it is set, is jwt-svid",
    source: "JS §6.1; go-spiffe bundle/jwtbundle",
    run: ofEachKey((jwk) => {
      if (typeof jwk.kid !== "string" || jwk.kid === "") return "a JWK without kid";
      if (jwk.use !== undefined && jwk.use !== "jwt-svid") return `use ${JSON.stringify(jwk.use)}`;
      const { kty } = jwk;
      const valid = typeof kty === "string" && publicKeyOf({ ...jwk, kty } as { kty: string }) !== undefined;
      return valid ? undefined : `${JSON.stringify(jwk.kid)} is no usable key (kty ${JSON.stringify(kty ?? null)})`;
    }),
  },
  {
    id: "JR-9",
    level: "I",
    sentence: "There is no spiffe_sequence and no spiffe_refresh_hint",
    source: "spire handler.go",
    run: async (context) =>
      problemsOf(await readableSets(context), ([key, set]) => {
        const found = ["spiffe_sequence", "spiffe_refresh_hint"].filter((member) => Object.hasOwn(set, member));
        return found.length > 0 ? `the bundle of ${key} holds ${found.join(", ")}` : undefined;
      }),
  },
  {
    id: "JS-1",
    level: "M",
    sentence: "alg is one of RS, ES, PS with 256, 384, 512",
    source: "JS §2.1",
    run: ofEachToken(({ header: { alg } }) =>
      algorithmFor(alg) === undefined ? `its alg is ${JSON.stringify(alg ?? null)}` : undefined,
    ),
  },
  {
    id: "JS-2",
    level: "M",
    sentence: "Only alg, kid and typ are in the header",
    source: "JS §2",
    run: ofEachToken(({ header }) => {
      const extra = Object.keys(header).filter((member) => !["alg", "kid", "typ"].includes(member));
      return extra.length > 0 ? `its header holds ${extra.join(", ")}` : undefined;
    }),
  },
  {
    id: "JS-3",
    level: "M",
    sentence: "typ is absent, JWT or JOSE",
    source: "JS §2.3",
    run: ofEachToken(({ header: { typ } }) =>
      typ === undefined || typ === "JWT" || typ === "JOSE" ? undefined : `its typ is ${JSON.stringify(typ)}`,
    ),
  },
  {
    id: "JS-4",
    level: "I",
    sentence: "kid is always set in the header",
    source: "JS §2.2; spiffe#358",
    run: ofEachToken(({ header: { kid } }) => (typeof kid === "string" && kid !== "" ? undefined : "it has no kid")),
  },
  {
    id: "JS-5",
    level: "M",
    sentence: "sub is a SPIFFE ID, aud has a value, exp is set and in the future",
    source: "JS §3",
    run: async (context) => {
      const now = context.options.clock.now() / 1000;
      return ofEachToken(({ claims }) => {
        const why = whyNot(() => SpiffeId.parse(String(claims.sub ?? "")));
        if (why !== undefined) return `sub: ${why}`;
        if (audiencesOf(claims).length === 0) return "it has no aud";
        if (typeof claims.exp !== "number") return "it has no exp";
        return claims.exp > now ? undefined : "it has expired";
      })(context);
    },
  },
  {
    id: "JS-7",
    level: "M",
    sentence: "A JWT key of a bundle has a kid",
    source: "JS §6.1",
    run: ofEachKey(({ kid }) => (typeof kid === "string" && kid !== "" ? undefined : "a JWK without kid")),
  },
];

function fetchTokens(context: Context, spiffeId: string, audience: string[]) {
  return context.probe.ask(Api.fetchJwtsvid, { audience, spiffeId });
}

/** What is wrong with an answer that should be InvalidArgument. */
export function invalidOrProblem(what: string, answer: Answer<unknown>): readonly string[] {
  return statusOf(answer) === status.INVALID_ARGUMENT ? [] : [`${what} is answered with ${described(answer)}`];
}

/** `aud` as a list, whichever way it is written. JWT-SVID §3.2. */
export function audiencesOf({ aud }: JsonObject): readonly unknown[] {
  return Array.isArray(aud) ? aud : aud === undefined ? [] : [aud];
}

function ofEachToken(problemOf: (parts: TokenParts, id: string) => string | undefined): Check["run"] {
  return async (context) => {
    const read = (await context.tokens()).flatMap(({ spiffeId, svid }) => {
      const parts = tokenParts(svid);
      return parts === undefined ? [] : [{ spiffeId, parts }];
    });
    if (read.length === 0) skip("no token can be read: JR-6");
    return problemsOf(read, ({ spiffeId, parts }) => {
      const problem = problemOf(parts, spiffeId);
      return problem && `the token of ${spiffeId}: ${problem}`;
    });
  };
}

function ofEachKey(problemOf: (jwk: JsonObject) => string | undefined): Check["run"] {
  return async (context) =>
    (await readableSets(context)).flatMap(([key, set]) =>
      problemsOf(keysOf(set) ?? [], (jwk) => {
        const problem = problemOf(jwk);
        return problem && `the bundle of ${key} holds ${problem}`;
      }),
    );
}

async function readableSets(context: Context): Promise<readonly (readonly [string, JsonObject])[]> {
  const bundles = Object.entries(await context.jwtBundles());
  const sets = bundles.flatMap(([key, bytes]) => {
    const set = jsonObject(bytes.toString("utf8"));
    return set === undefined || keysOf(set) === undefined ? [] : [[key, set] as const];
  });
  return sets.length > 0 ? sets : skip("no JWK Set can be read: JR-7");
}

/** Undefined if it is no JWK Set. RFC 7517 §5. */
export function keysOf({ keys }: JsonObject): readonly JsonObject[] | undefined {
  if (!Array.isArray(keys)) return undefined;
  const objects = keys.filter((key) => typeof key === "object" && key !== null);
  return objects.length === keys.length ? objects : undefined;
}

async function jwtBundleProblems(context: Context): Promise<readonly string[]> {
  const answer = await context.probe.ask(Api.fetchJwtBundles, {});
  if (statusOf(answer) === status.UNIMPLEMENTED) skip("the JWT profile is not served: WR-5");
  if (!answer.ok) return [`FetchJWTBundles answers ${described(answer)}`];
  const { bundles } = answer.message;
  return [
    ...problemsOf(ownTrustDomains(context), (name) =>
      bundles[`spiffe://${name}`] === undefined
        ? `there is no spiffe://${name}, but ${Object.keys(bundles).join(", ") || "nothing"}`
        : undefined,
    ),
    ...problemsOf(Object.entries(bundles), ([key, bytes]) => {
      const set = jsonObject(bytes.toString("utf8"));
      const keys = set && keysOf(set);
      if (keys === undefined) return `the bundle of ${key} is no JWK Set`;
      const leaked = PRIVATE_MEMBERS.filter((member) => keys.some((jwk) => Object.hasOwn(jwk, member)));
      if (leaked.length > 0) return `the bundle of ${key} holds the private member ${leaked.join(", ")}`;
      const other = keys.find(({ use }) => use !== undefined && use !== "jwt-svid");
      if (other !== undefined) return `the bundle of ${key} holds a key for ${JSON.stringify(other.use)}`;
      return keyProblem(key);
    }),
  ];
}
