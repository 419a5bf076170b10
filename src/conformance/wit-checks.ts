import { createPrivateKey, createPublicKey } from "node:crypto";
import { status } from "@grpc/grpc-js";
import { SpiffeWorkloadAPIService as Api } from "../workload-api/generated/workload.js";
import { type Check, problemsOf, skip } from "./check.js";
import type { Context } from "./context.js";
import { invalidOrProblem, keysOf } from "./jwt-checks.js";
import { described, statusOf } from "./probe.js";
import { jsonObject, tokenParts } from "./token-parts.js";
import { keyProblem, ownTrustDomains } from "./x509-checks.js";

/** The WIT profile: optional, and incubating. */
export const witChecks: readonly Check[] = [
  {
    id: "WR-1",
    level: "M",
    sentence: "Where the WIT profile is not supported both RPCs are Unimplemented",
    source: "WA §7",
    async run({ probe }) {
      const svid = await probe.ask(Api.fetchWitsvid, { spiffeId: "" });
      const bundles = await probe.ask(Api.fetchWitBundles, {});
      const unimplemented = [svid, bundles].filter((answer) => statusOf(answer) === status.UNIMPLEMENTED).length;
      if (unimplemented === 0) skip("the WIT profile is served");
      return unimplemented === 2
        ? []
        : [`FetchWITSVID answers ${described(svid)}, FetchWITBundles ${described(bundles)}`];
    },
  },
  {
    id: "WR-2",
    level: "M",
    sentence: "A WIT-SVID for each identity, or the one named in spiffe_id; PermissionDenied for another's",
    source: "WA §7.2.1",
    run: witForEach,
  },
  {
    id: "WR-3",
    level: "M",
    sentence: "wit_svid_key is a private JWK and matches cnf.jwk in the token",
    source: "WIT; WA §7.2.1",
    run: async (context) =>
      problemsOf(await context.witSvids(), ({ spiffeId, witSvid, witSvidKey }) => {
        const problem = keyMismatch(witSvid, witSvidKey);
        return problem && `the WIT-SVID of ${spiffeId}: ${problem}`;
      }),
  },
  {
    id: "WR-4",
    level: "M",
    sentence: "FetchWITBundles: JWK Sets by SPIFFE ID of the trust domain; every JWK has a unique kid",
    source: "WIT; WA §7.2.2",
    run: witBundleProblems,
  },
];

async function witForEach(context: Context): Promise<readonly string[]> {
  const { probe } = context;
  const all = await probe.ask(Api.fetchWitsvid, { spiffeId: "" });
  if (statusOf(all) === status.UNIMPLEMENTED) skip("the WIT profile is not served");
  if (!all.ok) return [`FetchWITSVID answers ${described(all)}`];
  const given = all.message.svids.map(({ spiffeId }) => spiffeId);
  const ids = context.svids().map(({ spiffeId }) => spiffeId);
  const id = ids.at(-1) ?? "";
  const named = await probe.ask(Api.fetchWitsvid, { spiffeId: id });
  const namedIds = named.ok ? named.message.svids.map(({ spiffeId }) => spiffeId) : [];
  const nobody = `spiffe://${ownTrustDomains(context)[0]}/conformance/nobody`;
  const denied = await probe.ask(Api.fetchWitsvid, { spiffeId: nobody });
  return [
    ...problemsOf(ids, (one) => (given.includes(one) ? undefined : `there is no WIT-SVID for ${one}`)),
    ...(new Set(namedIds).size === 1 && namedIds[0] === id
      ? []
      : [`asked for ${id} it answers ${namedIds.join(", ") || described(named)}`]),
    ...(statusOf(denied) === status.PERMISSION_DENIED
      ? []
      : [`another identity is answered with ${described(denied)}`]),
    ...invalidOrProblem(
      "a spiffe_id that is no SPIFFE ID",
      await probe.ask(Api.fetchWitsvid, { spiffeId: "no SPIFFE ID" }),
    ),
  ];
}

/** Undefined if the private key in `keyText` is that of the token's `cnf.jwk`. */
function keyMismatch(token: string, keyText: string): string | undefined {
  const confirmation = tokenParts(token)?.claims.cnf;
  const jwk = isObject(confirmation) ? confirmation.jwk : undefined;
  if (!isObject(jwk)) return "it has no cnf.jwk";
  const key = jsonObject(keyText);
  if (key === undefined) return "wit_svid_key is not a JWK";
  try {
    const publicKey = createPublicKey({ key: jwk, format: "jwk" });
    const own = createPublicKey(createPrivateKey({ key: { ...key }, format: "jwk" }));
    return own.equals(publicKey) ? undefined : "wit_svid_key is not the key of cnf.jwk";
  } catch {
    return "wit_svid_key or cnf.jwk is not a usable key";
  }
}

async function witBundleProblems(context: Context): Promise<readonly string[]> {
  const answer = await context.probe.ask(Api.fetchWitBundles, {});
  if (statusOf(answer) === status.UNIMPLEMENTED) skip("the WIT profile is not served");
  if (!answer.ok) return [`FetchWITBundles answers ${described(answer)}`];
  const { bundles } = answer.message;
  return [
    ...problemsOf(ownTrustDomains(context), (name) =>
      bundles[`spiffe://${name}`] === undefined ? `there is no spiffe://${name}` : undefined,
    ),
    ...problemsOf(Object.entries(bundles), ([key, text]) => {
      const set = jsonObject(text);
      const keys = set && keysOf(set);
      if (keys === undefined) return `the bundle of ${key} is no JWK Set`;
      const kids = keys.map(({ kid }) => kid);
      if (kids.some((kid) => typeof kid !== "string" || kid === ""))
        return `the bundle of ${key} holds a JWK without kid`;
      if (new Set(kids).size < kids.length) return `two keys of ${key} have one kid`;
      return keyProblem(key);
    }),
  ];
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
