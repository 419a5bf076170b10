import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { request } from "node:https";
import { connect as connectTcp, createServer } from "node:net";
import { type ConnectionOptions, connect } from "node:tls";
import { describe, expect, it, onTestFinished } from "vitest";
import { openBundleEndpoint } from "../../src/federation/bundle-endpoint.js";
import { type DocumentServer, serveDocuments } from "../../src/federation/document-server.js";
import { presentedChain } from "../../src/spiffe/presented-chain.js";
import { parseSpiffeBundle } from "../../src/spiffe/spiffe-bundle.js";
import { verifyX509Svid } from "../../src/spiffe/x509-svid.js";
import { createTestClock } from "../identity/test-trust-domain.js";
import { verifies } from "../requirements/verifies.js";
import { codeOf, createTrustDomain, temporaryFolder } from "./trust-domain.js";
import { createWebAuthority } from "./web-certificates.js";

interface Answer {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly body: string;
}

function ask(
  { address }: DocumentServer,
  options: { method?: string; path?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { method = "GET", path = "/", headers = {}, body } = options;
    const asked = request(
      { host: "127.0.0.1", port: address.port, method, path, headers, rejectUnauthorized: false, agent: false },
      (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => {
          text += chunk;
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
      },
    );
    asked.once("error", reject);
    asked.end(body);
  });
}

/** The protocol and cipher of a handshake, or the code of its failure; and who is at the other end. */
async function handshake({ address }: DocumentServer, options: ConnectionOptions = {}) {
  const socket = connect({ host: "127.0.0.1", port: address.port, rejectUnauthorized: false, ...options });
  onTestFinished(() => void socket.destroy());
  try {
    await once(socket, "secureConnect");
  } catch (thrown) {
    return { failed: String(thrown) };
  }
  return { socket, protocol: socket.getProtocol(), cipher: socket.getCipher().standardName };
}

describe("the bundle endpoint", () => {
  it(`${verifies("FD-1")} answers GET / with the bundle as JSON, and nothing else with anything`, async () => {
    const shop = createTrustDomain("shop.local");
    const server = await shop.serve();
    const answer = await ask(server);
    expect(answer).toMatchObject({ status: 200, headers: { "content-type": "application/json" } });
    expect(parseSpiffeBundle(answer.body)).toEqual(shop.published.current());
    expect(answer.body).not.toContain('"d"');
    for (const path of ["/x", "//", "/?x", "/.", "/index.json", "/.well-known/openid-configuration", "/keys", "*"]) {
      expect((await ask(server, { path })).status, path).toBe(404);
    }
    for (const method of ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]) {
      expect(await ask(server, { method }), method).toMatchObject({ status: 405, headers: { allow: "GET" } });
    }
    expect((await ask(server, { method: "GET", body: "x".repeat(10) })).status).toBe(200);
    expect(shop.problems).toEqual([]);
  });

  it("is not for browsers, and on loopback not for other names", async () => {
    const shop = createTrustDomain("shop.local");
    const server = await shop.serve();
    const { port } = server.address;
    const host = (name: string) => ask(server, { headers: { host: name } }).then(({ status }) => status);
    for (const good of [`127.0.0.1:${port}`, `localhost:${port}`, `[::1]:${port}`, `LocalHost:${port}`])
      expect(await host(good)).toBe(200);
    for (const bad of [`evil.example:${port}`, "evil.example", `127.0.0.1:${port + 1}`]) {
      expect(await host(bad), bad).toBe(421);
    }
    expect((await ask(server, { headers: { origin: "https://evil.example" } })).status).toBe(403);
  });

  it(`${verifies("FD-2")} speaks TLS 1.2 and 1.3 with forward secrecy only`, async () => {
    const server = await createTrustDomain("shop.local").serve();
    expect(await handshake(server)).toMatchObject({ protocol: "TLSv1.3" });
    expect(await handshake(server, { maxVersion: "TLSv1.2" })).toMatchObject({
      protocol: "TLSv1.2",
      cipher: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    });
    const refused: ConnectionOptions[] = [
      { minVersion: "TLSv1.1", maxVersion: "TLSv1.1", ciphers: "DEFAULT:@SECLEVEL=0" },
      { maxVersion: "TLSv1.2", ciphers: "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0" },
      { maxVersion: "TLSv1.2", ciphers: "ECDHE-ECDSA-AES128-SHA256" },
    ];
    for (const options of refused) expect(await handshake(server, options)).toHaveProperty("failed");
  });

  it(`${verifies("FD-1", "FD-4")} presents the SVID of its own identity, replaced as it rotates, and asks for no certificate`, async () => {
    const shop = createTrustDomain("shop.local");
    const server = await shop.serve();
    const peer = async () => {
      const { socket } = await handshake(server);
      if (socket === undefined) throw new Error("no handshake");
      const [leaf] = presentedChain(socket);
      const { id } = verifyX509Svid(presentedChain(socket), () => shop.authority.x509Authorities, new Date());
      return { id: id.toString(), leaf: leaf?.toString("hex") };
    };
    const before = await peer();
    expect(before.id).toBe("spiffe://shop.local/agentid/bundle-endpoint");
    shop.keeper.rotate(shop.endpointId);
    const after = await peer();
    expect(after.id).toBe(before.id);
    expect(after.leaf).not.toBe(before.leaf);
  });

  it("presents a web certificate from files, follows their replacement and keeps the last good one", async () => {
    const clock = createTestClock(Date.now());
    const shop = createTrustDomain("shop.local", { clock });
    const web = await createWebAuthority();
    const folder = temporaryFolder();
    const files = await web.issue(folder, ["bundles.example"]);
    const problems: unknown[] = [];
    const server = await openBundleEndpoint({
      config: { listen: { host: "127.0.0.1", port: 0 }, web: files },
      ours: shop.trustDomain,
      published: shop.published,
      svids: shop.keeper,
      clock,
      onProblem: (thrown) => problems.push(thrown),
    });
    onTestFinished(() => server.close());
    const serial = async () => {
      const { socket, failed } = await handshake(server, { ca: web.pem, rejectUnauthorized: true });
      return failed ?? socket?.getPeerCertificate().serialNumber;
    };
    const first = await serial();
    expect(first).toMatch(/^[0-9A-F]+$/);
    expect((await ask(server, { headers: { host: `bundles.example:${server.address.port}` } })).status).toBe(200);
    writeFileSync(files.key, "no key");
    clock.advance(60_000);
    clock.advance(60_000);
    expect(problems).toHaveLength(1);
    expect(await serial()).toBe(first);
    await web.issue(folder);
    clock.advance(60_000);
    expect(await serial()).not.toBe(first);
    expect(problems).toHaveLength(1);
  });

  it("says who holds its port, and which certificate cannot be presented", async () => {
    const shop = createTrustDomain("shop.local");
    const holder = createServer().listen(0, "127.0.0.1");
    onTestFinished(() => void holder.close());
    await once(holder, "listening");
    const { port } = holder.address() as { port: number };
    expect(await codeOf(() => shop.serve(port))).toBe("port-in-use");
    const open = (certificate: string) =>
      openBundleEndpoint({
        config: { listen: { host: "127.0.0.1", port: 0 }, web: { certificate, key: "/nowhere" } },
        ...{ ours: shop.trustDomain, published: shop.published, svids: shop.keeper },
        ...{ clock: createTestClock(), onProblem: () => {} },
      });
    expect(await codeOf(() => open("/nowhere"))).toBe("certificate-unreadable");
  });

  it("answers 503 when the document cannot be made", async () => {
    const problems: unknown[] = [];
    const server = await serveDocuments({
      listen: { host: "127.0.0.1", port: 0 },
      documents: [{ path: "/", body: () => JSON.stringify({ size: 1n }) }],
      ...{ certificate: undefined, names: [], what: "test", onProblem: (thrown: unknown) => problems.push(thrown) },
    });
    const answer = await fetch(`http://127.0.0.1:${server.address.port}/`);
    expect(answer.status).toBe(503);
    expect(problems).toHaveLength(1);
    await server.close();
  });

  it("closes without waiting for anybody, also with connections that are idle or still shaking hands", async () => {
    const server = await createTrustDomain("shop.local").serve();
    const shaking = connectTcp(server.address.port, "127.0.0.1");
    await once(shaking, "connect");
    const { socket } = await handshake(server);
    const closed = [once(shaking, "close"), once(socket ?? shaking, "close")];
    await server.close();
    await Promise.all(closed);
  });
});
