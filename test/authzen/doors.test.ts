import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { Agent, request } from "node:https";
import { join } from "node:path";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { promisify } from "node:util";
import { afterEach, describe, expect, it } from "vitest";
import { AuditError } from "../../src/audit/audit-error.js";
import { secureContextOf } from "../../src/http/mutual-tls.js";
import { createMemoryKeyStore } from "../../src/identity/key-store.js";
import { createIdentityRegistry } from "../../src/identity/registry.js";
import { createSvidKeeper } from "../../src/identity/svid-keeper.js";
import { createTrustDomainAuthority } from "../../src/identity/trust-domain-authority.js";
import { systemClock } from "../../src/platform/clock.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { identity } from "../relay/running-relay.js";
import { exchange, type Target } from "./certification.js";
import { decidesBy, gateway, type RunningAuthzen, runAuthzen } from "./running-authzen.js";

const EVALUATION = "/access/v1/evaluation";
const question = {
  subject: { type: "user", id: "alice" },
  action: { name: "read" },
  resource: { type: "record", id: "record-1" },
};

let running: RunningAuthzen;
afterEach(() => running.close());

const permits = () => ({ decisionPoint: () => decidesBy(() => true) });

async function ask(target: Target, headers: Record<string, string> = {}) {
  const all = { "content-type": "application/json", ...headers };
  return exchange(target, { method: "POST", path: EVALUATION, headers: all, body: JSON.stringify(question) });
}

const lastDecision = () => running.record.entries.filter(({ kind }) => kind === "decision").at(-1)?.fields;

describe("over TLS", () => {
  it("answers an identity that is a client, by its SVID", async () => {
    running = await runAuthzen({ change: permits });
    const answer = await ask(running.tlsAs("agents/gateway"));
    expect(answer.status).toBe(200);
    expect(lastDecision()).toMatchObject({ verdict: "ALLOW", enforcementPoint: "spiffe://shop.local/agents/gateway" });
  });

  it("answers 401 and a challenge without a certificate, and has that on record", async () => {
    running = await runAuthzen({ change: permits });
    const answer = await ask(running.tlsAs());
    expect(answer).toMatchObject({ status: 401, headers: { "www-authenticate": 'X509-SVID realm="shop.local"' } });
    expect(lastDecision()).toMatchObject({ verdict: "DENY", rule: "certificate-refused", leg: "authzen" });
    expect((await ask(running.tlsAs("agents/gateway"))).status).toBe(200);
  });

  it("answers 403 to an identity that is no client", async () => {
    running = await runAuthzen({ change: permits });
    const answer = await ask(running.tlsAs("agents/stranger"));
    expect(answer).toMatchObject({ status: 403 });
    expect(answer.text).toContain("authzen.clients");
    expect(lastDecision()).toMatchObject({ rule: "client-unknown", caller: "spiffe://shop.local/agents/stranger" });
  });

  it("answers 401 to the same name by another authority", async () => {
    running = await runAuthzen({ change: permits });
    const forged = foreignSvid("shop.local");
    expect((await ask(running.tlsAs("agents/gateway", forged))).status).toBe(401);
    expect((await ask(running.tlsAs("agents/gateway"))).status).toBe(200);
  });

  it("answers 403 to the same name in another trust domain that is trusted", async () => {
    const theirs = TrustDomain.parse("other.local");
    const other = foreignSvid("other.local");
    running = await runAuthzen({
      change: ({ bundles }) => ({
        ...permits(),
        bundles: {
          ...bundles,
          x509Bundle: (trustDomain) =>
            trustDomain.equals(theirs)
              ? { trustDomain: theirs, authorities: [other.root] }
              : bundles.x509Bundle(trustDomain),
          refusalOf: () => undefined,
          revocationLists: () => [],
          onBundleChange: () => () => undefined,
        },
      }),
    });
    expect((await ask(running.tlsAs("agents/gateway", other))).status).toBe(403);
    expect((await ask(running.tlsAs("agents/gateway"))).status).toBe(200);
  });

  it("is TLS 1.3 without resumption, by a certificate for this machine's names", async () => {
    running = await runAuthzen({ change: permits });
    const connectAs = (servername: string, session?: Buffer) =>
      new Promise<TLSSocket>((resolve, reject) => {
        const socket = connectTls({
          ...{ host: "127.0.0.1", port: running.tlsPort, ca: running.ca(), servername },
          secureContext: undefined,
          ...(session && { session }),
        });
        socket.once("secureConnect", () => resolve(socket)).once("error", reject);
      });
    const first = await connectAs("localhost");
    expect(first).toMatchObject({ authorized: true });
    expect(first.getProtocol()).toBe("TLSv1.3");
    expect(first.getPeerCertificate().subjectaltname).toBe(
      "URI:spiffe://shop.local/agentid/authzen, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1",
    );
    const session = first.getSession();
    first.destroy();
    const second = await connectAs("localhost", session);
    expect(second.isSessionReused()).toBe(false);
    second.destroy();
    await expect(connectAs("evil.example")).rejects.toMatchObject({ code: "ERR_TLS_CERT_ALTNAME_INVALID" });
    const old = connectTls({ host: "127.0.0.1", port: running.tlsPort, ca: running.ca(), maxVersion: "TLSv1.2" });
    await expect(new Promise((_, reject) => old.once("error", reject))).rejects.toThrow();
  });

  it("ends the connections of a client that is revoked", async () => {
    running = await runAuthzen({ change: permits });
    const socket = connectTls({
      ...{ host: "127.0.0.1", port: running.tlsPort, ca: running.ca(), servername: "localhost" },
      secureContext: secureContextOf(running.svidOf("agents/gateway")),
      rejectUnauthorized: false,
    });
    await new Promise((resolve) => socket.once("secureConnect", resolve));
    await new Promise((resolve) => {
      socket.once("data", resolve);
      socket.write(`GET /.well-known/authzen-configuration HTTP/1.1\r\nHost: localhost:${running.tlsPort}\r\n\r\n`);
    });
    const closed = new Promise((resolve) => socket.once("close", resolve));
    running.authority.prepare();
    running.authority.activate({ hurried: true });
    const former = running.authority.generations.find(({ state }) => state === "old");
    running.authority.revoke(former?.keyId ?? "");
    await closed;
    expect((await ask(running.tlsAs("agents/gateway"))).status).toBe(200);
  });

  it("answers 401 on a connection whose certificate has expired meanwhile", async () => {
    let later = 0;
    running = await runAuthzen({
      change: ({ clock }) => ({
        ...permits(),
        clock: { ...clock, now: () => clock.now() + later, after: (ms, run) => clock.after(ms, run) },
      }),
    });
    const { tls } = running.tlsAs("agents/gateway");
    const agent = new Agent({ ...tls, keepAlive: true, maxSockets: 1 });
    const askAgain = () =>
      new Promise<number | undefined>((resolve, reject) => {
        const headers = { "content-type": "application/json" };
        request({ agent, host: "localhost", port: running.tlsPort, method: "POST", path: EVALUATION, headers })
          .once("response", (response) => response.resume().once("end", () => resolve(response.statusCode)))
          .once("error", reject)
          .end(JSON.stringify(question));
      });
    try {
      expect(await askAgain()).toBe(200);
      later = 3_600_000;
      expect(await askAgain()).toBe(401);
      expect(lastDecision()).toMatchObject({ rule: "certificate-expired" });
      later = 0;
      expect(await askAgain()).toBe(200);
    } finally {
      agent.destroy();
    }
  });

  it("refuses other names than its own and pages of other sites", async () => {
    running = await runAuthzen({ change: permits });
    const target = running.tlsAs("agents/gateway");
    expect((await ask(target, { host: "evil.example" })).status).toBe(421);
    expect((await ask(target, { host: `evil.example:${running.tlsPort}` })).status).toBe(421);
    expect((await ask(target, { origin: "https://evil.example" })).status).toBe(403);
    expect((await ask(target, { "sec-fetch-site": "cross-site" })).status).toBe(403);
    expect((await ask(target, { host: `localhost:${running.tlsPort}` })).status).toBe(200);
  });
});

describe("on the Unix socket", () => {
  it("answers a process of an identity that is a client, by the kernel's word", async () => {
    running = await runAuthzen({ change: permits });
    expect((await ask(running.unix)).status).toBe(200);
    expect(lastDecision()).toMatchObject({
      enforcementPoint: "spiffe://shop.local/agents/tests",
      enforcementPointDetail: expect.stringContaining(`pid ${process.pid}`),
    });
  });

  it("answers 403 to an identity that is no client, 401 to no identity", async () => {
    running = await runAuthzen({ change: () => ({ ...permits(), clients: () => ["agents/gateway"] }) });
    expect((await ask(running.unix)).status).toBe(403);
    expect(lastDecision()).toMatchObject({ verdict: "DENY", rule: "client-unknown" });
    const curl = await curlOn(running.unix);
    expect(curl).toMatchObject({ status: 401, challenge: 'Kernel realm="shop.local"' });
    expect(lastDecision()).toMatchObject({
      rule: "no-identity",
      callerDetail: expect.stringMatching(/curl/),
    });
  });

  it("answers the owner's own process", async () => {
    let owner = true;
    running = await runAuthzen({
      change: () => ({
        ...permits(),
        owner: () =>
          owner ? { allowed: true, evidence: "the owner" } : { allowed: false, reason: "an agent started it" },
      }),
    });
    expect(await curlOn(running.unix)).toMatchObject({ status: 200 });
    expect(lastDecision()).toMatchObject({ enforcementPoint: "owner" });
    owner = false;
    expect(await curlOn(running.unix)).toMatchObject({ status: 401 });
  });

  it("asks the kernel again before each request", async () => {
    let changed = false;
    running = await runAuthzen({
      change: ({ attestor }) => ({
        ...permits(),
        attestor: {
          ...attestor,
          async ofUnixSocket(fd) {
            const caller = await attestor.ofUnixSocket(fd);
            return {
              get facts() {
                return caller.facts;
              },
              get launch() {
                return caller.launch;
              },
              recheck() {
                if (changed) throw new Error("it executed another program");
                caller.recheck();
              },
              close: () => caller.close(),
            };
          },
        },
      }),
    });
    expect((await ask(running.unix)).status).toBe(200);
    changed = true;
    expect((await ask(running.unix)).status).toBe(401);
    expect(lastDecision()).toMatchObject({ rule: "process-changed" });
  });

  it("is closed to other users, and to other names", async () => {
    running = await runAuthzen({ change: permits });
    const { statSync } = await import("node:fs");
    expect(statSync(running.unix.socketPath).mode & 0o777).toBe(0o600);
    expect((await ask(running.unix, { host: "evil.example" })).status).toBe(421);
    expect((await ask(running.unix, { origin: "http://localhost" })).status).toBe(403);
  });
});

it("answers nothing that cannot be recorded", async () => {
  running = await runAuthzen({ change: permits });
  for (const target of [running.unix, running.tlsAs("agents/gateway")]) {
    running.record.writable = false;
    const refused = await ask(target);
    expect(refused.status).toBe(503);
    expect(refused.text).not.toContain("decision");
    running.record.writable = true;
    expect((await ask(target)).status).toBe(200);
  }
});

it("answers no batch of which one decision cannot be recorded", async () => {
  let left = 2;
  running = await runAuthzen({
    change: ({ audit }) => ({
      ...permits(),
      audit: {
        ...audit,
        append: audit.append,
        async appendInTurn(kind, fields) {
          left -= 1;
          if (left < 0) throw new AuditError("audit-unwritable", "the disk is full");
          return audit.append(kind, fields);
        },
      },
    }),
  });
  const body = JSON.stringify({ ...question, evaluations: [{}, {}, {}] });
  const send = () =>
    exchange(running.unix, {
      method: "POST",
      path: "/access/v1/evaluations",
      headers: { "content-type": "application/json" },
      body,
    });
  expect((await send()).status).toBe(503);
  left = 3;
  expect((await send()).status).toBe(200);
});

/** curl is another program than the one that has the identity. */
async function curlOn({ socketPath }: { socketPath: string }): Promise<{ status: number; challenge: string }> {
  const body = join(socketPath, "..", "question.json");
  writeFileSync(body, JSON.stringify(question));
  const { stdout } = await promisify(execFile)("curl", [
    ...["-sS", "--unix-socket", socketPath, "-H", "content-type: application/json", "--data-binary", `@${body}`],
    ...["-o", "/dev/null", "-w", "%{http_code} %header{www-authenticate}", `http://localhost${EVALUATION}`],
  ]);
  const [status = "", ...challenge] = stdout.split(" ");
  return { status: Number(status), challenge: challenge.join(" ") };
}

/** An SVID for agents/gateway of `trustDomain` by an authority that nobody here knows, with that authority's certificate. */
function foreignSvid(trustDomain: string) {
  const domain = TrustDomain.parse(trustDomain);
  const id = SpiffeId.of(domain, gateway.name);
  const authority = createTrustDomainAuthority({
    trustDomain: domain,
    lifetimeSeconds: () => 86_400,
    keyStore: createMemoryKeyStore(),
    clock: systemClock,
    audit: NO_RECORD,
  });
  const registry = createIdentityRegistry({ identities: [identity(gateway.name, { id })] }, { identities: {} });
  const lifetimes = { x509Seconds: 600, jwtSeconds: 300, caSeconds: 86_400 };
  const keeper = createSvidKeeper({
    authority,
    registry,
    lifetimes: () => lifetimes,
    clock: systemClock,
    audit: NO_RECORD,
  });
  const svid = keeper.x509Svid(id);
  const [root = Buffer.alloc(0)] = authority.x509Authorities;
  keeper.close();
  authority.close();
  return { ...svid, root };
}

const NO_RECORD = {
  append: () => ({ sequence: 0, hash: "" }),
  appendInTurn: async () => ({ sequence: 0, hash: "" }),
  read: async () => [],
  size: 0,
  close: async () => undefined,
};
