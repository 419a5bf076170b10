import { type Change, type Comparison, differing, keysOfBoth, listText, ownOf, summary } from "./change.js";
import { identityChanges, labelChanges } from "./compare-identities.js";
import type {
  Config,
  EngineConfig,
  HostPort,
  IdempotentRoute,
  ServiceConfig,
  TcpConnections,
  Upstream,
} from "./config.js";
import { describeSource, describeTarget } from "./describe-egress.js";
import { describeEndpoint, describeOidc, describeRelationship, formatAddress } from "./describe-federation.js";
import { formatCommand } from "./describe-identity.js";
import { formatDuration } from "./duration.js";
import { describeEngine, describeScope } from "./policy-schema.js";

/** Compares what two configurations of one project permit. */
export function compareConfigs(old: Config, next: Config): Comparison {
  return summary([
    ...differing("trustDomain", old.trustDomain.name, next.trustDomain.name, true),
    ...identityChanges(old.identities, next.identities),
    ...serviceChanges(old.services, next.services),
    ...egressChanges(old, next),
    ...differing("policies", old.policiesDirectory, next.policiesDirectory, true),
    ...engineChanges(old, next),
    ...(["x509", "jwt", "ca"] as const).flatMap((kind) => {
      const [before, after] = [old.lifetimes[`${kind}Seconds`], next.lifetimes[`${kind}Seconds`]];
      return differing(`lifetimes.${kind}`, formatDuration(before), formatDuration(after), after > before);
    }),
    // Whoever holds another key can be anybody in this trust domain.
    ...differing("upstreamAuthority", describeUpstreamAuthority(old), describeUpstreamAuthority(next), true),
    ...federationChanges(old, next),
    ...authzenChanges(old, next),
    ...differing("telemetry.otlp", old.telemetry?.otlp, next.telemetry?.otlp, next.telemetry !== undefined),
    // Longer on the disk, or sooner forgotten and sent again: neither is less.
    ...differing(
      "durable.keep",
      formatDuration(old.durable.keepSeconds),
      formatDuration(next.durable.keepSeconds),
      true,
    ),
    ...differing("durable.megabytes", megabytes(old), megabytes(next), next.durable.maxBytes > old.durable.maxBytes),
    ...differing("reload", old.reload, next.reload, next.reload === "auto"),
    // Keys that stay on the disk can be taken from it.
    ...differing("keys", old.keys, next.keys, next.keys === "disk"),
  ]);
}

function serviceChanges(old: readonly ServiceConfig[], next: readonly ServiceConfig[]): readonly Change[] {
  const before = new Map(old.map((service) => [service.name, service]));
  const after = new Set(next.map((service) => service.name));
  return [
    ...old
      .filter((service) => !after.has(service.name))
      .map((service) => ({ line: `- services.${service.name}: ${describeService(service)}`, widens: false })),
    ...next.flatMap((service): readonly Change[] => {
      const was = before.get(service.name);
      if (was === undefined) return [{ line: `+ services.${service.name}: ${describeService(service)}`, widens: true }];
      const at = `services.${service.name}`;
      return [
        ...differing(at, describeService(was), describeService(service), true),
        ...differing(`${at} as`, was.id.name, service.id.name, true),
        // A port is where callers look; what they may do there is the same.
        ...differing(`${at}.listen`, was.listenPort, service.listenPort, false),
        ...listenSocketChanges(at, was.listenSocket, service.listenSocket),
        ...connectionsChanges(`${at}.connections`, was.connections, service.connections),
        ...labelChanges(at, was.labels, service.labels),
        ...idempotentChanges(`${at}.idempotent`, was.idempotent, service.idempotent),
      ];
    }),
  ];
}

/** A socket takes callers that no port takes: other network namespaces. A path in another folder may be one that others can replace. */
function listenSocketChanges(
  at: string,
  before: ServiceConfig["listenSocket"],
  after: ServiceConfig["listenSocket"],
): readonly Change[] {
  const shown = (socket: ServiceConfig["listenSocket"]) => (socket === true ? "in agentid's own folder" : socket);
  return differing(`${at}.listen.unix`, shown(before), shown(after), after !== undefined);
}

function connectionsChanges(
  at: string,
  before: TcpConnections | undefined,
  after: TcpConnections | undefined,
): readonly Change[] {
  // Another protocol is another service, which the line above says.
  if (before === undefined || after === undefined) return [];
  return [
    ...differing(`${at}.max`, before.max, after.max, after.max > before.max),
    ...differing(
      `${at}.idle`,
      formatDuration(before.idleSeconds),
      formatDuration(after.idleSeconds),
      after.idleSeconds > before.idleSeconds,
    ),
  ];
}

/** Another address, another header or another source of a secret sends something else to somebody else: all of that widens. */
function egressChanges(old: Config, next: Config): readonly Change[] {
  const [before, after] = [old.egress, next.egress].map((targets) => new Map(targets.map((one) => [one.name, one])));
  const names = [...new Set([...(before?.keys() ?? []), ...(after?.keys() ?? [])])].sort();
  const sources = keysOfBoth(old.secrets, next.secrets);
  return [
    ...names.flatMap((name): readonly Change[] => {
      const at = `egress.${name}`;
      const [was, is] = [before?.get(name), after?.get(name)];
      if (was === undefined || is === undefined) {
        return differing(at, was && describeTarget(was), is && describeTarget(is), is !== undefined);
      }
      return [
        ...differing(at, describeTarget(was), describeTarget(is), true),
        ...differing(`${at}.private`, String(was.private), String(is.private), is.private),
        ...differing(`${at}.listen`, was.listenPort, is.listenPort, false),
      ];
    }),
    ...differing("proxy.listen", old.proxyPort, next.proxyPort, false),
    ...sources.flatMap((name) => {
      const [was, is] = [ownOf(old.secrets, name), ownOf(next.secrets, name)];
      return differing(`secrets.${name}`, was && describeSource(was), is && describeSource(is), is !== undefined);
    }),
  ];
}

/** What is on the list may be done twice. */
function idempotentChanges(
  at: string,
  old: readonly IdempotentRoute[] = [],
  next: readonly IdempotentRoute[] = [],
): readonly Change[] {
  const shown = ({ method, path, tool }: IdempotentRoute) => tool ?? `${method ?? "*"} ${path ?? "/**"}`;
  const [before, after] = [old.map(shown), next.map(shown)];
  const text = (routes: readonly string[]) => (routes.length === 0 ? undefined : listText(routes));
  return differing(
    at,
    text(before),
    text(after),
    after.some((route) => !before.includes(route)),
  );
}

function megabytes({ durable }: Config): number {
  return durable.maxBytes / 1024 / 1024;
}

/** All that are asked must permit: a further engine narrows where the rules were asked about everything before, and are still. */
function engineChanges({ policy: old }: Config, { policy: next }: Config): readonly Change[] {
  const rulesJudgeAll = old.rulesScope === undefined && next.rulesScope === undefined;
  const byName = (engines: readonly EngineConfig[]) =>
    new Map(engines.map((engine) => [engine.name, describeEngine(engine)]));
  const [before, after] = [byName(old.engines), byName(next.engines)];
  const names = [...new Set([...before.keys(), ...after.keys()])].sort();
  return [
    ...differing("policy.rules.scope", describeScope(old.rulesScope), describeScope(next.rulesScope), true),
    ...names.flatMap((name) =>
      differing(`policy.engines.${name}`, before.get(name), after.get(name), before.has(name) || !rulesJudgeAll),
    ),
  ];
}

/** Whose word counts here, and what is published to whom. */
function describeUpstreamAuthority({ upstreamAuthority }: Config): string | undefined {
  return upstreamAuthority && `${upstreamAuthority.certificate}, key ${upstreamAuthority.key}`;
}

function federationChanges(old: Config, next: Config): readonly Change[] {
  const relationships = ({ federation }: Config) =>
    new Map(federation.relationships.map((one) => [one.trustDomain.name, describeRelationship(one)]));
  const [before, after] = [relationships(old), relationships(next)];
  const names = [...new Set([...before.keys(), ...after.keys()])].sort();
  const endpoint = ({ federation }: Config) => federation.endpoint && describeEndpoint(federation.endpoint);
  const oidc = (config: Config) => config.oidc && describeOidc(config.oidc);
  return [
    ...differing("federation.endpoint", endpoint(old), endpoint(next), endpoint(next) !== undefined),
    ...names.flatMap((name) =>
      differing(`federation.trustDomains.${name}`, before.get(name), after.get(name), after.has(name)),
    ),
    ...differing("oidc", oidc(old), oidc(next), oidc(next) !== undefined),
  ];
}

function authzenChanges({ authzen: old }: Config, { authzen: next }: Config): readonly Change[] {
  const asksMore = next.clients.some((name) => !old.clients.includes(name));
  const address = (listen: HostPort | undefined) => listen && formatAddress(listen);
  return [
    ...differing("authzen.listen", address(old.listen), address(next.listen), next.listen !== undefined),
    ...differing("authzen.clients", listText(old.clients), listText(next.clients), asksMore),
  ];
}

/** Where a service is, in one line: `mcp: node mcp/payments.js`, `http: http://127.0.0.1:8080`. */
function describeService(service: ServiceConfig): string {
  return `${service.protocol}: ${describeUpstream(service.upstream, service.protocol)}`;
}

/** `node mcp/payments.js`, `http://127.0.0.1:8080`, `tcp 127.0.0.1:5432`, `unix:/run/x.sock`, `mtls 127.0.0.1:8443`. */
export function describeUpstream(upstream: Upstream, protocol: ServiceConfig["protocol"]): string {
  switch (upstream.kind) {
    case "command":
      return `${formatCommand(upstream.argv)} in ${formatCommand([upstream.workingDirectory])}`;
    case "tcp":
      return `${protocol === "tcp" ? "tcp " : "http://"}${hostInUrl(upstream.host)}:${upstream.port}`;
    case "unix":
      return `unix:${upstream.path}`;
    case "mtls":
      return `mtls ${hostInUrl(upstream.host)}:${upstream.port}`;
  }
}

function hostInUrl(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
