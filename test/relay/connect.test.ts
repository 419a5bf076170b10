import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { EgressTarget } from "../../src/config/config.js";
import type { Resolve } from "../../src/relay/egress-connection.js";
import { egressService } from "../../src/relay/running-service.js";
import { type Outside, runOutside, target } from "./outside.js";
import { sendRaw } from "./raw-http.js";
import { identity, type RunningRelay, runRelay, testAgent } from "./running-relay.js";
import { decisions, ends, eventually } from "./tcp-services.js";

const RULES = "rules:\n  - { name: tunnels, allow: { from: agents/tests, to: egress/api, action: connect } }\n";

let outside: Outside;
const open: (() => unknown)[] = [];

beforeEach(async () => {
  outside = await runOutside({ names: ["api.test"] });
  open.push(() => outside.close());
});
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

const api = (more: Partial<EgressTarget> = {}) =>
  target("api", outside, { host: "api.test", connect: true, ca: undefined, ...more });
const leadsTo =
  (...addresses: readonly string[]): Resolve =>
  async () =>
    addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));

async function proxyTo(
  targets: readonly EgressTarget[],
  { resolve = leadsTo("127.0.0.1"), rules = RULES }: { resolve?: Resolve; rules?: string } = {},
): Promise<RunningRelay> {
  const running = await runRelay({
    services: targets.map((one) => egressService(one)),
    identities: [testAgent, identity("agents/other"), identity("agents/curl", { facts: { exePath: "/usr/bin/curl" } })],
    rules,
    change: (parts) => ({ ...parts, resolve }),
  });
  open.push(() => running.close());
  return running;
}

const portOf = ({ relay }: RunningRelay) => Number(new URL(relay.proxyUrl() ?? "").port);
const asking = (authority: string, headers = `Host: ${authority}\r\n`, version = "1.1") =>
  `CONNECT ${authority} HTTP/${version}\r\n${headers}\r\n`;

/** Status, and the code of a refusal. */
async function outcome(running: RunningRelay, bytes: string): Promise<string> {
  const { status, body } = await sendRaw(portOf(running), bytes);
  return body === "" ? String(status) : `${status} ${(JSON.parse(body) as { code: string }).code}`;
}

/** A tunnel that stands: its 200 has come. */
async function tunnel(running: RunningRelay, bytes = asking(`api.test:${outside.port}`)): Promise<Socket> {
  const socket = connect({ port: portOf(running), host: "127.0.0.1", allowHalfOpen: true });
  open.push(() => socket.destroy());
  socket.on("error", () => undefined);
  socket.write(bytes, "latin1");
  const [head] = (await once(socket, "data")) as [Buffer];
  expect(head.toString()).toMatch(/^HTTP\/1\.1 200 [^\r\n]+\r\nAgentid-Decision: [^\r\n]+\r\n\r\n$/);
  return socket;
}

/** Also by a reset. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => (socket.closed ? resolve() : socket.once("close", () => resolve())));
}

/** One request over the caller's own TLS. */
async function requestOver(socket: Socket): Promise<string> {
  const tls = connectTls({ socket, servername: "api.test", ca: readFileSync(outside.ca) });
  await once(tls, "secureConnect");
  tls.write("GET /v1 HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n");
  let text = "";
  for await (const chunk of tls) text += String(chunk);
  return text;
}

/** A server that speaks whatever the test wants, at the address of the target. */
async function plainServer(serve: (socket: Socket) => void): Promise<number> {
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    open.push(() => socket.destroy());
    socket.on("error", () => undefined);
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  open.push(() => server.close());
  const address = server.address();
  return typeof address === "object" && address !== null ? address.port : 0;
}

describe("CONNECT to a target that says so", () => {
  it("is decided once by its host, recorded before it connects, and carries the caller's own TLS", async () => {
    const running = await proxyTo([api()]);
    const socket = await tunnel(running);
    expect(decisions(running)).toEqual([
      expect.objectContaining({
        ...{ verdict: "ALLOW", leg: "outbound", caller: "spiffe://shop.local/agents/tests", evidence: "kernel" },
        ...{ protocol: "tcp", action: "connect", rule: "tunnels", serviceId: "spiffe://shop.local/egress/api" },
      }),
    ]);
    expect(await requestOver(socket)).toMatch(/^HTTP\/1\.1 200[\s\S]*outside/);
    expect(outside.arrived[0]).toMatchObject({ method: "GET", url: "/v1", serverName: "api.test" });
    await eventually(() => ends(running)).toEqual([
      expect.objectContaining({ sent: expect.any(Number), received: expect.any(Number) }),
    ]);
  });

  it("that no rule allows is refused with its decision, and nothing is looked up or connected to", async () => {
    const asked: string[] = [];
    const resolve: Resolve = async (host) => {
      asked.push(host);
      return leadsTo("127.0.0.1")(host);
    };
    const running = await proxyTo([api()], { rules: "rules: []\n", resolve });
    const { status, body } = await sendRaw(portOf(running), asking(`api.test:${outside.port}`));
    expect(status).toBe(403);
    const [recorded] = decisions(running);
    expect(recorded).toMatchObject({ verdict: "DENY", rule: "default", service: "api" });
    expect(JSON.parse(body)).toMatchObject({ code: "denied", rule: "default", decision: recorded?.decision });
    expect(asked).toEqual([]);
    running.setRules(RULES);
    await tunnel(running);
    expect(asked).toEqual(["api.test"]);
  });

  it("by a process without an identity is refused", async () => {
    const running = await proxyTo([api()]);
    running.configure([identity("agents/other")]);
    expect(await outcome(running, asking(`api.test:${outside.port}`))).toBe("403 no-identity");
    expect(decisions(running)).toEqual([expect.objectContaining({ caller: "(none)", rule: "no-identity" })]);
    running.configure(running.identities);
    await tunnel(running);
  });

  it("that cannot be recorded is refused", async () => {
    const running = await proxyTo([api()]);
    running.record.writable = false;
    expect(await outcome(running, asking(`api.test:${outside.port}`))).toBe("503 record-unwritable");
    expect(outside.arrived).toEqual([]);
    running.record.writable = true;
    await tunnel(running);
  });

  it("works for curl, which takes the refusal's reason from the answer", async () => {
    const running = await proxyTo([api()], {
      rules: "rules:\n  - { name: curls, allow: { from: agents/curl, to: egress/api } }\n",
    });
    const curl = (...more: string[]) =>
      promisify(execFile)(
        "curl",
        [
          ...["-sS", "--noproxy", "", "--proxy", running.relay.proxyUrl() ?? "", "--cacert", outside.ca],
          ...["--proxy-user", "somebody:secret", `https://api.test:${outside.port}/x`, ...more],
        ],
        { encoding: "utf8" },
      );
    expect((await curl()).stdout).toBe("outside");
    expect(outside.arrived[0]?.rawHeaders.join(" ")).not.toMatch(/proxy/i);
    running.setRules("rules: []\n");
    await expect(curl()).rejects.toMatchObject({ stderr: expect.stringContaining("403") });
    expect(JSON.stringify(running.record.entries)).not.toContain("c29tZWJvZHk6c2VjcmV0");
  });
});

describe("what a CONNECT may ask for", () => {
  it("is host:port of a target, in one form", async () => {
    const running = await proxyTo([api(), target("other", outside, { host: "other.test" })]);
    const { port } = outside;
    const malformed = [
      ...[`API.test:${port}`, `api.test.:${port}`, `user@api.test:${port}`, `user:pw@api.test:${port}`, "api.test"],
      ...["api.test:", "api.test:0", "api.test:0443", "api.test:65536", "api.test:99999", `api..test:${port}`],
      ...[`.api.test:${port}`, `api%2etest:${port}`, `[fe80::1%25eth0]:${port}`, `[api.test]:${port}`, `*:${port}`],
      ...[`https://api.test:${port}`, `api.test:${port}/`, `api.test:${port}?x`, `/api.test:${port}`, `:${port}`],
    ];
    for (const authority of malformed) {
      const is = await outcome(running, asking(authority));
      expect(["400 authority-form", "400 http-malformed"], `${authority} ${is}`).toContain(is);
    }
    const unknown = [
      ...[
        "api.test:22",
        "api.test:443",
        `evil.test:${port}`,
        `127.0.0.1:${port}`,
        `[::1]:${port}`,
        `2130706433:${port}`,
      ],
      ...[`0x7f000001:${port}`, `127.1:${port}`, `0177.0.0.1:${port}`, `[::ffff:127.0.0.1]:${port}`],
      ...[`api.test.evil.test:${port}`, `xapi.test:${port}`, `localhost:${port}`, `api-test:${port}`],
    ];
    for (const authority of unknown) {
      expect(await outcome(running, asking(authority)), authority).toBe("403 target-unknown");
    }
    expect(decisions(running).every(({ verdict }) => verdict === "DENY")).toBe(true);
    expect(decisions(running).length).toBeGreaterThan(unknown.length);
    await tunnel(running);
  });

  it("is a target that says connect: another one is called at its own address", async () => {
    const running = await proxyTo([api(), target("our-other", outside, { host: "other.test" })]);
    const { status, body } = await sendRaw(portOf(running), asking(`other.test:${outside.port}`));
    expect(status).toBe(403);
    expect(body).toContain("AGENTID_URL_OUR_OTHER");
    await tunnel(running);
  });

  it("is an address only where the target is that address", async () => {
    const running = await proxyTo([api({ host: "127.0.0.1" })]);
    expect(await outcome(running, asking(`api.test:${outside.port}`))).toBe("403 target-unknown");
    await tunnel(running, asking(`127.0.0.1:${outside.port}`));
  });

  it("is said by Host as well, but for the port 443 and in HTTP/1.0", async () => {
    const running = await proxyTo([api(), target("web", outside, { host: "web.test", port: 443, connect: true })]);
    const authority = `api.test:${outside.port}`;
    const refused = ["", "Host: api.test\r\n", "Host: evil.test\r\n", `Host: ${authority}x\r\n`, "Host:\r\n"];
    for (const headers of refused) {
      expect(await outcome(running, asking(authority, headers)), headers).toBe("400 host-mismatch");
    }
    const twice = `Host: ${authority}\r\nHost: ${authority}\r\n`;
    expect(await outcome(running, asking(authority, twice))).toBe("400 header-duplicate");
    await tunnel(running, asking(authority, "", "1.0"));
    await tunnel(running, asking(authority, `Host: ${authority}\r\nProxy-Connection: keep-alive\r\n`));
    // Denied by the rules, so its Host was fine.
    expect(await outcome(running, asking("web.test:443", "Host: web.test\r\n"))).toBe("403 denied");
    expect(await outcome(running, asking("web.test:443", "Host: api.test\r\n"))).toBe("400 host-mismatch");
  });

  it("has no body; what is sent ahead of the answer is held until then", async () => {
    const came: string[] = [];
    const port = await plainServer((socket) => socket.on("data", (chunk) => came.push(chunk.toString())));
    const running = await proxyTo([api({ port })]);
    const authority = `api.test:${port}`;
    const host = `Host: ${authority}\r\n`;
    expect(await outcome(running, `${asking(authority, `${host}Content-Length: 4\r\n`)}body`)).toBe("400 connect-body");
    const chunked = `${asking(authority, `${host}Transfer-Encoding: chunked\r\n`)}4\r\nbody\r\n0\r\n\r\n`;
    expect(await outcome(running, chunked)).toBe("400 connect-body");
    running.setRules("rules: []\n");
    expect(await outcome(running, `${asking(authority)}too early`)).toBe("403 denied");
    expect(came).toEqual([]);
    running.setRules(RULES);
    const socket = await tunnel(running, `${asking(authority, `${host}Content-Length: 0\r\n`)}early `);
    socket.write("late");
    await eventually(() => came.join("")).toBe("early late");
  });

  it("comes first on its connection: an answer to something else never gets into a tunnel", async () => {
    const running = await proxyTo([api()]);
    const authority = `api.test:${outside.port}`;
    const { head } = await sendRaw(portOf(running), `GET / HTTP/1.1\r\nHost: x\r\n\r\n${asking(authority)}`);
    expect(head).not.toContain("200");
    expect(decisions(running).every(({ verdict }) => verdict === "DENY")).toBe(true);
    await tunnel(running);
  });
});

describe("what is no CONNECT", () => {
  it("is refused with the way that there is", async () => {
    const running = await proxyTo([api()]);
    const absolute = await sendRaw(portOf(running), "GET http://api.test/x HTTP/1.1\r\nHost: api.test\r\n\r\n");
    expect(absolute).toMatchObject({ status: 403, body: expect.stringContaining("AGENTID_URL_NAME") });
    for (const line of ["GET /x", "OPTIONS *", "POST /"]) {
      const { status } = await sendRaw(portOf(running), `${line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`);
      expect(status, line).toBe(421);
    }
    expect(await outcome(running, "NONSENSE\r\n\r\n")).toBe("400 http-malformed");
    await eventually(() => decisions(running).length).toBe(5);
    expect(decisions(running)[0]).toMatchObject({ verdict: "DENY", rule: "connect-only", caller: "agents/tests" });
    await tunnel(running);
  });
});

describe("where the target's name leads", () => {
  it.each(["10.0.0.1", "169.254.169.254", "100.64.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1"])(
    "to %s is refused where the target may not be private",
    async (address) => {
      const running = await proxyTo([api({ private: false })], { resolve: leadsTo("8.8.8.8", address) });
      expect(await outcome(running, asking(`api.test:${outside.port}`))).toBe("502 address-refused");
    },
  );

  it("is checked for each connection, and nowhere else is connected to", async () => {
    let address = "127.0.0.1";
    const running = await proxyTo([api()], { resolve: (host) => leadsTo(address)(host) });
    await tunnel(running);
    address = "0.0.0.0";
    expect(await outcome(running, asking(`api.test:${outside.port}`))).toBe("502 address-refused");
  });

  it("is said where nobody answers", async () => {
    const nowhere: Resolve = async () => {
      throw Object.assign(new Error("no such name"), { code: "ENOTFOUND" });
    };
    const running = await proxyTo([api()], { resolve: nowhere });
    expect(await outcome(running, asking(`api.test:${outside.port}`))).toBe("502 upstream-unreachable");
    await eventually(() => ends(running)).toEqual([expect.objectContaining({ error: "upstream-unreachable" })]);
  });
});

describe("an open tunnel", () => {
  it("passes each side's end on by itself", async () => {
    const port = await plainServer((socket) => {
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk.toString();
      });
      socket.on("end", () => socket.end(`got ${text}`));
    });
    const running = await proxyTo([api({ port })]);
    const socket = await tunnel(running, asking(`api.test:${port}`));
    socket.end("all");
    let text = "";
    for await (const chunk of socket) text += String(chunk);
    expect(text).toBe("got all");
    await eventually(() => ends(running)).toEqual([expect.objectContaining({ sent: 3, received: 7 })]);
  });

  it("carries megabytes both ways, whole", async () => {
    const port = await plainServer((socket) => socket.pipe(socket));
    const running = await proxyTo([api({ port })]);
    const socket = await tunnel(running, asking(`api.test:${port}`));
    const sent = randomBytes(8 * 1024 * 1024);
    socket.end(sent);
    const came: Buffer[] = [];
    for await (const chunk of socket) came.push(chunk as Buffer);
    expect(Buffer.concat(came).equals(sent)).toBe(true);
  });

  it("is broken off when its caller loses the identity", async () => {
    const running = await proxyTo([api()]);
    const socket = await tunnel(running);
    running.configure([identity("agents/other")]);
    await closed(socket);
    await eventually(() => ends(running)).toEqual([expect.objectContaining({ error: "identity-lost" })]);
  });

  it("is broken off when the policy, or where the target is, is another; an equal one leaves it alone", async () => {
    const running = await proxyTo([api()]);
    const denied = await tunnel(running);
    await running.relay.update([egressService(api())]);
    expect(denied.destroyed).toBe(false);
    running.setRules("rules: []\n");
    await running.relay.update([egressService(api())]);
    await closed(denied);
    running.setRules(RULES);
    const moved = await tunnel(running);
    await running.relay.update([egressService(api({ private: false }))]);
    await closed(moved);
    await running.relay.update([egressService(api())]);
    const last = await tunnel(running);
    await running.relay.update([]);
    await closed(last);
    expect(running.relay.proxyUrl()).toBeUndefined();
    await eventually(() => ends(running).map(({ error }) => error)).toEqual([
      expect.stringMatching(/^denied-since/),
      "target-changed",
      "relay-closed",
    ]);
  });
});

describe("the proxy's listener", () => {
  it("is there where a target says connect, among the relay's ports, at the port that is asked for", async () => {
    const none = await proxyTo([target("api", outside, { host: "api.test" })], { rules: "rules: []\n" });
    expect(none.relay.proxyUrl()).toBeUndefined();
    const running = await proxyTo([api()]);
    const port = portOf(running);
    expect(running.relay.ports()).toEqual([port]);
    expect(running.relay.egressUrlOf("api")).toBe(running.relay.proxyUrl());
    const free = await plainServer(() => undefined);
    await expect(running.relay.update([egressService(api(), free)])).rejects.toMatchObject({ code: "port-in-use" });
    await running.relay.update([egressService(api())]);
    expect(portOf(running)).toBe(port);
    await tunnel(running);
  });
});
