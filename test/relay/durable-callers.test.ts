import { once } from "node:events";
import { createServer, request as tlsRequest } from "node:https";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { secureContextOptions } from "../../src/http/mutual-tls.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { ask, codeOf, type DurableRelay, held, RULES, runDurableRelay } from "./durable-relay.js";
import { identity, shop, testAgent } from "./running-relay.js";

let relay: DurableRelay | undefined;

afterEach(async () => {
  await relay?.close();
  relay = undefined;
});

const identities = [testAgent, identity("agents/other"), identity("agents/lead")];

/** Asks the inbound leg itself, as `name`, launched by others. */
function askAs({ running }: DurableRelay, name: string, launchedBy: readonly string[], body = ""): Promise<string> {
  const { mtls } = running.relay.addressesOf("orders") ?? { mtls: { host: "", port: 0 } };
  const { cert, key } = secureContextOptions(running.keeper.x509Svid(SpiffeId.of(shop, name), launchedBy));
  return new Promise((resolve, reject) => {
    const asking = tlsRequest(
      {
        ...{ host: mtls.host, port: mtls.port, path: "/v1/orders", method: "POST", cert, key },
        rejectUnauthorized: false,
        agent: false,
        headers: { host: "orders", "idempotency-key": "k", "content-length": body.length },
      },
      (answer) => {
        answer.resume().on("end", () => {
          resolve(`${answer.statusCode} ${answer.headers["idempotency-replayed"] ?? "new"}`);
        });
      },
    );
    asking.on("error", reject).end(body);
  });
}

describe("a key is its caller's own", () => {
  it("who else gives it makes another call; neither sees the other's answer, or that there is one", async () => {
    relay = await runDurableRelay({
      identities,
      rules: RULES,
      answer: (request, response) => request.resume().on("end", () => response.end("done")),
    });
    const lead = SpiffeId.of(shop, "agents/lead").toString();
    const asked = [
      (await ask(relay.url, { key: "k" })).headers["idempotency-replayed"],
      await askAs(relay, "agents/other", []),
      // The same agent on behalf of somebody else.
      await askAs(relay, "agents/other", [lead]),
      await askAs(relay, "agents/lead", [], "another body"),
    ];
    expect(asked).toEqual([undefined, "200 new", "200 new", "200 new"]);
    expect(relay.orders.arrived).toHaveLength(4);
    const again = [
      (await ask(relay.url, { key: "k" })).headers["idempotency-replayed"],
      await askAs(relay, "agents/other", []),
      await askAs(relay, "agents/other", [lead]),
      await askAs(relay, "agents/lead", [], "another body"),
    ];
    expect(again).toEqual(["true", "200 true", "200 true", "200 true"]);
    expect(relay.orders.arrived).toHaveLength(4);
  });

  it("one caller with many calls under way is told to wait; another is not", async () => {
    const service = held();
    relay = await runDurableRelay({ identities, rules: RULES, answer: service.listener });
    const { url } = relay;
    const many = Array.from({ length: 64 }, (_, index) => ask(url, { key: `k${index}` }));
    await service.at(63);
    const refused = await ask(url, { key: "one-more" });
    expect([refused.status, codeOf(refused), refused.headers["retry-after"]]).toEqual([503, "durable-busy", "1"]);
    const other = askAs(relay, "agents/other", []);
    for (const index of Array.from({ length: 65 }, (_, index) => index)) (await service.at(index)).response.end("done");
    expect(await other).toBe("200 new");
    expect(new Set((await Promise.all(many)).map(({ status }) => status))).toEqual(new Set([200]));
    const free = ask(url, { key: "one-more" });
    (await service.at(65)).response.end("done");
    expect((await free).status).toBe(200);
  });
});

it("a service that speaks mutual TLS itself is called once too: the outbound leg decides", async () => {
  let calls = 0;
  const server = createServer({ requestCert: true, rejectUnauthorized: false }, (request, response) => {
    calls += 1;
    request.resume().on("end", () => response.end("done"));
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  try {
    const { port } = server.address() as AddressInfo;
    relay = await runDurableRelay({
      answer: (_request, response) => void response.end(),
      service: { upstream: { kind: "mtls", host: "127.0.0.1", port } },
    });
    server.setSecureContext(secureContextOptions(relay.running.svidOf("services/orders")));
    expect(await ask(relay.url, { key: "k", body: "1" })).toMatchObject({ status: 200, body: "done" });
    expect((await ask(relay.url, { key: "k", body: "1" })).headers["idempotency-replayed"]).toBe("true");
    expect((await ask(relay.url, { key: "k", body: "2" })).status).toBe(422);
    expect(calls).toBe(1);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
