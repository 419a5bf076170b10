import { type ServiceError, status } from "@grpc/grpc-js";
import { afterEach, describe, expect, it } from "vitest";
import { createX509Authority } from "../../src/identity/x509-authority.js";
import { TrustDomain } from "../../src/spiffe/spiffe-id.js";
import type {
  DiscoveryRequest,
  DiscoveryResponse,
} from "../../src/workload-api/generated/envoy/service/discovery/v3/discovery.js";
import { verifies } from "../requirements/verifies.js";
import { identity, type RunningApi, type RunOptions, runApi, trustDomain } from "./running-api.js";
import {
  envoy,
  leafOf,
  namesIn,
  rootsOf,
  SECRET_TYPE,
  sdsClient,
  secretsIn,
  talk,
  trustDomainsOf,
} from "./sds-conversation.js";

let running: RunningApi | undefined;
const clients: ReturnType<typeof sdsClient>[] = [];
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await running?.close();
  running = undefined;
});

const billing = identity("agents/billing");
const analyst = identity("agents/analyst");
const somebodyElse = identity("agents/somebody-else", { uid: 4_000_000_000 });
const billingId = billing.id.toString();
const analystId = analyst.id.toString();

const partner = TrustDomain.parse("partner.example");
const empty = TrustDomain.parse("empty.example");
const partnerRoot = createX509Authority({ trustDomain: partner, lifetimeSeconds: 3600, now: Date.now() }).certificate;

/** With a federated trust domain, and one that has a bundle without roots. */
const federated: NonNullable<RunOptions["change"]> = (d) => ({
  ...d,
  bundles: {
    ...d.bundles,
    x509Bundle(wanted) {
      if (wanted.equals(partner)) return { trustDomain: partner, authorities: [partnerRoot] };
      if (wanted.equals(empty)) return { trustDomain: empty, authorities: [] };
      return d.bundles.x509Bundle(wanted);
    },
  },
  jwtBundles: {
    trustDomains: [trustDomain, partner, empty],
    refusalOfToken: () => undefined,
    jwtBundle: (wanted) => d.jwtBundles.jwtBundle(wanted),
    onBundleChange: (listener) => d.jwtBundles.onBundleChange(listener),
  },
});

async function start(options: Partial<RunOptions> = {}) {
  running = await runApi({ identities: [billing, analyst, somebodyElse], change: federated, ...options });
  const client = sdsClient(running);
  clients.push(client);
  return { api: running, client };
}

type Outcome = { response: DiscoveryResponse | undefined; code: status; details: string };

function fetch(client: ReturnType<typeof sdsClient>, request: Partial<DiscoveryRequest>): Promise<Outcome> {
  const nothing = { versionInfo: "", node: undefined, resourceNames: [], typeUrl: SECRET_TYPE };
  return new Promise((resolve) => {
    client.fetchSecrets(
      { ...nothing, responseNonce: "", errorDetail: undefined, ...request },
      (error: ServiceError | null, response) =>
        resolve({ response, code: error?.code ?? status.OK, details: error?.details ?? "" }),
    );
  });
}

/** A call on the same connection as the streams: what was said or changed before it has been dealt with, and answered if it is to be. */
async function barrier(client: ReturnType<typeof sdsClient>): Promise<void> {
  expect((await fetch(client, { resourceNames: ["default"] })).code).toBe(status.OK);
}

async function fetched(client: ReturnType<typeof sdsClient>, request: Partial<DiscoveryRequest>) {
  const { response, details } = await fetch(client, request);
  if (response === undefined) throw new Error(details);
  return secretsIn(response);
}

describe("the names of SDS", () => {
  it("give certificates that verify with the roots, without the security header", async () => {
    const { client } = await start();
    const secrets = await fetched(client, {
      resourceNames: [analystId, "default", "ROOTCA", `spiffe://${trustDomain}`],
    });
    expect([...secrets.keys()]).toEqual([analystId, "default", "ROOTCA", "spiffe://shop.local"]);
    for (const [name, id] of [
      [analystId, analystId],
      ["default", billingId],
    ] as const) {
      const leaf = leafOf(secrets.get(name));
      expect(leaf.subjectAltName).toBe(`URI:${id}`);
      for (const bundle of ["ROOTCA", "spiffe://shop.local"]) {
        const [root] = rootsOf(secrets.get(bundle));
        expect(root !== undefined && leaf.checkIssued(root) && leaf.verify(root.publicKey)).toBe(true);
      }
    }
  });

  it("give everything to a client that names nothing: identities, default first, then bundles, none of them empty", async () => {
    const { client } = await start();
    const secrets = await fetched(client, {});
    expect([...secrets.keys()]).toEqual([billingId, analystId, "spiffe://shop.local", "spiffe://partner.example"]);
  });

  it("give each trust domain its own bundle, never merged", async () => {
    const { client } = await start();
    const resourceNames = ["ROOTCA", "spiffe://partner.example", "ALL"];
    const secrets = await fetched(client, { node: envoy(1, 18), resourceNames });
    const domains = (name: string) => [...trustDomainsOf(secrets.get(name)).keys()];
    expect(resourceNames.map(domains)).toEqual([
      ["shop.local"],
      ["partner.example"],
      ["shop.local", "partner.example"],
    ]);
    const all = trustDomainsOf(secrets.get("ALL"));
    expect(all.get("partner.example")?.map(({ raw }) => raw.equals(partnerRoot))).toEqual([true]);
    expect(all.get("shop.local")?.map(({ raw }) => raw.equals(partnerRoot))).toEqual([false]);
  });

  it("give the bundles of trust domains that the caller's identities federate with, and no other", async () => {
    const withPartner = async (federatesWith: readonly string[]) => {
      const { client, api } = await start({ identities: [{ ...billing, federatesWith }] });
      const [all, together] = [
        await fetched(client, {}),
        await fetched(client, { node: envoy(1, 18), resourceNames: ["ALL"] }),
      ];
      const named = await fetch(client, { resourceNames: ["spiffe://partner.example"] });
      await api.close();
      return [[...all.keys()], [...trustDomainsOf(together.get("ALL")).keys()], named.code];
    };
    const own = [billingId, "spiffe://shop.local"];
    expect(await withPartner([])).toEqual([own, ["shop.local"], status.INVALID_ARGUMENT]);
    expect(await withPartner(["partner.example"])).toEqual([
      [...own, "spiffe://partner.example"],
      ["shop.local", "partner.example"],
      status.OK,
    ]);
  });

  it("give plain roots to a client without the SPIFFE validator, and `ALL` only with it", async () => {
    const { client } = await start();
    const without = [
      undefined,
      envoy(1, 17),
      envoy(1, 40, { disable_spiffe_cert_validation: true }),
      envoy(1, 40, { disable_spiffe_cert_validation: "true" }),
    ];
    for (const node of without) {
      expect(rootsOf((await fetched(client, { node, resourceNames: ["ROOTCA"] })).get("ROOTCA"))).toHaveLength(1);
      const refused = await fetch(client, { node, resourceNames: ["ALL"] });
      expect([refused.code, refused.details]).toEqual([status.INVALID_ARGUMENT, expect.stringContaining("1.18")]);
    }
    for (const node of [
      envoy(1, 18),
      envoy(2, 0),
      envoy(1, 40, { disable_spiffe_cert_validation: false, other: "true" }),
    ]) {
      expect(trustDomainsOf((await fetched(client, { node, resourceNames: ["ALL"] })).get("ALL")).size).toBe(2);
    }
  });

  it("of somebody else, or unknown, are refused as in SPIRE; a caller without identity gets no bundle either", async () => {
    const { api, client } = await start();
    const others = ["spiffe://shop.local/agents/somebody-else", "nonsense", "spiffe://empty.example"];
    const { code, details } = await fetch(client, { resourceNames: ["default", ...others] });
    expect(code).toBe(status.INVALID_ARGUMENT);
    expect(details).toBe(
      'workload is not authorized for the requested identities ["nonsense" "spiffe://empty.example" "spiffe://shop.local/agents/somebody-else"]',
    );
    expect((await fetch(client, { resourceNames: ["default"] })).code).toBe(status.OK);
    expect(api.record.entries.filter(({ kind }) => kind === "svid.refused")).toHaveLength(1);
    api.configure([somebodyElse]);
    for (const resourceNames of [[], ["ROOTCA"], ["default"]]) {
      const stream = talk(client);
      stream.say({ resourceNames });
      const codes = [(await fetch(client, { resourceNames })).code, (await stream.ended).code];
      expect(codes).toEqual([status.PERMISSION_DENIED, status.PERMISSION_DENIED]);
    }
  });

  it("are of one type", async () => {
    const { client } = await start();
    const cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    expect((await fetch(client, { typeUrl: cluster })).code).toBe(status.INVALID_ARGUMENT);
    expect((await fetch(client, { typeUrl: "" })).response?.typeUrl).toBe(SECRET_TYPE);
    const stream = talk(client);
    stream.say({ typeUrl: cluster });
    expect((await stream.ended).code).toBe(status.INVALID_ARGUMENT);
  });
});

describe("StreamSecrets", () => {
  it(`${verifies("ST-1", "ST-3")} answers at once and pushes on rotation of what was asked for, with new version and nonce`, async () => {
    const { api, client } = await start();
    const stream = talk(client);
    stream.say({ resourceNames: ["default"] });
    const first = await stream.next();
    api.keeper.rotate(billing.id);
    const second = await stream.next();
    stream.cancel();
    expect(leafOf(secretsIn(second).get("default")).serialNumber).not.toBe(
      leafOf(secretsIn(first).get("default")).serialNumber,
    );
    expect(second.versionInfo).not.toBe(first.versionInfo);
    expect(second.nonce).not.toBe(first.nonce);
    expect([first.nonce, second.nonce]).toEqual([expect.stringMatching(/^[0-9a-f]{16}$/), expect.any(String)]);
  });

  it("pushes a bundle when it changes, and nothing for the rotation of what was not asked for", async () => {
    const { api, client } = await start();
    const stream = talk(client);
    stream.say({ node: envoy(1, 40), resourceNames: ["ROOTCA"] });
    const before = trustDomainsOf(secretsIn(await stream.next()).get("ROOTCA"));
    await api.keeper.rotateAll();
    api.authority.rotate();
    const after = trustDomainsOf(secretsIn(await stream.next()).get("ROOTCA"));
    stream.cancel();
    expect([before.get("shop.local")?.length, after.get("shop.local")?.length]).toEqual([1, 2]);
    expect(stream.waiting).toBe(0);
  });

  it("says nothing to an ACK, and answers a change of the names", async () => {
    const { client } = await start();
    const stream = talk(client);
    stream.say({ resourceNames: ["default"] });
    const { nonce: responseNonce, versionInfo } = await stream.next();
    stream.say({ resourceNames: ["default"], responseNonce, versionInfo });
    await barrier(client);
    expect(stream.waiting).toBe(0);
    stream.say({ resourceNames: ["default", "ROOTCA"], responseNonce, versionInfo });
    expect(namesIn(await stream.next())).toEqual(["default", "ROOTCA"]);
    expect(stream.waiting).toBe(0);
    stream.cancel();
  });

  it("sends what was refused (NACK) not again, tells people why, and sends the next version", async () => {
    const { api, client } = await start();
    const stream = talk(client);
    stream.say({ resourceNames: ["default"] });
    const refused = await stream.next();
    const nack = {
      resourceNames: ["default"],
      responseNonce: refused.nonce,
      errorDetail: { code: 13, message: "no such curve", details: [] },
    };
    stream.say(nack);
    stream.say(nack);
    await barrier(client);
    // A change that is none for this client, and then one that is.
    api.configure([billing, somebodyElse]);
    await barrier(client);
    expect(stream.waiting).toBe(0);
    api.keeper.rotate(billing.id);
    const next = await stream.next();
    stream.cancel();
    expect(next.versionInfo).not.toBe(refused.versionInfo);
    expect(stream.waiting).toBe(0);
    expect(api.rejected).toEqual([
      { pid: process.pid, uid: process.getuid?.(), reason: "the secret was refused (code 13): no such curve" },
    ]);
  });

  it("takes a NACK that names something else for both", async () => {
    const { client } = await start();
    const stream = talk(client);
    stream.say({ resourceNames: ["default"] });
    const { nonce: responseNonce } = await stream.next();
    const errorDetail = { code: 3, message: "no", details: [] };
    stream.say({ resourceNames: ["ROOTCA"], responseNonce, errorDetail });
    expect(namesIn(await stream.next())).toEqual(["ROOTCA"]);
    stream.cancel();
  });

  it("ignores what is said of an answer that was overtaken", async () => {
    const { api, client } = await start();
    const stream = talk(client);
    stream.say({ resourceNames: ["default"] });
    const first = await stream.next();
    api.keeper.rotate(billing.id);
    const second = await stream.next();
    stream.say({ resourceNames: ["nonsense"], responseNonce: first.nonce });
    await barrier(client);
    stream.say({ resourceNames: ["ROOTCA"], responseNonce: second.nonce });
    expect(namesIn(await stream.next())).toEqual(["ROOTCA"]);
    // The control: said of the newest answer, it counts.
    const last = talk(client);
    last.say({ resourceNames: ["default"] });
    last.say({ resourceNames: ["nonsense"], responseNonce: (await last.next()).nonce });
    expect((await last.ended).code).toBe(status.INVALID_ARGUMENT);
    stream.cancel();
  });

  it("gives everything to whom never named anything, and nothing to whom names nothing any more, until it names again", async () => {
    const { client } = await start();
    const all = talk(client);
    all.say({});
    expect(namesIn(await all.next())).toHaveLength(4);
    all.cancel();
    const stream = talk(client);
    stream.say({ resourceNames: ["default"] });
    const { nonce: responseNonce } = await stream.next();
    stream.say({ responseNonce });
    await barrier(client);
    expect(stream.waiting).toBe(0);
    stream.say({ resourceNames: ["default"], responseNonce });
    expect(namesIn(await stream.next())).toEqual(["default"]);
    expect(stream.waiting).toBe(0);
    stream.cancel();
  });

  it(`${verifies("ST-9", "ST-5")} checks before each answer what follows for the caller`, async () => {
    const { api, client } = await start();
    const all = talk(client);
    all.say({});
    await all.next();
    const named = talk(client);
    named.say({ resourceNames: [billingId] });
    await named.next();
    api.configure([analyst]);
    expect(namesIn(await all.next())).toEqual([analystId, "spiffe://shop.local", "spiffe://partner.example"]);
    expect((await named.ended).code).toBe(status.INVALID_ARGUMENT);
    api.configure([somebodyElse]);
    expect((await all.ended).code).toBe(status.PERMISSION_DENIED);
    expect(api.api.open.streams).toBe(0);
  });

  it("records each certificate before it leaves, by its serial, and gives none that it cannot record", async () => {
    const { api, client } = await start();
    const stream = talk(client);
    stream.say({ resourceNames: ["default", "ROOTCA"] });
    const leaf = leafOf(secretsIn(await stream.next()).get("default"));
    stream.cancel();
    const delivered = api.record.entries.filter(({ kind }) => kind === "svid.delivered");
    expect(delivered.map(({ fields }) => fields)).toMatchObject([
      {
        type: "x509",
        spiffeId: billingId,
        secret: "default",
        serial: leaf.serialNumber.toLowerCase(),
        pid: process.pid,
      },
    ]);
    api.record.writable = false;
    expect((await fetch(client, { resourceNames: ["default"] })).code).toBe(status.UNAVAILABLE);
    api.record.writable = true;
    expect((await fetch(client, { resourceNames: ["default"] })).code).toBe(status.OK);
  });

  it(`${verifies("ST-8")} holds nothing for a client that left, ended or sent nonsense`, async () => {
    const { api, client } = await start();
    const ended = talk(client);
    ended.say({ resourceNames: ["default"] });
    await ended.next();
    ended.end();
    expect((await ended.ended).code).toBe(status.OK);
    const left = talk(client);
    left.say({ resourceNames: ["default"] });
    await left.next();
    left.cancel();
    await left.ended;
    const silent = talk(client);
    silent.end();
    expect((await silent.ended).code).toBe(status.OK);
    const path = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
    const asIs = (bytes: Buffer) => bytes;
    const raw = client.makeBidiStreamRequest(path, asIs, asIs);
    const code = new Promise((resolve) => raw.once("error", (error: ServiceError) => resolve(error.code)));
    raw.write(Buffer.from([0x0a, 0xff]));
    expect(await code).toBe(status.INTERNAL);
    await barrier(client);
    expect(api.api.open.streams).toBe(0);
    await api.keeper.rotateAll();
    api.authority.rotate();
  });

  it("ends with Unavailable when the daemon stops", async () => {
    const { api, client } = await start();
    const stream = talk(client);
    stream.say({ resourceNames: ["default"] });
    await stream.next();
    const quiet = talk(client);
    await fetch(client, {});
    await api.close();
    running = undefined;
    expect([(await stream.ended).code, (await quiet.ended).code]).toEqual([status.UNAVAILABLE, status.UNAVAILABLE]);
  });
});
