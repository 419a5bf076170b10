import type { ClientReadableStream } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { verifies } from "../requirements/verifies.js";
import { type Received, receive } from "./received.js";
import { identity, type RunningApi, type RunOptions, runApi, secure } from "./running-api.js";
import { sdsClient, type Talk, talk, talkDelta } from "./sds-conversation.js";

/** Subscriptions that streams hold at the moment, of every kind. */
let held = 0;

/** The same source, with its subscriptions counted. */
function counted<Arguments extends unknown[]>(subscribe: (...args: Arguments) => () => void) {
  return (...args: Arguments) => {
    const unsubscribe = subscribe(...args);
    held += 1;
    let over = false;
    return () => {
      if (!over) held -= 1;
      over = true;
      unsubscribe();
    };
  };
}

const counting: NonNullable<RunOptions["change"]> = (d) => ({
  ...d,
  registry: { entitlementsOf: (caller) => d.registry.entitlementsOf(caller), onChange: counted(d.registry.onChange) },
  bundles: { ...d.bundles, onBundleChange: counted(d.bundles.onBundleChange) },
  svids: { x509Svid: (id) => d.svids.x509Svid(id), onRotation: counted(d.svids.onRotation) },
  witSvids: { witSvid: (id) => d.witSvids.witSvid(id), onWitRotation: counted(d.witSvids.onWitRotation) },
  witBundles: {
    witBundle: (wanted) => d.witBundles.witBundle(wanted),
    onBundleChange: counted(d.witBundles.onBundleChange),
  },
});

const identities = [identity("agents/billing"), identity("agents/analyst")];
let running: RunningApi;
let workload: ReturnType<RunningApi["client"]>;
let sds: ReturnType<typeof sdsClient>;
beforeAll(async () => {
  running = await runApi({ identities, change: counting });
  workload = running.client();
  sds = sdsClient(running);
});
afterAll(async () => {
  sds.close();
  await running.close();
});

const following = (stream: ClientReadableStream<unknown>): Received<unknown> => receive(stream);

describe("what a stream holds", () => {
  const opened: [string, () => Received<unknown>][] = [
    ["FetchX509SVID", () => following(workload.fetchX509Svid({}, secure()))],
    ["FetchWITSVID", () => following(workload.fetchWitsvid({ spiffeId: "" }, secure()))],
    ["FetchWITBundles", () => following(workload.fetchWitBundles({}, secure()))],
    ["StreamSecrets", () => saying(talk(sds), { resourceNames: ["default"] })],
    ["DeltaSecrets", () => saying(talkDelta(sds), { resourceNamesSubscribe: ["default"] })],
  ];
  it.each(opened)(`${verifies("ST-8")} is released when its client leaves: %s`, async (_rpc, open) => {
    expect(held).toBe(running.api.open.streams);
    for (let round = 0; round < 20; round += 1) {
      const streams = Array.from({ length: 5 }, open);
      await Promise.all(streams.map((stream) => stream.next()));
      expect(held).toBeGreaterThanOrEqual(5);
      if (round % 4 === 0) {
        await running.keeper.rotateAll();
        running.configure([...identities].reverse());
        running.configure(identities);
      }
      for (const stream of streams) stream.cancel();
      await Promise.all(streams.map((stream) => stream.ended));
    }
    // One more call on each connection: the cancellations before it have arrived.
    const last = [receive(workload.fetchX509Bundles({}, secure())), saying(talk(sds), { resourceNames: ["ROOTCA"] })];
    for (const stream of last) await stream.next();
    for (const stream of last) stream.cancel();
    await expect.poll(() => [held, running.api.open.streams]).toEqual([0, 0]);
  });
});

function saying<Request, Response>(
  conversation: Talk<Request, Response>,
  request: Partial<Request>,
): Talk<Request, Response> {
  conversation.say(request);
  return conversation;
}
