import { status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { DeltaDiscoveryResponse } from "../../src/workload-api/generated/envoy/service/discovery/v3/discovery.js";
import { verifies } from "../requirements/verifies.js";
import { identity, type RunningApi, runApi } from "./running-api.js";
import { envoy, leafOf, namesIn, sdsClient, secretsIn, talkDelta, trustDomainsOf } from "./sds-conversation.js";

const billing = identity("agents/billing");
const analyst = identity("agents/analyst");
const somebodyElse = identity("agents/somebody-else", { uid: 4_000_000_000 });
const billingId = billing.id.toString();
const analystId = analyst.id.toString();
const bundleId = "spiffe://shop.local";

let api: RunningApi;
let client: ReturnType<typeof sdsClient>;
beforeEach(async () => {
  api = await runApi({ identities: [billing, analyst, somebodyElse] });
  client = sdsClient(api);
});
afterEach(async () => {
  client.close();
  await api.close();
});

function versionsIn(response: DeltaDiscoveryResponse): Record<string, string> {
  return Object.fromEntries(response.resources.map(({ name, version }) => [name, version]));
}

describe("DeltaSecrets", () => {
  it(`${verifies("ST-1", "ST-3")} sends what is subscribed to, and then only what changed`, async () => {
    const stream = talkDelta(client);
    stream.say({ node: envoy(1, 40), resourceNamesSubscribe: ["default", analystId, "ROOTCA"] });
    const first = await stream.next();
    expect(namesIn(first)).toEqual(["default", analystId, "ROOTCA"]);
    expect(first.resources.map(({ name }) => name)).toEqual(namesIn(first));
    api.keeper.rotate(analyst.id);
    const second = await stream.next();
    expect(namesIn(second)).toEqual([analystId]);
    expect(leafOf(secretsIn(second).get(analystId)).serialNumber).not.toBe(
      leafOf(secretsIn(first).get(analystId)).serialNumber,
    );
    expect(versionsIn(second)[analystId]).not.toBe(versionsIn(first)[analystId]);
    expect(second.nonce).not.toBe(first.nonce);
    api.authority.rotate();
    const third = await stream.next();
    expect(trustDomainsOf(secretsIn(third).get("ROOTCA")).get("shop.local")).toHaveLength(2);
    stream.cancel();
  });

  it("sends nothing of what the client still has from an earlier stream, and tells what it lost", async () => {
    const before = talkDelta(client);
    before.say({ resourceNamesSubscribe: ["default", analystId] });
    const initialResourceVersions = versionsIn(await before.next());
    before.cancel();
    const again = talkDelta(client);
    again.say({ resourceNamesSubscribe: ["default", analystId], initialResourceVersions });
    again.say({ resourceNamesSubscribe: ["ROOTCA"] });
    expect(namesIn(await again.next())).toEqual(["ROOTCA"]);
    again.cancel();

    api.keeper.rotate(analyst.id);
    const changed = talkDelta(client);
    changed.say({ resourceNamesSubscribe: ["default", analystId], initialResourceVersions });
    expect(namesIn(await changed.next())).toEqual([analystId]);
    changed.cancel();

    api.configure([billing]);
    const lost = talkDelta(client);
    lost.say({ resourceNamesSubscribe: ["default", analystId], initialResourceVersions });
    const answer = await lost.next();
    expect([namesIn(answer), answer.removedResources]).toEqual([[], [analystId]]);
    lost.cancel();
  });

  it("gives everything to whom subscribes to nothing or `*`, and what is named besides", async () => {
    for (const resourceNamesSubscribe of [[], ["*"], ["*", "default"]]) {
      const stream = talkDelta(client);
      stream.say({ resourceNamesSubscribe });
      const wanted = [billingId, analystId, bundleId, ...resourceNamesSubscribe.filter((name) => name !== "*")];
      expect(namesIn(await stream.next())).toEqual(wanted);
      stream.cancel();
    }
  });

  it("sends again what is subscribed to again, and nothing of what was unsubscribed from", async () => {
    const stream = talkDelta(client);
    stream.say({ resourceNamesSubscribe: ["default", "ROOTCA"] });
    await stream.next();
    stream.say({ resourceNamesSubscribe: ["ROOTCA"] });
    expect(namesIn(await stream.next())).toEqual(["ROOTCA"]);
    stream.say({ resourceNamesUnsubscribe: ["default"] });
    stream.say({ resourceNamesSubscribe: [analystId] });
    expect(namesIn(await stream.next())).toEqual([analystId]);
    api.keeper.rotate(billing.id);
    stream.say({ resourceNamesSubscribe: [bundleId] });
    expect(namesIn(await stream.next())).toEqual([bundleId]);
    stream.say({ resourceNamesSubscribe: ["default"] });
    expect(namesIn(await stream.next())).toEqual(["default"]);
    expect(stream.waiting).toBe(0);
    stream.cancel();
  });

  it("forgets what was had as part of everything when everything is unsubscribed from, and keeps what was named", async () => {
    const stream = talkDelta(client);
    stream.say({ resourceNamesSubscribe: ["*", "ROOTCA"] });
    expect(namesIn(await stream.next())).toHaveLength(4);
    stream.say({ resourceNamesUnsubscribe: ["*"] });
    stream.say({ resourceNamesSubscribe: [billingId] });
    const answer = await stream.next();
    expect([namesIn(answer), answer.removedResources]).toEqual([[billingId], []]);
    stream.cancel();
  });

  it("sends what was refused (NACK) not again, tells people why, and sends the next version", async () => {
    const stream = talkDelta(client);
    stream.say({ resourceNamesSubscribe: ["default"] });
    const { nonce: responseNonce } = await stream.next();
    const errorDetail = { code: 3, message: "no such curve", details: [] };
    stream.say({ responseNonce, errorDetail });
    stream.say({ resourceNamesSubscribe: ["ROOTCA"] });
    expect(namesIn(await stream.next())).toEqual(["ROOTCA"]);
    expect(api.rejected).toMatchObject([{ reason: "the secret was refused (code 3): no such curve" }]);
    api.keeper.rotate(billing.id);
    expect(namesIn(await stream.next())).toEqual(["default"]);
    stream.cancel();
  });

  it("says nothing to an ACK", async () => {
    const stream = talkDelta(client);
    stream.say({ resourceNamesSubscribe: ["default"] });
    const { nonce: responseNonce } = await stream.next();
    stream.say({ responseNonce });
    stream.say({ resourceNamesSubscribe: ["ROOTCA"] });
    expect(namesIn(await stream.next())).toEqual(["ROOTCA"]);
    expect(stream.waiting).toBe(0);
    expect(api.rejected).toEqual([]);
    stream.cancel();
  });

  it(`${verifies("ST-9", "ST-5", "ST-6")} takes away what the caller lost, gives it back with the identity, and ends with the last one`, async () => {
    const stream = talkDelta(client);
    stream.say({ resourceNamesSubscribe: [billingId, analystId] });
    expect(namesIn(await stream.next())).toEqual([billingId, analystId]);
    api.configure([billing]);
    const less = await stream.next();
    expect([namesIn(less), less.removedResources]).toEqual([[], [analystId]]);
    api.configure([billing, analyst]);
    const more = await stream.next();
    expect([namesIn(more), more.removedResources]).toEqual([[analystId], []]);
    api.configure([somebodyElse]);
    expect((await stream.ended).code).toBe(status.PERMISSION_DENIED);
    expect(api.api.open.streams).toBe(0);
  });

  it("refuses a name that is not the caller's and never was", async () => {
    for (const name of ["spiffe://shop.local/agents/somebody-else", "nonsense"]) {
      const stream = talkDelta(client);
      stream.say({ resourceNamesSubscribe: ["default"] });
      await stream.next();
      stream.say({ resourceNamesSubscribe: [name] });
      const { code, details } = await stream.ended;
      expect(code).toBe(status.INVALID_ARGUMENT);
      expect(details).toBe(`workload is not authorized for the requested identities ["${name}"]`);
    }
  });

  it("bounds the names that one stream can make it hold", async () => {
    const outcomeOf = async (count: number) => {
      const stream = talkDelta(client);
      stream.say({ resourceNamesSubscribe: Array.from({ length: count }, (_, index) => `spiffe://a/${index}`) });
      return stream.ended;
    };
    expect((await outcomeOf(10_001)).code).toBe(status.RESOURCE_EXHAUSTED);
    const fewer = await outcomeOf(10_000);
    expect([fewer.code, fewer.details]).toEqual([status.INVALID_ARGUMENT, expect.stringMatching(/ and 9992 more\]$/)]);
    expect(api.api.open.streams).toBe(0);
  });
});
