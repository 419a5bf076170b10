import { once } from "node:events";
import { writeFileSync } from "node:fs";
import type { RequestListener } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import type { FederationRelationship } from "../../src/config/config.js";
import { refreshSeconds } from "../../src/federation/bundle-poll.js";
import { readFirstBundles } from "../../src/federation/first-bundle.js";
import { createRelationships, type Relationships } from "../../src/federation/relationships.js";
import { svidCertificate } from "../../src/federation/server-certificate.js";
import { type SpiffeBundle, serialiseSpiffeBundle } from "../../src/spiffe/spiffe-bundle.js";
import { createTestClock } from "../identity/test-trust-domain.js";
import { verifies } from "../requirements/verifies.js";
import { codeOf, createTrustDomain, type TestTrustDomain, temporaryFolder } from "./trust-domain.js";

/** shop.local, which follows other.local; both on one clock that the test moves. */
async function federated() {
  const clock = createTestClock(Date.now());
  const shop = createTrustDomain("shop.local", { clock });
  const other = createTrustDomain("other.local", { clock });
  /** What the endpoint of other.local does; by default it publishes. */
  const publish: RequestListener = (_request, response) =>
    response.end(serialiseSpiffeBundle(other.published.current()));
  const endpoint = { answer: publish, asked: 0 };
  const server = createServer((request, response) => {
    endpoint.asked += 1;
    endpoint.answer(request, response);
  });
  const certificate = svidCertificate(other.keeper, other.endpointId);
  server.setSecureContext(certificate.current());
  certificate.onChange((next) => server.setSecureContext(next));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const problems: string[] = [];
  const relationships = createRelationships({
    foreign: shop.foreign,
    ownAuthorities: (trustDomain) =>
      trustDomain.equals(shop.trustDomain) ? shop.authority.x509Authorities : undefined,
    ...{ clock, audit: shop.audit },
    onProblem: (trustDomain, message, resolved) =>
      problems.push(`${resolved ? "over" : "new"} ${trustDomain}: ${message.replace(/:\d+/, "")}`),
  });
  onTestFinished(() => relationships.close());
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const relationship = await relationshipWith(other, url);
  return { clock, shop, other, endpoint, publish, problems, relationships, relationship, url, server };
}

async function relationshipWith(other: TestTrustDomain, url: string, changes: { text?: string; folder?: string } = {}) {
  const bundleFile = join(changes.folder ?? temporaryFolder(), "other.json");
  writeFileSync(bundleFile, changes.text ?? serialiseSpiffeBundle(other.published.current()));
  const written: FederationRelationship = {
    trustDomain: other.trustDomain,
    url,
    spiffe: { endpointId: other.endpointId, bundleFile },
  };
  const [known] = await readFirstBundles([written]);
  if (known === undefined) throw new Error("no relationship");
  return known;
}

/** Waits for the fetch that runs, or makes one. */
async function fetched(relationships: Relationships): Promise<string> {
  const [one] = await relationships.refresh();
  return one?.result.outcome === "failed" ? one.result.code : (one?.result.outcome ?? "none");
}

describe("a followed trust domain", () => {
  it(`${verifies("TB-3", "FD-5")} is trusted by its first bundle at once, and asked again at its refresh hint`, async () => {
    const { clock, shop, other, endpoint, relationships, relationship } = await federated();
    relationships.follow([relationship]);
    expect(shop.foreign.find(other.trustDomain)?.bundle).toEqual(relationship.firstBundle);
    expect(await fetched(relationships)).toBe("unchanged");
    expect(endpoint.asked).toBe(1);
    other.authority.prepare();
    clock.advance(299_000);
    expect(relationships.all[0]?.poll.state).toBe("waiting");
    clock.advance(1_000);
    expect(relationships.all[0]?.poll.state).toBe("fetching");
    expect(await fetched(relationships)).toBe("changed");
    expect(endpoint.asked).toBe(2);
    expect(shop.foreign.find(other.trustDomain)?.bundle).toEqual(other.published.current());
    expect(shop.foreign.find(other.trustDomain)?.bundle.x509Authorities).toHaveLength(2);
  });

  it(`${verifies("TB-3")} is asked no more often than every 10 s and no less often than every day`, () => {
    const hints = [undefined, 0, 1, 10, 11, 300, 86_400, 86_401, 999_999_999].map(refreshSeconds);
    expect(hints).toEqual([300, 10, 10, 10, 11, 300, 86_400, 86_400, 86_400]);
  });

  it(`${verifies("FD-8")} stays trusted while its endpoint is away, is asked at each interval, and the problem ends when it is back`, async () => {
    const { clock, shop, other, endpoint, publish, problems, relationships, relationship } = await federated();
    relationships.follow([relationship]);
    await fetched(relationships);
    endpoint.answer = (request) => request.socket.destroy();
    for (const asked of [2, 3, 4]) {
      clock.advance(300_000);
      expect(await fetched(relationships)).toBe("endpoint-unreachable");
      expect(endpoint.asked).toBe(asked);
      expect(shop.bundles.x509Bundle(other.trustDomain)?.authorities).toHaveLength(1);
    }
    endpoint.answer = publish;
    clock.advance(300_000);
    expect(await fetched(relationships)).toBe("unchanged");
    expect(problems).toEqual([
      "new other.local: https://127.0.0.1/: socket hang up",
      "over other.local: https://127.0.0.1/: socket hang up",
    ]);
  });

  it("is asked at once after a suspend that went past the interval", async () => {
    const { clock, endpoint, relationships, relationship } = await federated();
    relationships.follow([relationship]);
    await fetched(relationships);
    clock.jump(3_600_000);
    clock.advance(5_000);
    expect(relationships.all[0]?.poll.state).toBe("fetching");
    await fetched(relationships);
    expect(endpoint.asked).toBe(2);
  });

  it(`${verifies("TB-1")} that empties its bundle is trusted no more, and its first bundle does not bring it back`, async () => {
    const { clock, shop, other, endpoint, publish, relationships, relationship } = await federated();
    relationships.follow([relationship]);
    await fetched(relationships);
    endpoint.answer = (_request, response) => response.end('{"keys":[],"spiffe_sequence":18446744073709551615}');
    clock.advance(300_000);
    expect(await fetched(relationships)).toBe("changed");
    expect(shop.bundles.x509Bundle(other.trustDomain)).toBeUndefined();
    endpoint.answer = publish;
    expect(await fetched(relationships)).toBe("endpoint-untrusted");
    expect(shop.bundles.x509Bundle(other.trustDomain)).toBeUndefined();
    expect(relationships.all[0]?.poll.failure?.code).toBe("endpoint-untrusted");
  });

  it(`${verifies("TB-2")} that serves an older bundle, or one with another's authorities, keeps the one at hand; the attempt is on record`, async () => {
    const { shop, other, endpoint, publish, relationships, relationship } = await federated();
    relationships.follow([relationship]);
    await fetched(relationships);
    const held = shop.foreign.find(other.trustDomain)?.bundle;
    const serve = (change: Partial<SpiffeBundle>) => {
      endpoint.answer = (_request, response) =>
        response.end(serialiseSpiffeBundle({ ...other.published.current(), ...change }));
      return fetched(relationships);
    };
    expect(await serve({ sequence: (held?.sequence ?? 0n) - 1n, jwtKeys: [] })).toBe("bundle-sequence-lower");
    expect(await serve({ x509Authorities: shop.authority.x509Authorities })).toBe("bundle-trust-domain");
    expect(shop.foreign.find(other.trustDomain)?.bundle).toEqual(held);
    const kinds = (await shop.audit.read(0, 100)).map(({ kind }) => kind);
    expect(kinds.filter((kind) => kind === "bundle.refused")).toHaveLength(2);
    expect(await serve({ sequence: (held?.sequence ?? 0n) + 1n, jwtKeys: [] })).toBe("changed");
    // The administrator's word stands above what was counted.
    const source = { kind: "command" } as const;
    shop.foreign.put({ trustDomain: other.trustDomain, bundle: held as SpiffeBundle, source, receivedAt: new Date() });
    endpoint.answer = publish;
    expect(await fetched(relationships)).toBe("unchanged");
  });

  it("that is no longer named loses the trust that came of it, and nothing that was on its way comes after", async () => {
    const { shop, other, endpoint, publish, relationships, relationship } = await federated();
    relationships.follow([relationship]);
    await fetched(relationships);
    let answer = () => {};
    const arrived = new Promise<void>((resolve) => {
      endpoint.answer = (request, response) => {
        answer = () => publish(request, response);
        resolve();
      };
    });
    const late = relationships.refresh();
    await arrived;
    relationships.follow([]);
    expect(shop.bundles.x509Bundle(other.trustDomain)).toBeUndefined();
    answer();
    expect((await late)[0]?.result.outcome).toBe("failed");
    expect(shop.bundles.x509Bundle(other.trustDomain)).toBeUndefined();
    expect(await codeOf(() => relationships.refresh(other.trustDomain))).toBe("federation-unknown");
  });

  it("under another address or first bundle is begun anew; a bundle set by command stays", async () => {
    const { shop, other, relationships, relationship, url } = await federated();
    const third = createTrustDomain("third.local");
    const source = { kind: "command" } as const;
    const bundle = third.published.current();
    shop.foreign.put({ trustDomain: third.trustDomain, bundle, source, receivedAt: new Date() });
    relationships.follow([relationship]);
    await fetched(relationships);
    other.authority.prepare();
    await fetched(relationships);
    const folder = temporaryFolder();
    const text = serialiseSpiffeBundle(relationship.firstBundle as SpiffeBundle);
    const moved = await relationshipWith(other, `${url}?`, { text, folder });
    relationships.follow([moved]);
    expect(shop.foreign.find(other.trustDomain)?.bundle).toEqual(relationship.firstBundle);
    expect(await fetched(relationships)).toBe("changed");
    const sameAgain = await relationshipWith(other, `${url}?`, { text, folder });
    relationships.follow([sameAgain]);
    expect(shop.foreign.find(other.trustDomain)?.bundle).toEqual(other.published.current());
    relationships.follow([]);
    expect(shop.foreign.all.map(({ trustDomain }) => trustDomain.name)).toEqual(["third.local"]);
  });
});

describe("an endpoint of another trust domain than the one it serves", () => {
  it(`${verifies("FD-4")} is authenticated with the bundle of its own, the first one or the one followed`, async () => {
    const { shop, other, relationships, endpoint, url } = await federated();
    const served = createTrustDomain("served.local");
    endpoint.answer = (_request, response) => response.end(serialiseSpiffeBundle(served.published.current()));
    const base = await relationshipWith(other, url);
    relationships.follow([{ ...base, trustDomain: served.trustDomain }]);
    // Its first bundle says who the endpoint is, and nothing of the trust domain that it serves.
    expect(shop.foreign.all).toEqual([]);
    expect(await fetched(relationships)).toBe("changed");
    expect(shop.foreign.all.map(({ trustDomain }) => trustDomain.name)).toEqual(["served.local"]);
    // Once that trust domain's own bundle is known, it counts instead.
    const impostor = createTrustDomain("other.local");
    const source = { kind: "command" } as const;
    const bundle = impostor.published.current();
    shop.foreign.put({ trustDomain: other.trustDomain, bundle, source, receivedAt: new Date() });
    expect(await fetched(relationships)).toBe("endpoint-untrusted");
  });
});

describe("the file of the first bundle", () => {
  it("must be there, be a bundle of that trust domain, and hold an authority", async () => {
    const other = createTrustDomain("other.local");
    const third = createTrustDomain("third.local");
    const load = (text: string) => codeOf(() => relationshipWith(other, "https://127.0.0.1/", { text }));
    expect(await load(serialiseSpiffeBundle(other.published.current()))).toBe("accepted");
    for (const text of ["", "{}", '{"keys":[]}', serialiseSpiffeBundle(third.published.current())]) {
      expect(await load(text), text).toBe("config-invalid");
    }
    const missing: FederationRelationship = {
      trustDomain: other.trustDomain,
      url: "https://127.0.0.1/",
      spiffe: { endpointId: other.endpointId, bundleFile: "/nowhere/other.json" },
    };
    expect(await codeOf(() => readFirstBundles([missing]))).toBe("config-invalid");
  });
});
