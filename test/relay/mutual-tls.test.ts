import { once } from "node:events";
import { createServer as createTlsHttpServer, request as tlsRequest } from "node:https";
import { type AddressInfo, connect as connectTcp } from "node:net";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CodedError } from "../../src/coded-error.js";
import { secureContextOf, secureContextOptions } from "../../src/http/mutual-tls.js";
import type { X509BundleSource, X509Svid } from "../../src/identity/svid-source.js";
import { createX509Authority } from "../../src/identity/x509-authority.js";
import type { RunningService } from "../../src/relay/running-service.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { createTestClock } from "../identity/test-trust-domain.js";
import { exchangeRaw } from "./raw-http.js";
import { identity, type RunningRelay, runRelay, runUpstream, shop, testAgent, type Upstream } from "./running-relay.js";

const RULES = "rules:\n  - { name: all, allow: { from: agents/*, to: invoices } }\n";

let invoices: Upstream;
let running: RunningRelay;
let trusted = true;
let bundlesChanged = () => {};

/** The trust domain's bundle, which a test can take away. */
function revocable(bundles: X509BundleSource): X509BundleSource {
  return {
    ...bundles,
    x509Bundle: (trustDomain) => (trusted ? bundles.x509Bundle(trustDomain) : undefined),
    onBundleChange(listener) {
      const forget = bundles.onBundleChange(listener);
      const before = bundlesChanged;
      bundlesChanged = () => {
        before();
        listener();
      };
      return forget;
    },
  };
}

beforeEach(async () => {
  trusted = true;
  bundlesChanged = () => {};
  invoices = await runUpstream("invoices", "http", (request, response) => {
    request.resume().on("end", () => response.end("arrived"));
  });
  running = await runRelay({
    services: [invoices.service],
    identities: [testAgent, identity("agents/other")],
    rules: RULES,
    change: (parts) => ({ ...parts, bundles: revocable(parts.bundles) }),
  });
});

afterEach(async () => {
  await running.close();
  invoices.close();
});

const GET = "GET /v1/x HTTP/1.1\r\nHost: invoices\r\n\r\n";

async function connected(relay: RunningRelay, more: ConnectionOptions = {}, svidFrom = relay): Promise<TLSSocket> {
  const socket = connect({
    host: "127.0.0.1",
    port: relay.relay.addressesOf("invoices")?.mtls.port ?? 0,
    rejectUnauthorized: false,
    secureContext: secureContextOf(svidFrom.svidOf("agents/other")),
    ...more,
  });
  await once(socket, "secureConnect");
  return socket;
}

/** One answer on a connection that stays open. */
function ask(socket: TLSSocket): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const read = (chunk: Buffer) => {
      text += chunk.toString();
      if (!text.endsWith("arrived")) return;
      socket.off("data", read);
      resolve(text);
    };
    socket.on("data", read);
    socket.once("close", () => reject(new Error(`closed after: ${text}`)));
    socket.write(GET);
  });
}

describe("the inbound leg", () => {
  it("speaks TLS 1.3 as the service and takes the caller's SPIFFE ID from its certificate", async () => {
    const socket = await connected(running);
    expect(socket.getProtocol()).toBe("TLSv1.3");
    expect(socket.getPeerCertificate().subjectaltname).toBe("URI:spiffe://shop.local/services/invoices");
    expect(await exchangeRaw(socket, GET)).toMatchObject({ status: 200 });
    expect(running.events.findLast(({ event }) => event === "call")).toMatchObject({
      verdict: "ALLOW",
      caller: "agents/other",
      callerDetail: "",
    });
  });

  it("refuses a caller without a certificate before its request is read", async () => {
    expect(await exchangeRaw(await connected(running), GET)).toMatchObject({ status: 200 });
    const arrived = invoices.arrived.length;
    const { port } = running.relay.addressesOf("invoices")?.mtls ?? {};
    const bare = connect({ host: "127.0.0.1", port: port ?? 0, rejectUnauthorized: false });
    const answer = await exchangeRaw(bare, GET);
    expect(answer.status).toBe(401);
    expect(JSON.parse(answer.body)).toMatchObject({ code: "certificate-refused" });
    expect(invoices.arrived.length).toBe(arrived);
    const last = running.record.entries.findLast(({ kind }) => kind === "decision");
    expect(last?.fields).toMatchObject({ verdict: "DENY", caller: "(none)", rule: "certificate-refused" });
  });

  it("refuses the same SPIFFE ID from another authority", async () => {
    const elsewhere = await runRelay({ services: [], identities: [identity("agents/other")], rules: "rules: []\n" });
    const answer = await exchangeRaw(await connected(running, {}, elsewhere), GET);
    await elsewhere.close();
    expect(answer.status).toBe(401);
    expect(invoices.arrived.length).toBe(0);
    expect(await exchangeRaw(await connected(running), GET)).toMatchObject({ status: 200 });
  });

  it("resumes no session: one that is offered again leads to a full handshake (D12)", async () => {
    const first = await connected(running);
    const sessions: Buffer[] = [];
    first.on("session", (session) => sessions.push(session));
    await ask(first);
    const session = sessions.at(-1) ?? first.getSession();
    first.destroy();
    expect(session).toBeDefined();
    const again = await connected(running, session === undefined ? {} : { session });
    expect(again.isSessionReused()).toBe(false);
    expect(await exchangeRaw(again, GET)).toMatchObject({ status: 200 });
  });

  it("closes connections at once when their authority is no longer trusted", async () => {
    const socket = await connected(running);
    await ask(socket);
    const closed = once(socket, "close");
    trusted = false;
    bundlesChanged();
    await closed;
    const refused = await exchangeRaw(await connected(running), GET);
    expect(refused.status).toBe(401);
  });

  it("uses a new SVID for new connections and keeps the open ones", async () => {
    const before = await connected(running);
    await ask(before);
    const serial = before.getPeerCertificate().serialNumber;
    await running.keeper.rotateAll();
    const after = await connected(running);
    expect(after.getPeerCertificate().serialNumber).not.toBe(serial);
    expect(await ask(before)).toContain("200 OK");
    expect(await ask(after)).toContain("200 OK");
    before.destroy();
    after.destroy();
  });

  it("goes on with its last certificate where the new one cannot be used, and says so", async () => {
    const rotations: ((svid: X509Svid) => void)[] = [];
    const { id } = invoices.service;
    const relay = await runRelay({
      services: [invoices.service],
      identities: [testAgent, identity("agents/other")],
      rules: RULES,
      change: (parts) => ({
        ...parts,
        svids: {
          x509Svid: (of, launchedBy) => parts.svids.x509Svid(of, launchedBy),
          onRotation(of, listener) {
            if (of.equals(id)) rotations.push(listener);
            return parts.svids.onRotation(of, listener);
          },
        },
      }),
    });
    const rotate = (svid: X509Svid) => {
      for (const listener of rotations) listener(svid);
    };
    const serialAt = async (socket: TLSSocket) => {
      expect(await ask(socket)).toContain("200 OK");
      return socket.getPeerCertificate().serialNumber.toLowerCase();
    };
    const first = relay.svidOf(id.name);
    const before = await connected(relay);
    rotate({ ...first, privateKeyPkcs8: Buffer.from("no key") });
    expect(relay.events).toContainEqual(expect.objectContaining({ event: "problem", code: "certificate-unusable" }));
    expect(await serialAt(before)).toBe(first.serial);
    const after = await connected(relay);
    expect(await serialAt(after)).toBe(first.serial);
    // The next one that can be used is.
    await relay.keeper.rotateAll();
    const next = await connected(relay);
    expect(await serialAt(next)).toBe(relay.svidOf(id.name).serial);
    expect(relay.svidOf(id.name).serial).not.toBe(first.serial);
    for (const socket of [before, after, next]) socket.destroy();
    await relay.close();
  });
});

describe("a service of other trust domains' callers", () => {
  const partner = TrustDomain.parse("partner.example");
  const id = SpiffeId.of(partner, "agents/other");
  const now = Date.now();
  const authority = createX509Authority({ trustDomain: partner, lifetimeSeconds: 3600, now });
  const secureContext = secureContextOf({
    ...authority.issue({ id, dnsNames: [], lifetimeSeconds: 600 }, now),
    ...{ id, rotateAt: new Date(now + 300_000), hint: "" },
  });
  const known = (bundles: X509BundleSource, ...more: readonly Buffer[]): X509BundleSource => ({
    ...bundles,
    x509Bundle: (of) =>
      of.equals(partner)
        ? { trustDomain: partner, authorities: [authority.certificate, ...more] }
        : bundles.x509Bundle(of),
  });

  it("lets in those of trust domains that its identity federates with, and drops them when it does no more", async () => {
    const relay = await runRelay({
      services: [invoices.service],
      identities: [testAgent, identity("agents/other")],
      rules: `rules:\n  - { name: all, allow: { from: ["agents/*", "${id}"], to: invoices } }\n`,
      change: (parts) => ({ ...parts, bundles: known(parts.bundles) }),
    });
    const service = identity("services/invoices", { service: "invoices" });
    const configure = (federatesWith?: readonly string[]) =>
      relay.configure([
        ...[testAgent, identity("agents/other")],
        federatesWith === undefined ? service : { ...service, federatesWith },
      ]);
    const statusOf = async () => (await exchangeRaw(await connected(relay, { secureContext }), GET)).status;
    expect(await statusOf()).toBe(200);
    configure(["bank.local"]);
    expect(await statusOf()).toBe(401);
    // Its own trust domain is never in question.
    expect((await exchangeRaw(await connected(relay), GET)).status).toBe(200);
    configure(["bank.local", "partner.example"]);
    const open = await connected(relay, { secureContext });
    await ask(open);
    const closed = once(open, "close");
    configure([]);
    await closed;
    await relay.close();
  });

  it("takes no word of one trust domain's authority for an identity of another, nor of an authority that nobody here knows", async () => {
    // The partner has named it as one of its authorities; what it signs is for our trust domain.
    const usurper = createX509Authority({ trustDomain: shop, lifetimeSeconds: 3600, now });
    const stranger = createX509Authority({ trustDomain: partner, lifetimeSeconds: 3600, now });
    const relay = await runRelay({
      services: [invoices.service],
      identities: [testAgent, identity("agents/other")],
      rules: `rules:\n  - { name: all, allow: { from: ["agents/*", "${id}"], to: invoices } }\n`,
      change: (parts) => ({ ...parts, bundles: known(parts.bundles, usurper.certificate) }),
    });
    const ours = SpiffeId.of(shop, "agents/other");
    const tell = async (by: typeof authority, whom: SpiffeId) => {
      const context = secureContextOf({
        ...by.issue({ id: whom, dnsNames: [], lifetimeSeconds: 600 }, now),
        ...{ id: whom, rotateAt: new Date(now + 300_000), hint: "" },
      });
      const { status } = await exchangeRaw(await connected(relay, { secureContext: context }), GET);
      const last = relay.record.entries.findLast(({ kind }) => kind === "decision");
      return { status, rule: last?.fields.rule, caller: last?.fields.caller };
    };
    const refused = { status: 401, rule: "certificate-refused", caller: "(none)" };
    expect(await tell(usurper, ours)).toEqual(refused);
    expect(await tell(stranger, id)).toEqual(refused);
    expect(invoices.arrived.length).toBe(0);
    expect(await tell(authority, id)).toMatchObject({ status: 200, caller: id.toString() });
    expect((await exchangeRaw(await connected(relay), GET)).status).toBe(200);
    await relay.close();
  });
});

it("a call that runs when its caller's SVID is replaced ends well, and the next one uses the new SVID", async () => {
  const url = `${running.urlOf("invoices")}/v1/x`;
  const hashes = () =>
    invoices.arrived.map(({ headers }) => /Hash=(\w+)/.exec(String(headers["x-forwarded-client-cert"]))?.[1]);
  let finish = () => {};
  invoices.answer = (_request, response) => {
    response.write("first half, ");
    finish = () => response.end("second half");
  };
  const slow = await fetch(url);
  await running.keeper.rotateAll();
  invoices.answer = (_request, response) => response.end("quick");
  expect(await (await fetch(url)).text()).toBe("quick");
  finish();
  expect(await slow.text()).toBe("first half, second half");
  const [first, second] = hashes();
  expect(first).toMatch(/^[0-9a-f]{64}$/);
  expect(second).not.toBe(first);
});

it("a caller goes on with its last certificate where the new one cannot be used, and uses the next that can", async () => {
  let broken = false;
  let refused = false;
  const relay = await runRelay({
    services: [invoices.service],
    rules: RULES,
    change: (parts) => ({
      ...parts,
      svids: {
        x509Svid(of, launchedBy) {
          if (refused && of.name === testAgent.name)
            throw new CodedError("identity-revoked", "an agent above is revoked");
          const svid = parts.svids.x509Svid(of, launchedBy);
          return broken && of.name === testAgent.name ? { ...svid, privateKeyPkcs8: Buffer.from("no key") } : svid;
        },
        onRotation: (of, listener) => parts.svids.onRotation(of, listener),
      },
    }),
  });
  const hash = async () => {
    expect(await (await fetch(`${relay.urlOf("invoices")}/v1/x`)).text()).toBe("arrived");
    return /Hash=([0-9a-f]{64})/.exec(String(invoices.arrived.at(-1)?.headers["x-forwarded-client-cert"]))?.[1];
  };
  invoices.answer = (_request, response) => response.end("arrived");
  const first = await hash();
  broken = true;
  await relay.keeper.rotateAll();
  expect(await hash()).toBe(first);
  expect(relay.events).toContainEqual(
    expect.objectContaining({
      event: "problem",
      code: "certificate-unusable",
      message: expect.stringContaining("agents/tests calls on"),
    }),
  );
  broken = false;
  await relay.keeper.rotateAll();
  const next = await hash();
  expect(next).toMatch(/^[0-9a-f]{64}$/);
  expect(next).not.toBe(first);
  // Who gets none any more has no use of the last one.
  refused = true;
  await relay.keeper.rotateAll();
  expect((await fetch(`${relay.urlOf("invoices")}/v1/x`)).status).toBe(503);
  refused = false;
  expect(await hash()).toMatch(/^[0-9a-f]{64}$/);
  await relay.close();
});

it("a foreign caller's connection drains when its certificate expires", async () => {
  const clock = createTestClock(Date.now());
  const relay = await runRelay({
    services: [invoices.service],
    identities: [testAgent, identity("agents/other")],
    rules: RULES,
    clock,
  });
  const idle = await connected(relay);
  const busy = await connected(relay);
  await ask(idle);
  let finish = () => {};
  const started = new Promise<void>((resolve) => {
    invoices.answer = (_request, response) => {
      response.write("a");
      finish = () => response.end("rrived");
      resolve();
    };
  });
  const answer = ask(busy).catch(String);
  await started;
  const idleClosed = once(idle, "close");
  clock.advance(601_000);
  await idleClosed;
  const busyClosed = once(busy, "close");
  finish();
  await busyClosed;
  expect(await answer).toMatch(/200 OK.*a\r\n.*rrived/s);
  await relay.close();
});

it("what a foreign caller is still being told is cut in the end, and what a process of ours is told is not", async () => {
  const clock = createTestClock(Date.now());
  const relay = await runRelay({
    services: [invoices.service],
    identities: [testAgent, identity("agents/other")],
    rules: RULES,
    clock,
  });
  const ends: (() => void)[] = [];
  invoices.answer = (_request, response) => {
    response.write("begun");
    ends.push(() => response.end(", over"));
  };
  const foreign = await connected(relay);
  const cut = once(foreign, "close");
  foreign.on("error", () => undefined).resume();
  foreign.write(GET);
  const ours = await fetch(`${relay.urlOf("invoices")}/v1/x`);
  await expect.poll(() => ends.length).toBe(2);
  clock.advance(601_000);
  await expect.poll(() => ends.length).toBe(2);
  expect(foreign.destroyed).toBe(false);
  clock.advance(300_000);
  await cut;
  for (const end of ends) end();
  expect(await ours.text()).toBe("begun, over");
  await relay.close();
});

it("close does not wait for a peer that never finishes its handshake", async () => {
  const silent = connectTcp(running.relay.addressesOf("invoices")?.mtls.port ?? 0, "127.0.0.1");
  await once(silent, "connect");
  // Once a later connection has been served, the silent one has been accepted too.
  expect(await exchangeRaw(await connected(running), GET)).toMatchObject({ status: 200 });
  const cut = once(silent.resume(), "close");
  silent.on("error", () => undefined);
  await running.relay.close({ graceMs: 50 });
  await cut;
});

describe("a service that speaks mutual TLS itself", () => {
  /** A service with an SVID of its own, which the relay expects to be `services/direct`. */
  async function direct(serverIdentity: string, rules: string) {
    const callers: string[] = [];
    const service = (port: number): RunningService => ({
      ...{ name: "direct", id: SpiffeId.of(shop, "services/direct"), protocol: "http", listenPort: undefined },
      upstream: { kind: "mtls", host: "127.0.0.1", port },
    });
    const relay = await runRelay({
      services: [service(9)],
      identities: [testAgent, identity("services/impostor")],
      rules,
    });
    const server = createTlsHttpServer(
      { ...secureContextOptions(relay.svidOf(serverIdentity)), requestCert: true, rejectUnauthorized: false },
      (request, response) => {
        callers.push((request.socket as TLSSocket).getPeerCertificate().subjectaltname ?? "");
        response.end("direct");
      },
    );
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    await relay.relay.update([service(typeof address === "object" && address !== null ? address.port : 0)]);
    const response = await fetch(`${relay.urlOf("direct")}/v1/x`);
    const body = await response.text();
    await relay.close();
    server.closeAllConnections();
    server.close();
    return { status: response.status, body, callers };
  }
  const allowing = "rules:\n  - { name: all, allow: { from: agents/tests, to: direct } }\n";

  it("is called with the caller's SVID", async () => {
    const { status, callers } = await direct("services/direct", allowing);
    expect({ status, callers }).toEqual({ status: 200, callers: ["URI:spiffe://shop.local/agents/tests"] });
  });

  it("resumes no session with it, though it offers them (D12)", async () => {
    const resumed: boolean[] = [];
    // A server that is not ours, and has tickets.
    const server = createTlsHttpServer({ requestCert: true, rejectUnauthorized: false }, (_request, response) =>
      response.setHeader("Connection", "close").end("direct"),
    );
    server.on("secureConnection", (socket) => resumed.push(socket.isSessionReused()));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const id = SpiffeId.of(shop, "services/direct");
    const calling = await runRelay({
      services: [
        {
          name: "direct",
          id,
          protocol: "http",
          listenPort: undefined,
          upstream: { kind: "mtls", host: "127.0.0.1", port },
        },
      ],
      identities: [testAgent],
      rules: allowing,
    });
    server.setSecureContext({ ...secureContextOptions(calling.svidOf("services/direct")), secureOptions: 0 });
    for (let call = 0; call < 3; call += 1) {
      expect(await (await fetch(`${calling.urlOf("direct")}/v1/x`)).text()).toBe("direct");
    }
    expect(resumed).toEqual([false, false, false]);
    // Who keeps what it offers is taken back: it could have been resumed.
    const known = {
      host: "127.0.0.1",
      port,
      secureContext: secureContextOf(calling.svidOf("agents/tests")),
      rejectUnauthorized: false,
    };
    const first = connect(known);
    const [session] = (await once(first, "session")) as [Buffer];
    first.destroy();
    const second = connect({ ...known, session });
    await once(second, "secureConnect");
    expect(second.isSessionReused()).toBe(true);
    second.destroy();
    await calling.close();
    server.closeAllConnections();
    server.close();
  });

  it("is not called where the policy denies: the outbound leg decides", async () => {
    const { status, callers } = await direct("services/direct", "rules: []\n");
    expect({ status, callers }).toEqual({ status: 403, callers: [] });
  });

  it("is not called when somebody else of the trust domain answers", async () => {
    const { status, body, callers } = await direct("services/impostor", allowing);
    expect({ status, callers }).toEqual({ status: 502, callers: [] });
    expect(body).toContain("services/impostor");
  });
});

it("answers the official way to people's clients too: node:https with the SVID", async () => {
  const { port } = running.relay.addressesOf("invoices")?.mtls ?? {};
  const { cert, key } = secureContextOptions(running.svidOf("agents/other"));
  const status = await new Promise<number | undefined>((resolve, reject) => {
    tlsRequest({ host: "127.0.0.1", port, path: "/v1/x", cert, key, rejectUnauthorized: false }, (response) => {
      response.resume().on("end", () => resolve(response.statusCode));
    })
      .on("error", reject)
      .end();
  });
  expect(status).toBe(200);
});
