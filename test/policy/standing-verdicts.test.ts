import { expect, test } from "vitest";
import { httpAccessRequest } from "../../src/policy/access-request-of.js";
import { createDecisionPoint } from "../../src/policy/decision-point.js";
import { isKept, keptRequest } from "../../src/policy/kept-request.js";
import { policySetOf } from "../../src/policy/policy-set.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";

const shop = TrustDomain.parse("shop.local");
const NOON = Date.parse("2026-03-02T12:00:00Z");

function pointOf(rules: string) {
  const time = { now: NOON };
  const names = {
    trustDomain: shop,
    identities: ["agents/billing", "services/invoices"],
    services: [{ name: "invoices", identity: "services/invoices", protocol: "http" as const }],
  };
  const { set, problems } = policySetOf([{ file: "policies/test.yaml", bytes: Buffer.from(rules) }], names);
  if (set === undefined) throw new Error(JSON.stringify(problems));
  const clock = { now: () => time.now, after: () => () => undefined };
  const point = createDecisionPoint(set, { clock, random: (size) => new Uint8Array(size) });
  return { point, time };
}

const reading = () =>
  httpAccessRequest({
    caller: SpiffeId.of(shop, "agents/billing").toString(),
    service: SpiffeId.of(shop, "services/invoices").toString(),
    ...{ method: "GET", path: "/v1/invoices", query: { page: "1" } },
  });

test("a kept request cannot be changed, and is the only one that is taken for kept", () => {
  const request = keptRequest(reading());
  expect([isKept(request), isKept(reading()), isKept(Object.freeze(reading()))]).toEqual([true, false, false]);
  expect(() => Object.assign(request.context?.query as object, { page: "2" })).toThrow(TypeError);
  expect(() => Object.assign(request.resource.properties as object, { path: "/admin" })).toThrow(TypeError);
});

test("a verdict on the request alone is the same each time, with an id of its own", async () => {
  const { point } = pointOf("rules:\n  - { name: reads, allow: { from: agents/billing, to: invoices } }\n");
  const request = keptRequest(reading());
  const [one, other] = [await point.decide(request), await point.decide(request)];
  expect([one.allowed, other.allowed, one.rule]).toEqual([true, true, "reads"]);
  expect(await point.decide(reading())).toMatchObject({ allowed: true, rule: "reads", reason: one.reason });
});

const CHANGING: readonly (readonly [what: string, rule: string])[] = [
  ["a limit", "{ name: once, allow: { from: agents/billing, to: invoices }, limit: 1 per hour }"],
  [
    "a limit of a match rule",
    "{ name: all, allow: { from: agents/billing, to: invoices } }\n  - { name: once, match: { to: invoices }, limit: 1 per hour }",
  ],
  [
    "a condition on the time",
    `{ name: noon, allow: { from: agents/billing, to: invoices }, when: 'now < timestamp("2026-03-02T12:30:00Z")' }`,
  ],
  [
    "a deny whose condition is on the time",
    `{ name: all, allow: { from: agents/billing, to: invoices } }\n  - { name: late, deny: { to: invoices }, when: 'now > timestamp("2026-03-02T12:30:00Z")' }`,
  ],
  ["a window of time", "{ name: hour, allow: { from: agents/billing, to: invoices, time: { hours: '11:00-12:30' } } }"],
];

test.each(CHANGING)("a verdict that rests on %s is worked out each time", async (_what, rule) => {
  const { point, time } = pointOf(`rules:\n  - ${rule}\n`);
  const request = keptRequest(reading());
  expect((await point.decide(request)).allowed).toBe(true);
  time.now = NOON + 45 * 60_000;
  expect((await point.decide(request)).allowed).toBe(false);
});
