import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, get } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import type { X509Svid } from "../../src/identity/svid-source.js";
import { createX509Authority, type X509Authority } from "../../src/identity/x509-authority.js";
import { encodePem } from "../../src/spiffe/pem.js";
import { SpiffeId, TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { verifies } from "../requirements/verifies.js";
import { identity, type RunningApi, runApi, trustDomain } from "../workload-api/running-api.js";
import { prepareEnvoy, type RunningEnvoy, startEnvoy, until } from "./envoy.js";
import { agentidCluster, plainListener, type Secrets, tlsCluster, tlsListener, type Variant } from "./envoy-config.js";

const prepared = await prepareEnvoy();
if ("missing" in prepared) process.stderr.write(`SKIPPED: interop with Envoy: ${prepared.missing}\n`);
const exePath = "missing" in prepared ? "/nowhere" : prepared.exePath;

const proxy = identity("proxies/envoy", { exePath });
const client = identity("agents/client", { exePath: process.execPath });
const proxyId = proxy.id.toString();
const partner = TrustDomain.parse("partner.example");
const partnerAuthority = authorityOf(partner);

function authorityOf(of: TrustDomain): X509Authority {
  return createX509Authority({ trustDomain: of, lifetimeSeconds: 3600, now: Date.now() });
}

/** What TLS needs of an SVID. */
function pemOf({ certificates, privateKeyPkcs8 }: Pick<X509Svid, "certificates" | "privateKeyPkcs8">) {
  return {
    cert: certificates.map((der) => encodePem("CERTIFICATE", der)).join(""),
    key: encodePem("PRIVATE KEY", privateKeyPkcs8),
  };
}

/** Calls Envoy as whoever `own` is: whom Envoy took us for, and the certificate it showed. */
function call(port: number, own: ReturnType<typeof pemOf>): Promise<{ peer: unknown; shown: X509Certificate }> {
  return new Promise((resolve, reject) => {
    // Nobody's roots: what Envoy shows is looked at here, not by Node.
    const request = get({ host: "127.0.0.1", port, ...own, rejectUnauthorized: false, agent: false }, (response) => {
      const shown = (response.socket as TLSSocket).getPeerX509Certificate();
      response.resume();
      if (shown === undefined) reject(new Error("no certificate"));
      else resolve({ peer: response.headers["x-peer"], shown });
    });
    request.once("error", reject);
  });
}

function issuedByOurs(shown: X509Certificate): boolean {
  const roots = running.authority.x509Authorities.map((der) => new X509Certificate(der));
  return roots.some((root) => shown.checkIssued(root) && shown.verify(root.publicKey));
}

let running: RunningApi;
beforeAll(async () => {
  running = await runApi({
    identities: [proxy, client],
    change: (d) => ({
      ...d,
      bundles: {
        ...d.bundles,
        x509Bundle: (wanted) =>
          wanted.equals(partner)
            ? { trustDomain: partner, authorities: [partnerAuthority.certificate] }
            : d.bundles.x509Bundle(wanted),
      },
      jwtBundles: {
        trustDomains: [trustDomain, partner],
        refusalOfToken: () => undefined,
        jwtBundle: (wanted) => d.jwtBundles.jwtBundle(wanted),
        onBundleChange: (listener) => d.jwtBundles.onBundleChange(listener),
      },
    }),
  });
});
afterAll(() => running.close());

const clientPem = () => pemOf(running.keeper.x509Svid(client.id));
const issuedBy = (authority: X509Authority, id: SpiffeId) =>
  pemOf(authority.issue({ id, dnsNames: [], lifetimeSeconds: 600 }, Date.now()));

const bootstrap = (resources: object) => ({ node: { id: "interop", cluster: "interop" }, static_resources: resources });

describe.skipIf("missing" in prepared).each<Variant>(["GRPC", "DELTA_GRPC"])("unmodified Envoy, %s", (variant) => {
  const secrets = (validation: string, certificate = "default"): Secrets => ({ variant, certificate, validation });
  let envoy: RunningEnvoy;
  let upstream: ReturnType<typeof createServer>;
  let seenUpstream: X509Certificate | undefined;

  beforeAll(async () => {
    upstream = createServer({ ...clientPem(), requestCert: true, rejectUnauthorized: false }, (request, response) => {
      seenUpstream = (request.socket as TLSSocket).getPeerX509Certificate();
      response.end();
    }).listen(0, "127.0.0.1");
    await once(upstream, "listening");
    const { port } = upstream.address() as AddressInfo;
    envoy = await startEnvoy(
      exePath,
      bootstrap({
        listeners: [
          tlsListener("own", secrets("ROOTCA")),
          tlsListener("all", secrets("ALL", proxyId)),
          tlsListener("partner", secrets("spiffe://partner.example")),
          plainListener("to-client", "client"),
          plainListener("to-nobody", "nobody"),
        ],
        clusters: [
          agentidCluster(running.path),
          tlsCluster("client", port, secrets("ROOTCA"), [client.id.toString()]),
          tlsCluster("nobody", port, secrets("ROOTCA"), ["spiffe://shop.local/agents/nobody"]),
        ],
      }),
    );
  });
  afterAll(async () => {
    await envoy.stop();
    upstream.close();
  });

  it("presents its SVID and knows its caller by SPIFFE ID", async () => {
    for (const listener of ["own", "all"]) {
      const { peer, shown } = await call(envoy.ports[listener] ?? 0, clientPem());
      expect(peer).toBe(client.id.toString());
      expect(shown.subjectAltName).toBe(`URI:${proxyId}`);
      expect(issuedByOurs(shown)).toBe(true);
    }
  });

  it("verifies each caller with the bundle of its own trust domain, and only of those it asked for", async () => {
    const foreigner = issuedBy(partnerAuthority, SpiffeId.of(partner, "agents/x"));
    const impostor = issuedBy(authorityOf(trustDomain), client.id);
    const accepted = async (listener: string, who: ReturnType<typeof pemOf>) =>
      call(envoy.ports[listener] ?? 0, who).then(
        () => true,
        () => false,
      );
    const table = async (who: ReturnType<typeof pemOf>) => [
      await accepted("own", who),
      await accepted("all", who),
      await accepted("partner", who),
    ];
    expect(await table(clientPem())).toEqual([true, true, false]);
    expect(await table(foreigner)).toEqual([false, true, true]);
    expect(await table(impostor)).toEqual([false, false, false]);
  });

  it("presents its SVID to a service that is who it must be, and talks to no other", async () => {
    const answer = await fetch(`http://127.0.0.1:${envoy.ports["to-client"]}/`);
    expect(answer.status).toBe(200);
    expect(seenUpstream?.subjectAltName).toBe(`URI:${proxyId}`);
    expect((await fetch(`http://127.0.0.1:${envoy.ports["to-nobody"]}/`)).status).toBe(503);
  });

  it(`${verifies("ST-3")} follows rotations of SVID and authority without refusing anything`, async () => {
    const port = envoy.ports.own ?? 0;
    const serial = async () => (await call(port, clientPem())).shown.serialNumber;
    for (const rotate of [
      () => running.keeper.rotateAll(),
      async () => {
        running.authority.rotate();
        await running.keeper.rotateAll();
      },
      () => running.keeper.rotateAll(),
    ]) {
      const before = await serial();
      await rotate();
      await until(async () => (await serial().catch(() => before)) !== before);
      expect(issuedByOurs((await call(port, clientPem())).shown)).toBe(true);
    }
    expect(running.rejected).toEqual([]);
    expect(await envoy.counter("cluster.agentid.upstream_cx_connect_fail")).toBe(0);
  });
});

describe.skipIf("missing" in prepared)("Envoy with a secret that is not its own", () => {
  it("is refused by name", async () => {
    const refusedBefore = running.record.entries.filter(({ kind }) => kind === "svid.refused").length;
    const secrets = {
      variant: "GRPC",
      certificate: client.id.toString(),
      validation: "ROOTCA",
      patience: "0.5s",
    } as const;
    const starting = startEnvoy(
      exePath,
      bootstrap({
        listeners: [tlsListener("own", secrets)],
        clusters: [agentidCluster(running.path)],
      }),
    );
    const refused = () => running.record.entries.filter(({ kind }) => kind === "svid.refused").length > refusedBefore;
    await until(async () => refused());
    expect(running.refused.at(-1)?.reason).toBe(`"${client.id}" does not follow`);
    const envoy = await starting.catch(() => undefined);
    await envoy?.stop();
  });
});

describe.skipIf("missing" in prepared)("the configuration in the documentation", () => {
  it("lets in whoever has an SVID of a trust domain we know, and nobody else", async () => {
    const page = readFileSync(join(import.meta.dirname, "../../docs/workload-api.md"), "utf8");
    const [, block = ""] = /```yaml\n([^`]+)```/.exec(page) ?? [];
    // Any port that is free, instead of the one that people can remember.
    const yaml = block.replace("WORKLOAD_API_SOCKET", running.path).replace("port_value: 8443", "port_value: 0");
    const envoy = await startEnvoy(exePath, parse(yaml));
    const port = envoy.ports.mtls ?? 0;
    const { shown } = await call(port, clientPem());
    expect(shown.subjectAltName).toBe(`URI:${proxyId}`);
    await expect(call(port, issuedBy(authorityOf(trustDomain), client.id))).rejects.toThrow();
    await envoy.stop();
  });
});
