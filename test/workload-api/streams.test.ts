import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { status } from "@grpc/grpc-js";
import { afterEach, describe, expect, it } from "vitest";
import { X509SVIDResponse } from "../../src/workload-api/generated/workload.js";
import { verifies } from "../requirements/verifies.js";
import { receive } from "./received.js";
import { identity, type RunningApi, type RunOptions, runApi, secure } from "./running-api.js";

let running: RunningApi | undefined;
afterEach(async () => {
  await running?.close();
  running = undefined;
});

async function start(options: RunOptions): Promise<RunningApi> {
  running = await runApi(options);
  return running;
}

const billing = identity("agents/billing");
const analyst = identity("agents/analyst");
const notOurs = identity("agents/analyst", { uid: 4_000_000_000 });

function names(message: X509SVIDResponse): string[] {
  return message.svids.map(({ spiffeId }) => spiffeId.replace("spiffe://shop.local/", ""));
}

function serialOf(message: X509SVIDResponse | undefined): string {
  return new X509Certificate(message?.svids[0]?.x509Svid ?? Buffer.alloc(0)).serialNumber.toLowerCase();
}

describe("a stream", () => {
  it(`${verifies("ST-1", "ST-2", "ST-3")} sends the whole state at once, and again after a rotation`, async () => {
    const { client, keeper } = await start({ identities: [billing, analyst] });
    const stream = receive(client().fetchX509Svid({}, secure()));
    const first = await stream.next();
    keeper.rotate(billing.id);
    const second = await stream.next();
    expect([names(first), names(second)]).toEqual([
      ["agents/billing", "agents/analyst"],
      ["agents/billing", "agents/analyst"],
    ]);
    expect(serialOf(second)).not.toBe(serialOf(first));
    expect(second.svids[1]?.x509Svid.equals(first.svids[1]?.x509Svid ?? Buffer.alloc(0))).toBe(true);
  });

  it(`${verifies("ST-3", "ST-5")} follows the configuration: an identity more, an identity less`, async () => {
    const { client, configure } = await start({ identities: [billing] });
    const stream = receive(client().fetchX509Svid({}, secure()));
    expect(names(await stream.next())).toEqual(["agents/billing"]);
    configure([analyst, billing]);
    expect(names(await stream.next())).toEqual(["agents/analyst", "agents/billing"]);
    configure([billing]);
    expect(names(await stream.next())).toEqual(["agents/billing"]);
  });

  it(`${verifies("ST-3", "ST-4")} says a new authority in one message: the new bundle with the new SVID`, async () => {
    const { client, authority, keeper } = await start({ identities: [billing] });
    const stream = receive(client().fetchX509Svid({}, secure()));
    const first = await stream.next();
    authority.rotate();
    await keeper.rotateAll();
    const second = await stream.next();
    const [svid] = second.svids;
    expect(svid?.bundle.length).toBeGreaterThan((first.svids[0]?.bundle.length ?? 0) * 1.5);
    expect(serialOf(second)).not.toBe(serialOf(first));
  });

  it(`${verifies("ST-6", "ST-7")} ends with PermissionDenied when the last identity goes`, async () => {
    const { client, configure } = await start({ identities: [billing, analyst] });
    const streams = [
      receive<unknown>(client().fetchX509Svid({}, secure())),
      receive<unknown>(client().fetchX509Bundles({}, secure())),
      receive<unknown>(client().fetchJwtBundles({}, secure())),
    ];
    for (const stream of streams) await stream.next();
    configure([billing]);
    await streams[0]?.next();
    configure([notOurs]);
    for (const stream of streams) expect((await stream.ended).code).toBe(status.PERMISSION_DENIED);
  });

  it(`${verifies("ST-9")} asks for the entitlement before each message`, async () => {
    let entitled = true;
    const { client, keeper } = await start({
      identities: [billing],
      change: (dependencies) => ({
        ...dependencies,
        registry: {
          entitlementsOf: (caller) =>
            entitled ? dependencies.registry.entitlementsOf(caller) : { granted: [], missed: [] },
          onChange: (listener) => dependencies.registry.onChange(listener),
        },
      }),
    });
    const stream = receive(client().fetchX509Svid({}, secure()));
    await stream.next();
    await keeper.rotateAll();
    await stream.next();
    entitled = false;
    await keeper.rotateAll();
    expect((await stream.ended).code).toBe(status.PERMISSION_DENIED);
  });

  it(`${verifies("ST-10", "ST-11")} of bundles stays open and says only what is new`, async () => {
    const { client, authority, keeper, configure } = await start({ identities: [billing] });
    const svids = receive(client().fetchX509Svid({}, secure()));
    const bundles = receive(client().fetchX509Bundles({}, secure()));
    const keys = receive(client().fetchJwtBundles({}, secure()));
    await Promise.all([svids.next(), bundles.next(), keys.next()]);
    // Changes of everything but the bundles; each reaches the SVID stream.
    await keeper.rotateAll();
    await svids.next();
    configure([billing, analyst]);
    await svids.next();
    expect([bundles.waiting, keys.waiting]).toEqual([0, 0]);
    authority.rotate();
    const [x509, jwt] = await Promise.all([bundles.next(), keys.next()]);
    expect(Object.keys(x509.bundles)).toEqual(["spiffe://shop.local"]);
    expect(JSON.parse(String(jwt.bundles["spiffe://shop.local"])).keys).toHaveLength(2);
  });

  it(`${verifies("EP-9")} is Unavailable while there is nothing to issue with`, async () => {
    let ready = false;
    const { client } = await start({
      identities: [billing],
      change: (dependencies) => ({
        ...dependencies,
        bundles: {
          ...dependencies.bundles,
          x509Bundle: (domain) => (ready ? dependencies.bundles.x509Bundle(domain) : undefined),
          onBundleChange: (listener) => dependencies.bundles.onBundleChange(listener),
        },
      }),
    });
    expect((await receive(client().fetchX509Svid({}, secure())).ended).code).toBe(status.UNAVAILABLE);
    expect((await receive(client().fetchX509Bundles({}, secure())).ended).code).toBe(status.UNAVAILABLE);
    ready = true;
    expect(names(await receive(client().fetchX509Svid({}, secure())).next())).toEqual(["agents/billing"]);
  });

  it("ends with Unavailable when the daemon stops", async () => {
    const { client, api, path } = await start({ identities: [billing] });
    const stream = receive(client().fetchX509Svid({}, secure()));
    await stream.next();
    await api.close();
    expect(await stream.ended).toMatchObject({ code: status.UNAVAILABLE, details: "agentid is stopping" });
    expect(readdirSync(path.slice(0, path.lastIndexOf("/")))).toEqual([]);
    expect(api.open).toEqual({ connections: 0, streams: 0 });
  });
});

describe("what a stream holds", () => {
  it(`${verifies("ST-8")} is released when 2,000 are cancelled, and when their clients disconnect`, async () => {
    let subscriptions = 0;
    const counted = (unsubscribe: () => void) => {
      subscriptions++;
      let over = false;
      return () => {
        if (!over) subscriptions--;
        over = true;
        unsubscribe();
      };
    };
    const { client, api } = await start({
      identities: [billing],
      change: (d) => ({
        ...d,
        registry: {
          entitlementsOf: (caller) => d.registry.entitlementsOf(caller),
          onChange: (listener) => counted(d.registry.onChange(listener)),
        },
        svids: {
          x509Svid: (id) => d.svids.x509Svid(id),
          onRotation: (id, listener) => counted(d.svids.onRotation(id, listener)),
        },
        bundles: {
          ...d.bundles,
          x509Bundle: (domain) => d.bundles.x509Bundle(domain),
          onBundleChange: (listener) => counted(d.bundles.onBundleChange(listener)),
        },
      }),
    });
    const descriptors = () => readdirSync("/proc/self/fd").length;
    const before = descriptors();

    const clients = Array.from({ length: 20 }, client);
    const streams = clients.flatMap((one) =>
      Array.from({ length: 100 }, () => receive(one.fetchX509Svid({}, secure()))),
    );
    await Promise.all(streams.map((stream) => stream.next()));
    expect(api.open).toEqual({ connections: 20, streams: 2000 });
    expect(subscriptions).toBe(3 * 2000);
    expect(descriptors()).toBeGreaterThan(before + 40);

    for (const stream of streams.slice(0, 1000)) stream.cancel();
    await expect.poll(() => api.open.streams, { timeout: 10_000 }).toBe(1000);
    expect(subscriptions).toBe(3 * 1000);

    for (const one of clients.slice(10)) one.getChannel().close();
    for (const stream of streams.slice(1000)) stream.cancel();
    for (const one of clients) one.close();
    await expect.poll(() => api.open, { timeout: 10_000 }).toEqual({ connections: 0, streams: 0 });
    expect(subscriptions).toBe(0);
    await expect.poll(descriptors, { timeout: 5_000 }).toBeLessThanOrEqual(before);
  });

  it(`${verifies("ST-2", "ST-4")} is one message for a client that does not read, and the newest when it does`, async () => {
    const many = Array.from({ length: 100 }, (_, index) => identity(`agents/agent-${index}`));
    const { path, keeper, record } = await start({ identities: many });
    const unread = await openUnread(path);
    const deliveries = () => record.entries.filter(({ kind }) => kind === "svid.delivered").length / many.length;
    const rotateOften = async () => {
      for (let round = 0; round < 30; round++) {
        await keeper.rotateAll();
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    // What fits into buffers and windows leaves; from then on nothing is made, however often the state changes.
    await rotateOften();
    const stalled = deliveries();
    expect(stalled).toBeLessThan(30);
    await rotateOften();
    expect(deliveries()).toBe(stalled);

    const newest = keeper.x509Svid(many[0]?.id ?? billing.id).serial;
    const messages = unread.messages();
    let last = await messages.next();
    while (serialOf(last.value) !== newest) last = await messages.next();
    expect(deliveries()).toBeLessThanOrEqual(stalled + 2);
    unread.close();
  });
});

/** A client that lets its HTTP/2 window fill up. (grpc-js's own reads on, and keeps what nobody takes.) */
async function openUnread(path: string) {
  const session = connectHttp2("http://localhost", { createConnection: () => connect(path) });
  const request = session.request({
    ":method": "POST",
    ":path": "/SpiffeWorkloadAPI/FetchX509SVID",
    "content-type": "application/grpc",
    te: "trailers",
    "workload.spiffe.io": "true",
  });
  // One empty message.
  request.end(Buffer.alloc(5));
  await once(request, "response");
  return {
    async *messages(): AsyncGenerator<X509SVIDResponse, undefined> {
      let buffer = Buffer.alloc(0);
      for await (const chunk of request) {
        buffer = Buffer.concat([buffer, chunk]);
        while (buffer.length >= 5 && buffer.length >= 5 + buffer.readUInt32BE(1)) {
          const end = 5 + buffer.readUInt32BE(1);
          yield X509SVIDResponse.decode(buffer.subarray(5, end));
          buffer = buffer.subarray(end);
        }
      }
      return undefined;
    },
    close: () => session.destroy(),
  };
}
