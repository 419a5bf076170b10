import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Pool } from "undici";
import { createCallerAttestor } from "../../../src/attestation/attestor.js";
import { executableDigests } from "../../../src/attestation/hash-cache.js";
import { createLaunchRegistry } from "../../../src/attestation/launches.js";
import { openAuditLog } from "../../../src/audit/chained-log.js";
import type { IdentityConfig } from "../../../src/config/config.js";
import { secureContextOptions } from "../../../src/http/mutual-tls.js";
import { createTrustBundles } from "../../../src/identity/bundles.js";
import { createMemoryKeyStore } from "../../../src/identity/key-store.js";
import { createIdentityRegistry } from "../../../src/identity/registry.js";
import { createSvidKeeper } from "../../../src/identity/svid-keeper.js";
import { createTrustDomainAuthority } from "../../../src/identity/trust-domain-authority.js";
import { systemClock } from "../../../src/platform/clock.js";
import { currentPlatform } from "../../../src/platform/index.js";
import { createDecisionPoint } from "../../../src/policy/decision-point.js";
import { policySetOf } from "../../../src/policy/policy-set.js";
import { createRelay } from "../../../src/relay/relay.js";
import type { RunningService } from "../../../src/relay/running-service.js";
import { SpiffeId, TrustDomain } from "../../../src/spiffe/spiffe-id.js";

export interface BenchAddresses {
  readonly outbound: number;
  readonly inbound: number;
  readonly client: { readonly cert: string; readonly key: string };
  readonly server: { readonly cert: string; readonly key: string };
  /** PEM of the root. */
  readonly ca: string;
}

const ANSWER = Buffer.from(
  JSON.stringify({ invoices: Array.from({ length: 16 }, (_, id) => ({ id, amount: 100 * id })) }),
);
const shop = TrustDomain.parse("shop.local");

/** Runs one part of the comparison in this process: waits for its message, answers with where it listens. */
export async function runPart(part: string): Promise<void> {
  const message = await new Promise<unknown>((resolve) => process.once("message", resolve));
  const parts: Record<string, (message: never) => Promise<object>> = {
    ...{ relay, "bare-proxy": bareProxy, "bare-server": bareServer },
  };
  const run = parts[part];
  if (run === undefined) throw new Error(`no such part: ${part}`);
  process.send?.(await run(message as never));
  // Memory is compared without what only waits to be collected.
  process.on("message", (asked) => {
    if (asked !== "collect") return;
    globalThis.gc?.();
    process.send?.("collected");
  });
  // Ends with the bench, however that ends.
  await new Promise((resolve) => process.once("disconnect", resolve));
  process.exit(0);
}

/** What a careful person would write in an afternoon: mutual TLS in front, a keep-alive pool behind, nothing decided or recorded. */
async function bareProxy({ port, server: own, ca }: BenchAddresses & { port: number }): Promise<object> {
  const pool = new Pool(`http://127.0.0.1:${port}`, { connections: 64, pipelining: 1 });
  const server = createTlsServer({ ...own, ca, requestCert: true, rejectUnauthorized: true }, (request, response) => {
    const {
      connection: _connection,
      "transfer-encoding": _encoding,
      "keep-alive": _alive,
      ...headers
    } = request.headers;
    pool.dispatch(
      { path: request.url ?? "/", method: "GET", headers, body: null },
      {
        onRequestStart: () => undefined,
        onResponseStart: (_controller, status, { connection: _, "keep-alive": __, ...answered }) =>
          void response.writeHead(status, answered),
        onResponseData: (_controller, chunk) => void response.write(chunk),
        onResponseEnd: () => void response.end(),
        onResponseError: () => void response.destroy(),
      },
    );
  });
  return { port: await listening(server) };
}

/** `node:https` that answers by itself: what a connection costs in memory without any of us. */
async function bareServer({ server: own, ca }: BenchAddresses): Promise<object> {
  const server = createTlsServer({ ...own, ca, requestCert: true, rejectUnauthorized: true }, (request, response) => {
    request.resume();
    response.writeHead(200, { "Content-Type": "application/json", "Content-Length": ANSWER.length }).end(ANSWER);
  });
  return { port: await listening(server) };
}

async function relay({ port, caller }: { port: number; caller: string }): Promise<BenchAddresses> {
  const directory = mkdtempSync(join(tmpdir(), "agentid-bench-"));
  process.once("exit", () => rmSync(directory, { recursive: true, force: true }));
  const clock = systemClock;
  const audit = await openAuditLog(directory, { clock });
  const identity = (name: string, more: Partial<IdentityConfig>): IdentityConfig => ({
    ...{ name, id: SpiffeId.of(shop, name), facts: {}, launch: undefined, service: undefined, dnsNames: [], hint: "" },
    ...more,
  });
  const identities = [
    identity("agents/bench", { facts: { exePath: caller } }),
    identity("services/invoices", { service: "invoices" }),
  ];
  const authority = createTrustDomainAuthority({
    ...{ trustDomain: shop, lifetimeSeconds: () => 86_400, keyStore: createMemoryKeyStore(), clock, audit },
  });
  const registry = createIdentityRegistry({ identities }, { identities: {} });
  const lifetimes = { x509Seconds: 600, jwtSeconds: 300, caSeconds: 86_400 };
  const svids = createSvidKeeper({ authority, registry, lifetimes: () => lifetimes, clock, audit });
  const platform = currentPlatform();
  const digests = executableDigests();
  const attestor = createCallerAttestor({ platform, digests, launches: createLaunchRegistry({ platform, digests }) });
  const rules = Array.from(
    { length: 10 },
    (_, n) => `  - { name: r${n}, allow: { from: agents/bench, to: invoices, path: /v${n}/** } }`,
  );
  const { set } = policySetOf([{ file: "policies/bench.yaml", bytes: Buffer.from(`rules:\n${rules.join("\n")}\n`) }], {
    trustDomain: shop,
    identities: identities.map(({ name }) => name),
    services: [{ name: "invoices", identity: "services/invoices", protocol: "http" }],
  });
  if (set === undefined) throw new Error("the bench's policy does not load");
  const decisionPoint = createDecisionPoint(set, { clock, random: randomBytes });
  const started = createRelay({
    ...{ attestor, registry, svids, audit, clock, projectDirectory: directory },
    bundles: createTrustBundles(authority),
    decisionPoint: () => decisionPoint,
    emit: () => undefined,
  });
  const service: RunningService = {
    ...{ name: "invoices", id: SpiffeId.of(shop, "services/invoices"), protocol: "http", listenPort: undefined },
    upstream: { kind: "tcp", host: "127.0.0.1", port },
  };
  await started.start([service]);
  const addresses = started.addressesOf("invoices");
  const pemOf = (name: string) => {
    const { cert, key } = secureContextOptions(svids.x509Svid(SpiffeId.of(shop, name)));
    return { cert, key };
  };
  const root = authority.x509Authorities[0]?.toString("base64") ?? "";
  return {
    outbound: Number(new URL(addresses?.url ?? "").port),
    inbound: addresses?.mtls.port ?? 0,
    client: pemOf("agents/bench"),
    server: pemOf("services/invoices"),
    ca: `-----BEGIN CERTIFICATE-----\n${root.replaceAll(/.{64}(?=.)/g, "$&\n")}\n-----END CERTIFICATE-----\n`,
  };
}

function listening(server: Server): Promise<number> {
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port)));
}
