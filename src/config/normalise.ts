import { resolve } from "node:path";
import { SpiffeId, TrustDomain } from "../spiffe/spiffe-id.js";
import {
  AUTHZEN_IDENTITY,
  BUNDLE_ENDPOINT_IDENTITY,
  type Config,
  type IdempotentRoute,
  type IdentityConfig,
  type LaunchConfig,
  type RequiredFacts,
  type SandboxConfig,
  type ServiceConfig,
  type ServiceProtocol,
  type TcpConnections,
  type Upstream,
} from "./config.js";
import { defaultIdentityName, STANDARD_LIFETIMES } from "./cross-checks.js";
import { STANDARD_DURABLE } from "./durable-schema.js";
import { durationSeconds } from "./duration.js";
import { egressOf, secretsOf } from "./normalise-egress.js";
import { federationOf, oidcOf } from "./normalise-federation.js";
import { policyConfigOf } from "./policy-schema.js";
import type { ConfigFile, IdentityEntry, ServiceEntry, UpstreamEntry } from "./schema.js";
import { PROTOCOLS } from "./service-schema.js";
import { STANDARD_TCP_CONNECTIONS } from "./tcp-schema.js";
import { endpointOfHttpUrl, parseHostPort } from "./values.js";

export interface ConfigOrigin {
  /** Absolute. */
  readonly projectDirectory: string;
  readonly file: string | undefined;
  /** Hex SHA-256 of the file's bytes. */
  readonly digest: string;
}

/**
 * The configuration that a checked file means: paths made absolute, defaults filled in, every service with its identity.
 * `identityNames` are the keys of `identities` in the order of the file, which the mapping itself may have lost.
 */
export function normalise(written: ConfigFile, origin: ConfigOrigin, identityNames: readonly string[]): Config {
  const { projectDirectory } = origin;
  const trustDomain = TrustDomain.parse(written.trustDomain);
  const declared = identityNames.flatMap((name) => {
    const entry = written.identities?.[name];
    return entry === undefined ? [] : [identityOf(name, entry, trustDomain, projectDirectory)];
  });
  const byService = new Map(declared.map((identity) => [identity.service, identity]));
  const services = Object.entries(written.services ?? {}).map(([name, entry]) =>
    serviceOf(name, entry, byService.get(name), trustDomain, projectDirectory),
  );
  const federation = federationOf(written.federation, projectDirectory);
  const identities = [
    ...declared,
    ...services.filter(({ name }) => !byService.has(name)).map(defaultIdentityOf),
    ...(federation.endpoint !== undefined && federation.endpoint.web === undefined
      ? [ownIdentity(trustDomain, BUNDLE_ENDPOINT_IDENTITY)]
      : []),
    // Clients that know nothing of SPIFFE verify it by these names.
    ...(written.authzen?.listen === undefined
      ? []
      : [{ ...ownIdentity(trustDomain, AUTHZEN_IDENTITY), dnsNames: ["localhost", "127.0.0.1", "::1"] }]),
  ];
  const { x509, jwt, ca } = written.lifetimes ?? {};
  return {
    ...origin,
    trustDomain,
    identities,
    services,
    egress: egressOf(written.egress, trustDomain, projectDirectory),
    ...(written.proxy?.listen !== undefined && { proxyPort: written.proxy.listen }),
    secrets: secretsOf(written, projectDirectory),
    policiesDirectory: resolve(projectDirectory, written.policies ?? "policies"),
    policy: policyConfigOf(written.policy, projectDirectory),
    lifetimes: {
      x509Seconds: secondsOr(x509, STANDARD_LIFETIMES.x509),
      jwtSeconds: secondsOr(jwt, STANDARD_LIFETIMES.jwt),
      caSeconds: secondsOr(ca, STANDARD_LIFETIMES.ca),
    },
    upstreamAuthority: written.upstreamAuthority && {
      certificate: resolve(projectDirectory, written.upstreamAuthority.certificate),
      key: resolve(projectDirectory, written.upstreamAuthority.key),
    },
    federation,
    oidc: written.oidc && oidcOf(written.oidc, projectDirectory),
    authzen: {
      listen: written.authzen?.listen === undefined ? undefined : parseHostPort(written.authzen.listen),
      clients: written.authzen?.clients ?? [],
    },
    telemetry: written.telemetry,
    durable: {
      keepSeconds: secondsOr(written.durable?.keep, durationSeconds(STANDARD_DURABLE.keep) ?? 0),
      maxBytes: (written.durable?.megabytes ?? STANDARD_DURABLE.megabytes) * 1024 * 1024,
    },
    reload: written.reload ?? (identities.some((identity) => identity.launch !== undefined) ? "confirm" : "auto"),
    keys: written.keys ?? "disk",
  };
}

function identityOf(
  name: string,
  entry: IdentityEntry,
  trustDomain: TrustDomain,
  projectDirectory: string,
): IdentityConfig {
  return {
    name,
    id: SpiffeId.of(trustDomain, name),
    facts: factsOf(entry, projectDirectory),
    launch: entry.launch === undefined ? undefined : launchOf(entry.launch, projectDirectory),
    service: entry.service,
    dnsNames: entry.dnsNames ?? [],
    hint: entry.hint ?? "",
    ...(entry.labels !== undefined && { labels: entry.labels }),
    ...(entry.shadow === true && { shadow: true }),
    ...(entry.federatesWith !== undefined && { federatesWith: entry.federatesWith }),
  };
}

function factsOf(entry: IdentityEntry, projectDirectory: string): RequiredFacts {
  const exe = typeof entry.exe === "string" ? { path: entry.exe } : entry.exe;
  const parent = typeof entry.parentExe === "string" ? { path: entry.parentExe } : entry.parentExe;
  return {
    ...(entry.uid !== undefined && { uid: entry.uid }),
    ...(entry.user !== undefined && { user: entry.user }),
    ...(entry.gid !== undefined && { gid: entry.gid }),
    ...(entry.group !== undefined && { group: entry.group }),
    ...(entry.supplementaryGid !== undefined && { supplementaryGid: entry.supplementaryGid }),
    ...(entry.supplementaryGroup !== undefined && { supplementaryGroup: entry.supplementaryGroup }),
    ...(exe?.path !== undefined && { exePath: resolve(projectDirectory, exe.path) }),
    ...(exe?.sha256 !== undefined && { exeSha256: exe.sha256 }),
    ...(entry.systemdUnit !== undefined && { systemdUnit: entry.systemdUnit }),
    ...(entry.systemdUserUnit !== undefined && { systemdUserUnit: entry.systemdUserUnit }),
    ...(entry.cgroup !== undefined && { cgroup: entry.cgroup }),
    ...(entry.containerId !== undefined && { containerId: entry.containerId }),
    ...(entry.podUid !== undefined && { podUid: entry.podUid }),
    ...(entry.signature?.team !== undefined && { signingTeam: entry.signature.team }),
    ...(entry.signature?.identifier !== undefined && { signingIdentifier: entry.signature.identifier }),
    ...(parent?.path !== undefined && { parentExePath: resolve(projectDirectory, parent.path) }),
    ...(parent?.sha256 !== undefined && { parentExeSha256: parent.sha256 }),
  };
}

function launchOf(entry: NonNullable<IdentityEntry["launch"]>, projectDirectory: string): LaunchConfig {
  const full = Array.isArray(entry) ? { command: entry } : entry;
  return {
    argv: full.command,
    workingDirectory: resolve(projectDirectory, full.cwd ?? "."),
    keepEnv: full.keepEnv ?? [],
    children: full.children ?? false,
    instances: full.instances ?? false,
    subagents: full.subagents ?? [],
    sandbox: sandboxOf(full.sandbox, projectDirectory),
  };
}

function sandboxOf(
  entry: boolean | { readonly read?: string[] | undefined; readonly write?: string[] | undefined } | undefined,
  projectDirectory: string,
): SandboxConfig | undefined {
  if (entry === undefined || entry === false) return undefined;
  const { read, write } = entry === true ? {} : entry;
  const absolute = (paths: readonly string[] | undefined) =>
    (paths ?? []).map((path) => resolve(projectDirectory, path));
  return { read: absolute(read), write: absolute(write) };
}

function serviceOf(
  name: string,
  entry: ServiceEntry,
  identity: IdentityConfig | undefined,
  trustDomain: TrustDomain,
  projectDirectory: string,
): ServiceConfig {
  const protocol = protocolOf(entry);
  const upstream = entry[protocol];
  if (upstream === undefined) throw new TypeError(`service ${name} passed the schema without an upstream`);
  return {
    name,
    id: identity?.id ?? SpiffeId.of(trustDomain, defaultIdentityName(name, protocol)),
    protocol,
    upstream: upstreamOf(upstream, projectDirectory),
    ...listenOf(entry, projectDirectory),
    ...(protocol === "tcp" && { connections: connectionsOf(entry) }),
    ...(entry.labels !== undefined && { labels: entry.labels }),
    ...(entry.idempotent !== undefined && { idempotent: entry.idempotent.map(routeOf) }),
  };
}

function routeOf({ method, path, tool }: NonNullable<ServiceEntry["idempotent"]>[number]): IdempotentRoute {
  return {
    ...(method !== undefined && { method }),
    ...(path !== undefined && { path }),
    ...(tool !== undefined && { tool }),
  };
}

function listenOf(
  { listen }: ServiceEntry,
  projectDirectory: string,
): Pick<ServiceConfig, "listenPort" | "listenSocket"> {
  if (typeof listen !== "object") return { listenPort: listen };
  const { port, unix } = listen;
  if (unix === undefined) return { listenPort: port };
  return { listenPort: port, listenSocket: unix === true ? true : resolve(projectDirectory, unix) };
}

function connectionsOf({ connections }: ServiceEntry): TcpConnections {
  const { max, idleSeconds } = STANDARD_TCP_CONNECTIONS;
  return { max: connections?.max ?? max, idleSeconds: secondsOr(connections?.idle, idleSeconds) };
}

function protocolOf(entry: ServiceEntry): ServiceProtocol {
  return PROTOCOLS.find((protocol) => entry[protocol] !== undefined) ?? "http";
}

function upstreamOf(entry: UpstreamEntry, projectDirectory: string): Upstream {
  // A schema each: an http address is a URL, a tcp address is host:port.
  if (typeof entry === "string") return { kind: "tcp", ...(parseHostPort(entry) ?? endpointOfHttpUrl(entry)) };
  if (entry.command !== undefined) {
    return { kind: "command", argv: entry.command, workingDirectory: resolve(projectDirectory, entry.cwd ?? ".") };
  }
  if (entry.unix !== undefined) return { kind: "unix", path: resolve(projectDirectory, entry.unix) };
  const endpoint = parseHostPort(entry.mtls ?? "");
  if (endpoint === undefined) throw new TypeError("an upstream passed the schema without command, unix and mtls");
  return { kind: "mtls", ...endpoint };
}

/** Comes after the identities of the file (D9), in the order of the services. No process ever has one: only the service's relay leg does. */
function defaultIdentityOf(service: ServiceConfig): IdentityConfig {
  return {
    name: service.id.name,
    id: service.id,
    facts: {},
    launch: undefined,
    service: service.name,
    dnsNames: [],
    hint: "",
  };
}

/** Of agentid itself: no process ever has it. */
function ownIdentity(trustDomain: TrustDomain, name: string): IdentityConfig {
  const id = SpiffeId.of(trustDomain, name);
  return { name, id, facts: {}, launch: undefined, service: undefined, dnsNames: [], hint: "" };
}

function secondsOr(written: string | undefined, standard: number): number {
  return (written === undefined ? undefined : durationSeconds(written)) ?? standard;
}
