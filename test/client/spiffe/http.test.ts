import { once } from "node:events";
import type { Server } from "node:net";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  anyId,
  createDispatcher,
  createHttpsServer,
  createSpiffeFetch,
  memberOf,
  oneOf,
  peerOf,
  type SpiffeFetch,
  type TlsServerOptions,
  type X509Svid,
} from "../../../src/client/spiffe/index.js";
import { codeOf } from "../../../src/coded-error.js";
import { HOUR, makeAuthority, type TestCertificate } from "../../spiffe/test-certificates.js";
import { BILLING, identityOf, issue, listening, PLANNER } from "./identities.js";

/** These run by the machine's clock, as undici does. */
const long = { notBefore: -40_000 * HOUR, notAfter: 40_000 * HOUR };
let shop: TestCertificate;
let billing: X509Svid;
let planner: X509Svid;
const servers: Server[] = [];
const fetches: SpiffeFetch[] = [];

beforeAll(async () => {
  shop = await makeAuthority(long);
  billing = await issue(shop, BILLING, long);
  planner = await issue(shop, PLANNER, long);
});
afterEach(async () => {
  for (const one of fetches.splice(0)) await one.close();
  for (const server of servers.splice(0)) server.close();
});

function client(authorize = oneOf(BILLING), svid = planner) {
  const identity = identityOf(svid, { "shop.local": [shop] });
  const fetch = createSpiffeFetch(identity, authorize);
  fetches.push(fetch);
  return { identity, fetch };
}

async function serve(more: Partial<TlsServerOptions> = {}): Promise<{ url: string; asked: string[] }> {
  const asked: string[] = [];
  const identity = identityOf(billing, { "shop.local": [shop] });
  const server = createHttpsServer(identity, { authorize: memberOf("shop.local"), ...more }, (request, response) => {
    const peer = peerOf(request.socket);
    asked.push(`${peer?.id} ${request.url}`);
    request.resume().on("end", () => response.end(`hello ${peer?.id}`));
  });
  servers.push(server);
  return { url: `https://127.0.0.1:${await listening(server)}`, asked };
}

describe("fetch between workloads", () => {
  it("reaches the wanted workload, which knows who asks", async () => {
    const { url, asked } = await serve();
    const { fetch } = client();
    const answer = await fetch(`${url}/a`, { method: "POST", body: "data" });
    expect([answer.status, await answer.text()]).toEqual([200, `hello ${PLANNER}`]);
    expect(asked).toEqual([`${PLANNER} /a`]);
  });

  it("sends nothing to a workload that is not the wanted one", async () => {
    const { url, asked } = await serve();
    const refusal = client(oneOf("spiffe://shop.local/other")).fetch(`${url}/a`);
    const reason = await refusal.then(
      () => "answered",
      (thrown: Error) => codeOf(thrown.cause),
    );
    expect([reason, asked]).toEqual(["peer-unauthorized", []]);
    expect((await client().fetch(`${url}/b`)).status).toBe(200);
  });

  it("is not served to a workload that may not ask", async () => {
    const refused: string[] = [];
    const onRefused = (reason: Error) => refused.push(codeOf(reason));
    const { url, asked } = await serve({ authorize: oneOf("spiffe://shop.local/other"), onRefused });
    await expect(client().fetch(`${url}/a`)).rejects.toThrow();
    expect([refused, asked]).toEqual([["peer-unauthorized"], []]);
    const open = await serve({ authorize: oneOf(PLANNER) });
    expect((await client().fetch(open.url)).status).toBe(200);
  });

  it("never goes without TLS", async () => {
    const { url } = await serve();
    const refusal = client(anyId()).fetch(url.replace("https:", "http:"));
    expect(await refusal.catch((thrown: Error) => codeOf(thrown.cause))).toBe("spiffe-https-only");
  });

  it("goes on through a rotation: running requests end on the old SVID, new ones present the new", async () => {
    let answer: () => void = () => {};
    const serials: string[] = [];
    const identity = identityOf(billing, { "shop.local": [shop] });
    let arrived: () => void = () => {};
    const waiting = new Promise<void>((resolve) => {
      arrived = resolve;
    });
    const server = createHttpsServer(identity, { authorize: anyId() }, (request, response) => {
      const [leaf] = peerOf(request.socket)?.certificates ?? [];
      serials.push(leaf?.equals(planner.certificates[0] ?? Buffer.alloc(0)) === true ? "old" : "new");
      if (request.url === "/slow") {
        answer = () => response.end("slow");
        arrived();
      } else response.end("quick");
    });
    servers.push(server);
    const url = `https://127.0.0.1:${await listening(server)}`;
    const { fetch, identity: own } = client();
    const slow = fetch(`${url}/slow`);
    await waiting;
    own.present(await issue(shop, PLANNER, long));
    expect(await (await fetch(`${url}/quick`)).text()).toBe("quick");
    answer();
    expect(await (await slow).text()).toBe("slow");
    expect(serials).toEqual(["old", "new"]);
  });

  it("leaves no subscription and no connection behind", async () => {
    const { url } = await serve();
    const identity = identityOf(planner, { "shop.local": [shop] });
    const dispatcher = createDispatcher(identity, oneOf(BILLING));
    const { request } = await import("undici");
    const { body } = await request(url, { dispatcher });
    await body.text();
    expect(identity.listeners).toBe(2);
    await dispatcher.close();
    await expect.poll(() => identity.listeners).toBe(0);
    const [server] = servers.splice(0);
    server?.close();
    if (server !== undefined) await once(server, "close");
  });
});
