import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AuthzenParts } from "../../src/authzen/parts.js";
import { createAnswerer } from "../../src/authzen/server.js";
import { openTlsDoor } from "../../src/authzen/tls-door.js";
import { openUnixDoor } from "../../src/authzen/unix-door.js";
import { AUTHZEN_IDENTITY, type IdentityConfig } from "../../src/config/config.js";
import type { X509Svid } from "../../src/identity/svid-source.js";
import type { AccessRequest, Decision, DecisionPoint, Obligation } from "../../src/policy/access-request.js";
import { type Enforcement, enforceable } from "../../src/policy/enforcement.js";
import type { Entities, Entity } from "../../src/policy/entities.js";
import { ruledAs } from "../../src/policy/policy-names.js";
import type { RelayParts } from "../../src/relay/exchange.js";
import type { RunningService } from "../../src/relay/running-service.js";
import { encodePem } from "../../src/spiffe/pem.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { identity, runRelay, shop, testAgent } from "../relay/running-relay.js";
import type { Target } from "./certification.js";

export const gateway = identity("agents/gateway");
const stranger = identity("agents/stranger");
const listener = identity(AUTHZEN_IDENTITY, { dnsNames: ["localhost", "127.0.0.1", "::1"] });

export const payments: RunningService = {
  name: "payments",
  id: SpiffeId.of(shop, "mcp/payments"),
  protocol: "mcp",
  listenPort: undefined,
  upstream: { kind: "unix", path: "/nonexistent/payments.sock" },
};

/** Both doors over a real trust domain and the kernel's attestor; this process is `agents/tests`. */
export async function runAuthzen(
  options: {
    rules?: string;
    identities?: readonly IdentityConfig[];
    services?: readonly RunningService[];
    change?: (parts: AuthzenParts) => Partial<AuthzenParts>;
    relay?: (parts: RelayParts) => RelayParts;
  } = {},
) {
  const { services = [payments] } = options;
  const relay = await runRelay({
    services,
    identities: [testAgent, gateway, stranger, listener, ...(options.identities ?? [])],
    rules: options.rules ?? "rules: []\n",
    ...(options.relay !== undefined && { change: options.relay }),
  });
  const base: AuthzenParts = {
    trustDomain: shop,
    attestor: relay.parts.attestor,
    registry: relay.registry,
    svids: relay.keeper,
    bundles: relay.bundles,
    decisionPoint: relay.parts.decisionPoint,
    audit: relay.record,
    clock: relay.parts.clock,
    emit: relay.parts.emit,
    clients: () => ["agents/tests", "agents/gateway"],
    owner: () => ({ allowed: false, reason: "not in this test" }),
    launchedBy: () => [],
    services: () =>
      services.map(({ name, id, protocol }) => ({ name, id: id.toString(), protocol: ruledAs(protocol) })),
    entities: () => directory([]),
    actionsOn: () => [],
    toolsOf: () => [],
    obligations: () => [],
  };
  const parts: AuthzenParts = { ...base, ...options.change?.(base) };
  const folder = mkdtempSync(join(tmpdir(), "agentid-authzen-"));
  const path = join(folder, "authzen.sock");
  const answer = createAnswerer(parts);
  const unix = await openUnixDoor(parts, answer, path);
  const tls = await openTlsDoor(parts, answer, { listen: { host: "127.0.0.1", port: 0 }, id: listener.id });
  const ca = () =>
    (relay.bundles.x509Bundle(shop)?.authorities ?? []).map((der) => encodePem("CERTIFICATE", der)).join("");

  return {
    ...relay,
    parts,
    unix: { base: "http://localhost", socketPath: path } satisfies Target,
    tlsPort: tls.port,
    ca,
    /** The TLS door as the holder of `name`'s SVID sees it; without a name, without a certificate. */
    tlsAs(name?: string, svid: X509Svid | undefined = name === undefined ? undefined : relay.svidOf(name)): Target {
      const own = svid && {
        cert: svid.certificates.map((der) => encodePem("CERTIFICATE", der)).join(""),
        key: encodePem("PRIVATE KEY", svid.privateKeyPkcs8),
      };
      return { base: `https://127.0.0.1:${tls.port}`, tls: { ca: ca(), ...own } };
    },
    async close() {
      await Promise.all([unix.close(0), tls.close(0)]);
      rmSync(folder, { recursive: true, force: true });
      await relay.close();
    },
  };
}

export type RunningAuthzen = Awaited<ReturnType<typeof runAuthzen>>;

export function directory(entities: readonly Entity[]): Entities {
  return {
    types: [...new Set(entities.map(({ type }) => type))],
    get: (type, id) => entities.find((one) => one.type === type && one.id === id),
    ofType: (type) => entities.filter((one) => one.type === type),
  };
}

/** A decision point that decides by a function, for what only decisions of a known kind show. */
export function decidesBy(
  permits: (request: AccessRequest) => boolean,
  obligations: readonly Obligation[] = [],
): DecisionPoint & { asked: AccessRequest[] } {
  const asked: AccessRequest[] = [];
  let made = 0;
  const decide = (request: AccessRequest, enforcement?: Enforcement): Decision => {
    asked.push(request);
    const allowed = permits(request);
    made += 1;
    const verdict = {
      ...{ allowed, rule: "the-rule", at: undefined, reason: "by function", message: undefined },
      ...{ values: {}, conditional: false, obligations: allowed ? obligations : [] },
    };
    return {
      ...enforceable(verdict, enforcement),
      id: `d${made}`,
      engine: "test",
      policyDigest: "0".repeat(64),
      deniedAbove: undefined,
      durationMicros: 1,
    };
  };
  return {
    asked,
    policyDigest: "0".repeat(64),
    decide,
    wouldDecide: decide,
    explain: (request) => ({ decision: decide(request), considered: [] }),
    couldAllowTool: () => false,
    couldReach: () => false,
  };
}

/** The certification scenario's users and records. */
export const fixtureEntities = directory([
  { type: "user", id: "alice", properties: {} },
  { type: "user", id: "bob", properties: { role: "admin" } },
  { type: "record", id: "record-1", properties: { status: "active" } },
  { type: "record", id: "record-2", properties: { status: "archived" } },
]);

/** The certification scenario's eight rules. */
export function fixturePermits({ subject, action, resource }: AccessRequest): boolean {
  if (subject.type !== "user" || resource.type !== "record") return false;
  const isArchived = resource.properties?.status === "archived";
  if (action.name === "read") return true;
  if (action.name === "write") return isArchived ? subject.properties?.role === "admin" : subject.id === "alice";
  return action.name === "delete" && subject.id === "alice" && action.properties?.soft === true;
}

export const fixtureActions = ["read", "write", "delete"];
