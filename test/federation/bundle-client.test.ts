import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { RequestListener } from "node:http";
import { createServer } from "node:https";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { describe, expect, it, onTestFinished } from "vitest";
import { type EndpointAuthentication, fetchBundle } from "../../src/federation/bundle-client.js";
import { isInside } from "../../src/federation/inside-address.js";
import { svidCertificate } from "../../src/federation/server-certificate.js";
import { serialiseSpiffeBundle } from "../../src/spiffe/spiffe-bundle.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { verifies } from "../requirements/verifies.js";
import { codeOf, createTrustDomain, type TestTrustDomain, temporaryFolder } from "./trust-domain.js";
import { createWebAuthority } from "./web-certificates.js";

const now = () => Date.now();

function spiffe(
  of: TestTrustDomain,
  changes: { id?: string; authorities?: readonly Buffer[] } = {},
): EndpointAuthentication {
  return {
    profile: "https_spiffe",
    endpointId: changes.id === undefined ? of.endpointId : SpiffeId.parse(changes.id),
    authorities: changes.authorities ?? of.authority.x509Authorities,
  };
}

/** Any HTTPS server that presents the endpoint's SVID of `of`. */
async function serve(of: TestTrustDomain, listener: RequestListener): Promise<string> {
  const server = createServer(svidCertificate(of.keeper, of.endpointId).current(), listener);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe("fetching a bundle with https_spiffe", () => {
  it(`${verifies("FD-4", "FD-5")} believes the endpoint with the right ID under the bundle at hand, and nobody else`, async () => {
    const other = createTrustDomain("other.local");
    const third = createTrustDomain("third.local");
    const impostor = createTrustDomain("other.local");
    const { url } = await other.serve();
    const fetchAs = (authentication: EndpointAuthentication) => fetchBundle(url, { authentication, now });
    expect(await fetchAs(spiffe(other))).toEqual(other.published.current());
    const refused = [
      spiffe(other, { id: "spiffe://other.local/agents/billing" }),
      spiffe(other, { id: "spiffe://third.local/agentid/bundle-endpoint" }),
      spiffe(other, { authorities: third.authority.x509Authorities }),
      spiffe(other, { authorities: impostor.authority.x509Authorities }),
      spiffe(other, { authorities: [] }),
      spiffe(third),
    ];
    for (const authentication of refused) {
      expect(await codeOf(() => fetchAs(authentication)), JSON.stringify(authentication)).toBe("endpoint-untrusted");
    }
    const afterExpiry = () => Date.now() + 600_000;
    expect(await codeOf(() => fetchBundle(url, { authentication: spiffe(other), now: afterExpiry }))).toBe(
      "endpoint-untrusted",
    );
  });

  it("follows the endpoint's authority from one rotation to the next", async () => {
    const other = createTrustDomain("other.local");
    const { url } = await other.serve();
    let held = await fetchBundle(url, { authentication: spiffe(other), now });
    const first = held;
    for (let rotation = 0; rotation < 3; rotation += 1) {
      other.authority.prepare();
      const known = { authorities: held.x509Authorities };
      held = await fetchBundle(url, { authentication: spiffe(other, known), now });
      other.authority.activate({ hurried: true });
      await other.keeper.rotateAll();
      // Who asked before the new authority signed believes it; who did not, does not.
      held = await fetchBundle(url, { authentication: spiffe(other, { authorities: held.x509Authorities }), now });
      expect(await codeOf(() => fetchBundle(url, { authentication: spiffe(other, known), now }))).toBe(
        "endpoint-untrusted",
      );
    }
    expect(held.sequence).toBe((first.sequence ?? 0n) + 3n);
  });

  it("sends nothing to a server that it does not believe", async () => {
    const other = createTrustDomain("other.local");
    const third = createTrustDomain("third.local");
    let asked = 0;
    const url = await serve(third, (_request, response) => {
      asked += 1;
      response.end(serialiseSpiffeBundle(third.published.current()));
    });
    expect(await codeOf(() => fetchBundle(url, { authentication: spiffe(other), now }))).toBe("endpoint-untrusted");
    expect(asked).toBe(0);
    expect((await fetchBundle(url, { authentication: spiffe(third), now })).x509Authorities).toHaveLength(1);
    expect(asked).toBe(1);
  });
});

describe("fetching a bundle with https_web", () => {
  it(`${verifies("FD-3")} believes a certificate of the Web PKI for the host's name, and no other`, async () => {
    const other = createTrustDomain("other.local");
    const [web, foreignWeb] = [await createWebAuthority(), await createWebAuthority()];
    const files = await web.issue(temporaryFolder());
    const server = createServer(
      { cert: readFileSync(files.certificate), key: readFileSync(files.key) },
      (_request, response) => response.end(serialiseSpiffeBundle(other.published.current())),
    );
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const fetchFrom = (host: string, authorities?: readonly string[]) =>
      fetchBundle(`https://${host}:${port}/`, {
        authentication: { profile: "https_web", ...(authorities && { authorities }) },
        now,
      });
    expect(await fetchFrom("127.0.0.1", [web.pem])).toEqual(other.published.current());
    expect(await codeOf(() => fetchFrom("127.0.0.1", [foreignWeb.pem]))).toBe("endpoint-untrusted");
    expect(await codeOf(() => fetchFrom("localhost", [web.pem]))).toBe("endpoint-untrusted");
    expect(await codeOf(() => fetchFrom("127.0.0.1"))).toBe("endpoint-untrusted");
    // A SPIFFE endpoint is nobody in the Web PKI.
    const { url } = await other.serve();
    const authentication = { profile: "https_web", authorities: [web.pem] } as const;
    expect(await codeOf(() => fetchBundle(url, { authentication, now }))).toBe("endpoint-untrusted");
  });
});

describe("an endpoint's answer", () => {
  it("that is no bundle is refused by what is wrong with it", async () => {
    const other = createTrustDomain("other.local");
    const answers: Record<string, RequestListener> = {
      "endpoint-answer": (_request, response) => response.writeHead(404).end("{}"),
      "endpoint-answer (204)": (_request, response) => response.writeHead(204).end(),
      "endpoint-answer (large)": (_request, response) => response.end(Buffer.alloc(1024 * 1024 + 1, " ")),
      "endpoint-answer (UTF-8)": (_request, response) => response.end(Buffer.from('{"keys":[],"x":"\xff"}', "latin1")),
      "endpoint-answer (no Location)": (_request, response) => response.writeHead(302).end(),
      "bundle-malformed": (_request, response) => response.end("<html>"),
      "bundle-malformed (twice)": (_request, response) => response.end('{"keys":[],"keys":[]}'),
      "bundle-sequence": (_request, response) => response.end('{"keys":[],"spiffe_sequence":-1}'),
      "endpoint-unreachable": (request) => request.socket.destroy(),
      "endpoint-unreachable (cut)": (request, response) => {
        response.writeHead(200, { "content-length": "100" });
        response.write("{", () => request.socket.destroy());
      },
      accepted: (_request, response) => response.end('{"keys":[]}'),
    };
    for (const [expected, listener] of Object.entries(answers)) {
      const url = await serve(other, listener);
      const code = await codeOf(() => fetchBundle(url, { authentication: spiffe(other), now }));
      expect(`${expected}: ${code}`).toBe(`${expected}: ${expected.replace(/ .*/, "")}`);
    }
  });

  it("that does not come in time, or not at all, ends the fetch", async () => {
    const other = createTrustDomain("other.local");
    const silent = createTcpServer(() => {}).listen(0, "127.0.0.1");
    onTestFinished(() => void silent.close());
    await once(silent, "listening");
    const handshakes = `https://127.0.0.1:${(silent.address() as AddressInfo).port}/`;
    const headers = await serve(other, () => {});
    const body = await serve(other, (_request, response) => response.writeHead(200).write("{"));
    const options = { authentication: spiffe(other), now };
    for (const url of [handshakes, headers, body]) {
      expect(await codeOf(() => fetchBundle(url, { ...options, timeoutMs: 300 })), url).toBe("endpoint-timeout");
      const giveUp = new AbortController();
      const fetching = codeOf(() => fetchBundle(url, { ...options, signal: giveUp.signal }));
      giveUp.abort();
      expect(await fetching, url).toBe("endpoint-unreachable");
    }
  });
});

describe("redirects", () => {
  it(`${verifies("FD-6")} are followed to an endpoint that proves itself the same way, and not remembered`, async () => {
    const other = createTrustDomain("other.local");
    const third = createTrustDomain("third.local");
    const target = await other.serve();
    let asked = 0;
    let location: string = target.url;
    const url = await serve(other, (_request, response) => {
      asked += 1;
      response.writeHead(asked % 2 === 0 ? 301 : 308, { location }).end();
    });
    const options = { authentication: spiffe(other), now };
    for (const times of [1, 2]) {
      expect(await fetchBundle(url, options)).toEqual(other.published.current());
      expect(asked).toBe(times);
    }
    location = (await third.serve()).url;
    expect(await codeOf(() => fetchBundle(url, options))).toBe("endpoint-untrusted");
    for (const bad of [
      `${target.url.replace("https:", "http:")}`,
      "file:///etc/passwd",
      "https://a:b@127.0.0.1/",
      "https://[",
    ]) {
      location = bad;
      expect(await codeOf(() => fetchBundle(url, options)), bad).toBe("endpoint-redirect");
    }
    asked = 0;
    location = url;
    expect(await codeOf(() => fetchBundle(url, options))).toBe("endpoint-redirect");
    expect(asked).toBe(6);
  });

  it("from outside never lead inside this machine or its network", () => {
    const insides = ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.1.1", "100.64.0.1", "0.0.0.0", "::1", "::"];
    insides.push("fd00::1", "fe80::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "64:ff9b::7f00:1");
    for (const address of insides) expect(isInside(address), address).toBe(true);
    for (const address of ["1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]) {
      expect(isInside(address), address).toBe(false);
    }
  });
});
