import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { connect as connectTcp } from "node:net";
import { type ConnectionOptions, connect, createServer, type TLSSocket } from "node:tls";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { secureContextOf, secureContextOptions } from "../../src/http/mutual-tls.js";
import type { RelayParts } from "../../src/relay/exchange.js";
import { ALPN, preface } from "../../src/relay/tcp-protocol.js";
import { createTestClock, type TestClock } from "../identity/test-trust-domain.js";
import { identity, type RunningRelay, runRelay, runUpstream, testAgent } from "./running-relay.js";
import {
  decisions,
  echo,
  ends,
  eventually,
  plainTo,
  portOf,
  runTcpUpstream,
  type TcpUpstream,
} from "./tcp-services.js";

const run = promisify(execFile);
const RULES = "rules:\n  - { name: connects, allow: { from: agents/*, to: orders, action: connect } }\n";
const HANDSHAKE = { timeout: 30_000 };

let orders: TcpUpstream;
let running: RunningRelay;
let clock: TestClock;
let trusted = true;
let bundleListeners: (() => void)[] = [];

beforeEach(async () => {
  trusted = true;
  bundleListeners = [];
  clock = createTestClock();
  orders = await runTcpUpstream("orders", echo);
  running = await runRelay({
    services: [orders.service],
    identities: [testAgent, identity("agents/other")],
    rules: RULES,
    clock,
    change: (parts) => ({ ...parts, bundles: revocable(parts) }),
  });
});

afterEach(async () => {
  await running.close();
  await orders.close();
});

/** The trust domain's bundle, which a test can take away. */
function revocable({ bundles }: RelayParts): RelayParts["bundles"] {
  return {
    ...bundles,
    x509Bundle: (trustDomain) => (trusted ? bundles.x509Bundle(trustDomain) : undefined),
    onBundleChange(listener) {
      bundleListeners.push(listener);
      return bundles.onBundleChange(listener);
    },
  };
}

interface Secure {
  readonly socket: TLSSocket;
  text(): string;
  readonly over: Promise<string>;
}

/** A caller with its own SVID at the inbound leg. */
async function secure(more: ConnectionOptions = {}, caller = "agents/other"): Promise<Secure> {
  const options: ConnectionOptions & { allowHalfOpen: boolean } = {
    host: "127.0.0.1",
    port: running.relay.addressesOf("orders")?.mtls.port ?? 0,
    rejectUnauthorized: false,
    allowHalfOpen: true,
    secureContext: secureContextOf(running.svidOf(caller)),
    ALPNProtocols: [ALPN.plain],
    ...more,
  };
  const socket = connect(options);
  let received = "";
  socket.on("data", (chunk: Buffer) => {
    received += chunk.toString();
  });
  const over = new Promise<string>((resolve) => {
    let failed: string | undefined;
    socket.on("error", (error: NodeJS.ErrnoException) => {
      failed ??= error.code ?? error.message;
    });
    socket.once("close", () => resolve(failed ?? "end"));
  });
  await Promise.race([once(socket, "secureConnect").catch(() => undefined), over]);
  return { socket, text: () => received, over };
}

/** What the service says to a caller that is admitted; empty where it is refused. */
async function asked({ socket, text, over }: Secure, question = "ping"): Promise<string> {
  socket.end(question);
  await over;
  return text();
}

describe("a caller with its own SVID", () => {
  it("names the protocol by ALPN and is who its certificate says", async () => {
    expect(await asked(await secure())).toBe("ping");
    expect(decisions(running)).toEqual([
      expect.objectContaining({
        verdict: "ALLOW",
        caller: "spiffe://shop.local/agents/other",
        evidence: "certificate",
        callerDetail: "",
      }),
    ]);
  });

  it("that speaks HTTP is refused inside the handshake, and one that names nothing after it, both on record", async () => {
    const http = await secure({ ALPNProtocols: ["http/1.1", "h2"] });
    expect(await http.over).toMatch(/NO_APPLICATION_PROTOCOL/);
    expect(await asked(await secure({ ALPNProtocols: [] }))).toBe("");
    expect(decisions(running)).toEqual([
      expect.objectContaining({ verdict: "DENY", rule: "handshake-failed" }),
      expect.objectContaining({ verdict: "DENY", rule: "protocol-unknown" }),
    ]);
    expect(orders.arrived).toHaveLength(0);
    expect(await asked(await secure())).toBe("ping");
  });

  it("finds no listener for bytes at an HTTP service", async () => {
    const invoices = await runUpstream("invoices", "http", (_request, response) => response.end());
    const other = await runRelay({
      services: [invoices.service],
      identities: [testAgent, identity("agents/other")],
      rules: "rules: []\n",
    });
    const { port = 0 } = other.relay.addressesOf("invoices")?.mtls ?? {};
    for (const alpn of Object.values(ALPN)) {
      const { over } = await secure({
        port,
        secureContext: secureContextOf(other.svidOf("agents/other")),
        ALPNProtocols: [alpn],
      });
      expect(await over).toMatch(/NO_APPLICATION_PROTOCOL/);
    }
    await other.close();
    invoices.close();
  });

  it("without a certificate, or with one that nobody here has signed, is refused on record", async () => {
    const nobody = connect({
      host: "127.0.0.1",
      port: running.relay.addressesOf("orders")?.mtls.port ?? 0,
      rejectUnauthorized: false,
      ALPNProtocols: [ALPN.plain],
    });
    nobody.on("error", () => undefined);
    nobody.end("ping");
    nobody.resume();
    await once(nobody, "close");
    expect(decisions(running)).toEqual([
      expect.objectContaining({
        rule: "certificate-refused",
        reason: expect.stringContaining("no client certificate"),
      }),
    ]);
    const foreign = await runRelay({ services: [orders.service], rules: RULES });
    const stranger = await secure({ secureContext: secureContextOf(foreign.svidOf("agents/tests")) });
    expect(await asked(stranger)).toBe("");
    expect(decisions(running).at(-1)).toMatchObject({ verdict: "DENY", rule: "certificate-refused" });
    expect(orders.arrived).toHaveLength(0);
    expect(await asked(await secure())).toBe("ping");
    await foreign.close();
  });

  it("is one of as many as the service takes", async () => {
    await running.relay.update([{ ...orders.service, connections: { max: 1, idleSeconds: 3600 } }]);
    const first = await secure();
    first.socket.write("1");
    await eventually(first.text).toBe("1");
    expect(await asked(await secure())).toBe("");
    expect(decisions(running).at(-1)).toMatchObject({ leg: "inbound", rule: "connections-exhausted" });
    expect(await asked(first, "2")).toBe("12");
    await eventually(() => ends(running).length).toBe(1);
    expect(await asked(await secure())).toBe("ping");
  });

  it("that no rule allows is refused on record, and nothing arrives", async () => {
    running.setRules("rules:\n  - { name: connects, allow: { from: agents/tests, to: orders } }\n");
    expect(await asked(await secure())).toBe("");
    expect(decisions(running)).toEqual([expect.objectContaining({ verdict: "DENY", rule: "default" })]);
    expect(orders.arrived).toHaveLength(0);
    running.setRules(RULES);
    expect(await asked(await secure())).toBe("ping");
  });
});

describe("the preface of our own outbound leg", () => {
  const ticketed = () => secure({ ALPNProtocols: [ALPN.ticketed] });

  it.each<[string, Buffer]>([
    ["is of an unknown version", Buffer.concat([Buffer.of(2), preface(randomUUID()).subarray(1)])],
    ["holds no ticket", Buffer.concat([Buffer.of(1), Buffer.alloc(36, "x")])],
    ["holds a ticket in upper case", Buffer.concat([Buffer.of(1), Buffer.from(randomUUID().toUpperCase())])],
    ["is cut short", preface(randomUUID()).subarray(0, 36)],
    ["is empty", Buffer.alloc(0)],
    ["is HTTP", Buffer.from("GET / HTTP/1.1\r\nHost: orders\r\n\r\nmore than the length of it")],
  ])("is refused where it %s", async (_what, bytes) => {
    const { socket, text, over } = await ticketed();
    socket.end(bytes);
    await over;
    expect(text()).toBe("");
    expect(decisions(running)).toEqual([expect.objectContaining({ verdict: "DENY", rule: "preface-malformed" })]);
    expect(orders.arrived).toHaveLength(0);
    // The positive control: the same caller without a preface, and the outbound leg with one.
    expect(await asked(await secure())).toBe("ping");
    const local = await plainTo(running, "orders");
    local.socket.end("pong");
    await local.over;
    expect(local.text()).toBe("pong");
  });

  it("is refused where it does not come in time", async () => {
    const { socket, over } = await ticketed();
    socket.write(preface(randomUUID()).subarray(0, 10));
    await eventually(() => decisions(running).length || clock.advance(11_000) || 0).toBe(1);
    expect(decisions(running)).toEqual([
      expect.objectContaining({ rule: "preface-malformed", reason: "the preface did not come in time" }),
    ]);
    socket.end();
    await over;
  });

  it("is refused where its ticket was never issued, and nothing that follows arrives", async () => {
    const { socket, over, text } = await ticketed();
    socket.end(Buffer.concat([preface(randomUUID()), Buffer.from("DROP TABLE orders")]));
    await over;
    expect(text()).toBe("");
    expect(decisions(running)).toEqual([expect.objectContaining({ verdict: "DENY", rule: "ticket-refused" })]);
    expect(orders.arrived).toHaveLength(0);
  });
});

describe("entitlement of open connections (D24)", () => {
  const begun = async () => {
    const local = await plainTo(running, "orders");
    local.socket.write("1");
    await eventually(local.text).toBe("1");
    const own = await secure();
    own.socket.write("1");
    await eventually(own.text).toBe("1");
    return { local, own };
  };

  it("a peer by certificate has 30 s after its end, a local caller goes on", HANDSHAKE, async () => {
    const { local, own } = await begun();
    clock.advance(629_000);
    own.socket.write("2");
    await eventually(own.text).toBe("12");
    clock.advance(2_000);
    expect(await own.over).toBe("ECONNRESET");
    local.socket.end("2");
    expect(await local.over).toBe("end");
    expect(local.text()).toBe("12");
    await eventually(() => ends(running).map(({ error }) => error)).toEqual(["certificate-expired", undefined]);
  });

  it("ends at once when the identity is taken away", async () => {
    const { local, own } = await begun();
    running.configure(running.identities.filter(({ name }) => name !== "agents/tests"));
    expect(await local.over).toBe("ECONNRESET");
    own.socket.write("2");
    await eventually(own.text).toBe("12");
    running.configure(running.identities.filter(({ name }) => !name.startsWith("agents/")));
    expect(await own.over).toBe("ECONNRESET");
    await eventually(() => orders.open()).toBe(0);
  });

  it("ends at once when another identity comes first, and is opened anew as that", async () => {
    const { local } = await begun();
    running.configure([identity("agents/first", { facts: testAgent.facts }), ...running.identities]);
    expect(await local.over).toBe("ECONNRESET");
    const again = await plainTo(running, "orders");
    again.socket.end("2");
    await again.over;
    expect(decisions(running).at(-1)).toMatchObject({ caller: "spiffe://shop.local/agents/first" });
  });

  it("ends at once when trust in its authority ends", async () => {
    const { local, own } = await begun();
    trusted = false;
    for (const changed of bundleListeners) changed();
    expect(await own.over).toBe("ECONNRESET");
    expect(await local.over).toBe("ECONNRESET");
  });

  it("ends when a rule that is taken away had allowed it, and not when it is kept", async () => {
    const { local, own } = await begun();
    running.setRules("rules:\n  - { name: connects, allow: { from: agents/tests, to: orders } }\n");
    await running.relay.update([orders.service]);
    expect(await own.over).toBe("ECONNRESET");
    await eventually(() => ends(running)).toEqual([
      expect.objectContaining({ error: "denied-since: no rule allows agents/other connect at services/orders" }),
    ]);
    local.socket.end("2");
    expect(await local.over).toBe("end");
    expect(local.text()).toBe("12");
  });

  it("goes on when only a limit would refuse it now", async () => {
    running.setRules(`${RULES.trimEnd().slice(0, -1)}, limit: 1 per hour }\n`);
    const local = await plainTo(running, "orders");
    local.socket.write("1");
    await eventually(local.text).toBe("1");
    const second = await plainTo(running, "orders");
    second.socket.end("1");
    expect(await second.over).toBe("end");
    expect(second.text()).toBe("");
    expect(decisions(running).at(-1)).toMatchObject({ verdict: "DENY" });
    await running.relay.update([orders.service]);
    local.socket.end("2");
    expect(await local.over).toBe("end");
    expect(local.text()).toBe("12");
  });
});

describe("who cannot be named or recorded", () => {
  it("a program without an identity is closed in order, on record", async () => {
    const script = `import socket
s = socket.create_connection(("127.0.0.1", ${portOf(running, "orders")}))
s.sendall(b"ping")
print(s.recv(100))`;
    const { stdout } = await run("python3", ["-c", script]);
    expect(stdout).toBe("b''\n");
    expect(decisions(running)).toEqual([
      expect.objectContaining({
        verdict: "DENY",
        leg: "outbound",
        rule: "no-identity",
        caller: "(none)",
        callerDetail: expect.stringMatching(/python3 -c .*pid \d+, uid \d+$/),
      }),
    ]);
    expect(orders.arrived).toHaveLength(0);
  });

  it("a decision that cannot be written down lets nobody through", async () => {
    running.record.writable = false;
    const { socket, over, text } = await plainTo(running, "orders");
    socket.end("ping");
    expect(await over).toBe("end");
    expect(text()).toBe("");
    expect(orders.arrived).toHaveLength(0);
    running.record.writable = true;
    const written = await plainTo(running, "orders");
    written.socket.end("ping");
    await written.over;
    expect(written.text()).toBe("ping");
  });

  it("an obligation that the relay does not know is a denial", async () => {
    running.setRules(`${RULES.trimEnd().slice(0, -1)}, require: [approval] }\n`);
    const { socket, over, text } = await plainTo(running, "orders");
    socket.end("ping");
    await over;
    expect(text()).toBe("");
    expect(decisions(running)).toEqual([
      expect.objectContaining({ verdict: "DENY", reason: "connects requires approval, which the relay does not know" }),
    ]);
  });
});

describe("a service that speaks mutual TLS itself", () => {
  /** A server of bytes that knows nothing of our protocols. */
  async function mutualTls(relay: RunningRelay, name: string, alpn?: string[]) {
    const seen: (string | false | null)[] = [];
    const server = createServer({
      ...secureContextOptions(relay.svidOf(name)),
      requestCert: true,
      rejectUnauthorized: false,
      allowHalfOpen: true,
      ...(alpn !== undefined && { ALPNProtocols: alpn }),
    });
    server.on("secureConnection", (socket) => {
      seen.push(socket.getPeerCertificate().subjectaltname ?? "", socket.alpnProtocol);
      socket.on("error", () => socket.destroy());
      socket.pipe(socket);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    return { server, seen, port: typeof address === "object" && address !== null ? address.port : 0 };
  }

  it("is reached with the caller's SVID once the outbound leg has decided", async () => {
    const own = await mutualTls(running, "services/orders");
    const upstream = { kind: "mtls", host: "127.0.0.1", port: own.port } as const;
    const direct = { ...orders.service, upstream };
    await running.relay.update([direct]);
    const { socket, text, over } = await plainTo(running, "orders");
    socket.end("ping");
    expect(await over).toBe("end");
    expect(text()).toBe("ping");
    expect(own.seen).toEqual(["URI:spiffe://shop.local/agents/tests", false]);
    expect(decisions(running)).toEqual([
      expect.objectContaining({ verdict: "ALLOW", leg: "outbound", evidence: "kernel" }),
    ]);
    running.setRules("rules: []\n");
    const denied = await plainTo(running, "orders");
    denied.socket.end("ping");
    await denied.over;
    expect(denied.text()).toBe("");
    expect(own.seen).toHaveLength(2);
    own.server.close();
  });

  it("gets nothing where it is somebody else", async () => {
    const wrong = await mutualTls(running, "agents/other");
    const upstream = { kind: "mtls", host: "127.0.0.1", port: wrong.port } as const;
    await running.relay.update([{ ...orders.service, upstream }]);
    const { socket, text, over } = await plainTo(running, "orders");
    socket.end("ping");
    expect(await over).toBe("end");
    expect(text()).toBe("");
    await eventually(() => running.events.at(-1)).toMatchObject({ event: "call.ended", error: "upstream-failed" });
    wrong.server.close();
  });
});

it("what is connected inside a sandbox's network is served on the descriptors that come from there", async () => {
  const { linux } = await import("../../src/platform/linux.js");
  const { createServer: createPlain } = await import("node:net");
  const { descriptorOf } = await import("../attestation/processes.js");
  const listening = createPlain().listen(0, "127.0.0.1");
  await once(listening, "listening");
  const address = listening.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const fd = linux.takeDescriptor(process.pid, descriptorOf(listening as never));
  const network = linux.openNetwork(process.pid);
  const end = running.relay.listenInside(network, new Map([[portOf(running, "orders"), [fd]]]));
  listening.close();
  const socket = connectTcp({ host: "127.0.0.1", port });
  socket.end("inside");
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk);
  expect(Buffer.concat(chunks).toString()).toBe("inside");
  await end();
  network.close();
});
