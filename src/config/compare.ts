import { canonicalize } from "json-canonicalize";
import type {
  Config,
  EngineConfig,
  HostPort,
  IdempotentRoute,
  IdentityConfig,
  Labels,
  LaunchConfig,
  Lock,
  LockedIdentity,
  RequiredFacts,
  SandboxConfig,
  ServiceConfig,
  Upstream,
} from "./config.js";
import { describeEndpoint, describeOidc, describeRelationship, formatAddress } from "./describe-federation.js";
import { formatDuration } from "./duration.js";
import { describeEngine, describeScope } from "./policy-schema.js";
import type { PinnedTools } from "./tool-pin.js";

/** What a reload changes, and whether anything is permitted afterwards that was not before (D13). What cannot be shown narrower is wider. */
export interface Comparison {
  readonly widened: boolean;
  /** One line each, `+ identities.agents/billing: launch python3 agents/billing.py`; empty when nothing differs. */
  readonly changes: readonly string[];
}

/** One difference; `widens` marks it in the text, so that people see which line waits for them. */
interface Change {
  readonly line: string;
  readonly widens: boolean;
}

/** Compares what two configurations of one project permit. */
export function compareConfigs(old: Config, next: Config): Comparison {
  return summary([
    ...differing("trustDomain", old.trustDomain.name, next.trustDomain.name, true),
    ...identityChanges(old.identities, next.identities),
    ...serviceChanges(old.services, next.services),
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

/** Compares what two locks let run. An identity without an entry cannot be launched, so a removed entry narrows. */
export function compareLocks(old: Lock, next: Lock): Comparison {
  const names = [...new Set([...Object.keys(old.identities), ...Object.keys(next.identities)])].sort();
  return summary([
    ...names.flatMap((name): readonly Change[] => {
      const before = entryOf(old, name);
      const after = entryOf(next, name);
      if (before === undefined) return [{ line: `+ lock.${name}`, widens: true }];
      if (after === undefined) return [{ line: `- lock.${name}`, widens: false }];
      return lockedChanges(`lock.${name}`, before, after);
    }),
    ...toolChanges(old.tools ?? {}, next.tools ?? {}),
  ]);
}

/** A tool that is not pinned may say anything; a new pin only holds it to what it says. */
function toolChanges(old: PinnedTools, next: PinnedTools): readonly Change[] {
  return keysOfBoth(old, next).flatMap((service) => {
    const [before, after] = [ownOf(old, service) ?? {}, ownOf(next, service) ?? {}];
    return keysOfBoth(before, after).flatMap((tool): readonly Change[] => {
      const at = `lock.tools.${service}.${tool}`;
      const [was, is] = [ownOf(before, tool), ownOf(after, tool)];
      if (was === undefined) return [{ line: `+ ${at}: ${is?.sha256}`, widens: false }];
      if (is === undefined) return [{ line: `- ${at}: ${was.sha256}`, widens: true }];
      const schemas = [was, is].map(({ inputSchema }) => canonicalize(inputSchema));
      return [
        ...differing(at, was.sha256, is.sha256, true),
        ...differing(`${at}.inputSchema`, schemas[0], schemas[1], true),
      ];
    });
  });
}

function keysOfBoth(one: object, other: object): readonly string[] {
  return [...new Set([...Object.keys(one), ...Object.keys(other)])].sort();
}

function ownOf<Value>(record: Readonly<Record<string, Value>>, key: string): Value | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}

function entryOf(lock: Lock, name: string): LockedIdentity | undefined {
  return Object.hasOwn(lock.identities, name) ? lock.identities[name] : undefined;
}

function lockedChanges(at: string, old: LockedIdentity, next: LockedIdentity): readonly Change[] {
  const files = [...new Set([...Object.keys(old.files), ...Object.keys(next.files)])].sort();
  return [
    ...differing(`${at}.exe.path`, old.exe.path, next.exe.path, true),
    ...differing(`${at}.exe.sha256`, old.exe.sha256, next.exe.sha256, true),
    ...files.flatMap((file): readonly Change[] => {
      const before = Object.hasOwn(old.files, file) ? old.files[file] : undefined;
      const after = Object.hasOwn(next.files, file) ? next.files[file] : undefined;
      if (before === undefined) return [{ line: `+ ${at}.files.${file}: ${after}`, widens: false }];
      // A file that is no longer pinned may hold anything.
      if (after === undefined) return [{ line: `- ${at}.files.${file}: ${before}`, widens: true }];
      return differing(`${at}.files.${file}`, before, after, true);
    }),
  ];
}

function identityChanges(old: readonly IdentityConfig[], next: readonly IdentityConfig[]): readonly Change[] {
  const before = new Map(old.map((identity) => [identity.name, identity]));
  const after = new Map(next.map((identity) => [identity.name, identity]));
  return [
    ...old
      .filter((identity) => !after.has(identity.name))
      .map((identity) => ({ line: `- identities.${identity.name}: ${describeIdentity(identity)}`, widens: false })),
    ...next.flatMap((identity): readonly Change[] => {
      const was = before.get(identity.name);
      return was === undefined
        ? [{ line: `+ identities.${identity.name}: ${describeIdentity(identity)}`, widens: true }]
        : changesOfIdentity(was, identity);
    }),
    ...orderChanges(old, next),
  ];
}

/** The first identity that a process has is the one it calls as (D9): another order is another default. */
function orderChanges(old: readonly IdentityConfig[], next: readonly IdentityConfig[]): readonly Change[] {
  const oldNames = new Set(old.map((identity) => identity.name));
  const nextNames = new Set(next.map((identity) => identity.name));
  const keptBefore = [...oldNames].filter((name) => nextNames.has(name));
  const keptAfter = [...nextNames].filter((name) => oldNames.has(name));
  return differing("identities in the order", keptBefore.join(", "), keptAfter.join(", "), true);
}

function changesOfIdentity(old: IdentityConfig, next: IdentityConfig): readonly Change[] {
  const at = `identities.${next.name}`;
  const addedNames = next.dnsNames.some((name) => !old.dnsNames.includes(name));
  return [
    ...groundChanges(at, old, next),
    ...differing(`${at}.service`, old.service, next.service, next.service !== undefined),
    ...differing(`${at}.dnsNames`, list(old.dnsNames), list(next.dnsNames), addedNames),
    ...differing(`${at}.hint`, old.hint, next.hint, false),
    ...labelChanges(at, old.labels, next.labels),
    ...differing(`${at}.shadow`, shadowOf(old), shadowOf(next), next.shadow === true),
    ...federatesWithChanges(`${at}.federatesWith`, old.federatesWith, next.federatesWith),
  ];
}

/** Rules ask for labels, allows and denies alike: another label may be what an allow asks for, or what a deny no longer finds. */
function labelChanges(at: string, old: Labels = {}, next: Labels = {}): readonly Change[] {
  const names = [...new Set([...Object.keys(old), ...Object.keys(next)])].sort();
  const of = (labels: Labels, name: string) => (Object.hasOwn(labels, name) ? labels[name] : undefined);
  return names.flatMap((name) => differing(`${at}.labels.${name}`, of(old, name), of(next, name), true));
}

function shadowOf({ shadow }: IdentityConfig): string | undefined {
  return shadow === true ? "what no rule allows is let through" : undefined;
}

/** Without it an identity deals with all trust domains. */
function federatesWithChanges(
  at: string,
  before: readonly string[] | undefined,
  after: readonly string[] | undefined,
): readonly Change[] {
  const shown = (names: readonly string[] | undefined) => (names === undefined ? "all" : list(names) || "none");
  const widens = before !== undefined && (after === undefined || after.some((name) => !before.includes(name)));
  return differing(at, shown(before), shown(after), widens);
}

/** What a process must be. More conditions are narrower only where some process could have the identity before. */
function groundChanges(at: string, old: IdentityConfig, next: IdentityConfig): readonly Change[] {
  const wasNobodys = !grantsToProcesses(old);
  const isNobodys = !grantsToProcesses(next);
  const facts = [...new Set([...Object.keys(old.facts), ...Object.keys(next.facts)])] as (keyof RequiredFacts)[];
  return [
    ...facts.flatMap((fact) => {
      const after = next.facts[fact];
      const widens = !isNobodys && (wasNobodys || after === undefined || old.facts[fact] !== undefined);
      return differing(`${at}.${fact}`, old.facts[fact], after, widens);
    }),
    ...launchChanges(`${at}.launch`, old, next, isNobodys),
  ];
}

function grantsToProcesses(identity: IdentityConfig): boolean {
  return identity.launch !== undefined || Object.keys(identity.facts).length > 0;
}

function launchChanges(at: string, old: IdentityConfig, next: IdentityConfig, isNobodys: boolean): readonly Change[] {
  const [before, after] = [old.launch, next.launch];
  if (after === undefined || before === undefined) {
    return differing(at, before && describeLaunch(before), after && describeLaunch(after), !isNobodys);
  }
  const keptMore = after.keepEnv.some((name) => !before.keepEnv.includes(name));
  const launchesMore = after.subagents.some((name) => !before.subagents.includes(name));
  return [
    ...differing(at, formatCommand(before.argv), formatCommand(after.argv), true),
    ...differing(`${at}.cwd`, before.workingDirectory, after.workingDirectory, true),
    ...differing(`${at}.keepEnv`, list(before.keepEnv), list(after.keepEnv), keptMore),
    ...differing(`${at}.children`, String(before.children), String(after.children), after.children),
    ...differing(`${at}.instances`, String(before.instances), String(after.instances), after.instances),
    ...differing(`${at}.subagents`, list(before.subagents), list(after.subagents), launchesMore),
    ...sandboxChanges(`${at}.sandbox`, before.sandbox, after.sandbox),
  ];
}

/** Without a sandbox everything is open: whatever a new one opens is less, and the end of one is more. */
function sandboxChanges(
  at: string,
  before: SandboxConfig | undefined,
  after: SandboxConfig | undefined,
): readonly Change[] {
  if (before === undefined || after === undefined) {
    const shown = (sandbox: SandboxConfig | undefined) =>
      sandbox && `read ${list(sandbox.read)}, write ${list(sandbox.write)}`;
    return differing(at, shown(before), shown(after), after === undefined);
  }
  return (["read", "write"] as const).flatMap((way) => {
    const opensMore = after[way].some((path) => !before[way].includes(path));
    return differing(`${at}.${way}`, list(before[way]), list(after[way]), opensMore);
  });
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
        ...labelChanges(at, was.labels, service.labels),
        ...idempotentChanges(`${at}.idempotent`, was.idempotent, service.idempotent),
      ];
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
  const text = (routes: readonly string[]) => (routes.length === 0 ? undefined : list(routes));
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
    ...differing("authzen.clients", list(old.clients), list(next.clients), asksMore),
  ];
}

/** What a process must be to have `identity`, in one line: `launch python3 agents/billing.py`, `user dev, exe /usr/bin/node`. */
export function describeIdentity(identity: IdentityConfig): string {
  const { facts, launch, service } = identity;
  const parts = [
    launch && `launch ${describeLaunch(launch)}`,
    facts.user !== undefined && `user ${facts.user}`,
    facts.uid !== undefined && `uid ${facts.uid}`,
    facts.group !== undefined && `group ${facts.group}`,
    facts.gid !== undefined && `gid ${facts.gid}`,
    facts.supplementaryGroup !== undefined && `supplementary group ${facts.supplementaryGroup}`,
    facts.supplementaryGid !== undefined && `supplementary gid ${facts.supplementaryGid}`,
    facts.exePath !== undefined && `exe ${facts.exePath}`,
    facts.exeSha256 !== undefined && `sha256 ${facts.exeSha256}`,
    facts.systemdUnit !== undefined && `systemd unit ${facts.systemdUnit}`,
    facts.systemdUserUnit !== undefined && `systemd user unit ${facts.systemdUserUnit}`,
    facts.cgroup !== undefined && `cgroup ${facts.cgroup}`,
    facts.containerId !== undefined && `container ${facts.containerId}`,
    facts.podUid !== undefined && `pod ${facts.podUid}`,
    facts.signingTeam !== undefined && `signed by team ${facts.signingTeam}`,
    facts.signingIdentifier !== undefined && `signed as ${facts.signingIdentifier}`,
    facts.parentExePath !== undefined && `parent ${facts.parentExePath}`,
    facts.parentExeSha256 !== undefined && `parent sha256 ${facts.parentExeSha256}`,
    service !== undefined && `service ${service}`,
    identity.shadow === true && "in shadow: what no rule allows is let through",
  ];
  return parts.filter((part) => typeof part === "string").join(", ") || "agentid itself";
}

/** `python3 agents/billing.py, its children too, in instances, may launch agents/research`. */
function describeLaunch({ argv, children, instances, subagents, sandbox }: LaunchConfig): string {
  const more = [
    children && "its children too",
    instances && "in instances",
    subagents.length > 0 && `may launch ${subagents.join(" and ")}`,
    sandbox !== undefined && "in a sandbox",
  ];
  return [formatCommand(argv), ...more.filter((part) => typeof part === "string")].join(", ");
}

/** Where a service is, in one line: `mcp: node mcp/payments.js`, `http: http://127.0.0.1:8080`. */
function describeService(service: ServiceConfig): string {
  return `${service.protocol}: ${describeUpstream(service.upstream)}`;
}

/** `node mcp/payments.js`, `http://127.0.0.1:8080`, `unix:/run/x.sock`, `mtls 127.0.0.1:8443`. */
export function describeUpstream(upstream: Upstream): string {
  switch (upstream.kind) {
    case "command":
      return `${formatCommand(upstream.argv)} in ${formatCommand([upstream.workingDirectory])}`;
    case "tcp":
      return `http://${hostInUrl(upstream.host)}:${upstream.port}`;
    case "unix":
      return `unix:${upstream.path}`;
    case "mtls":
      return `mtls ${hostInUrl(upstream.host)}:${upstream.port}`;
  }
}

function hostInUrl(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

type Shown = string | number | undefined;

/** No change, or one line with what was and what is. */
function differing(at: string, old: Shown, next: Shown, widens: boolean): readonly Change[] {
  if (old === next) return [];
  if (old === undefined) return [{ line: `+ ${at}: ${next}`, widens }];
  if (next === undefined) return [{ line: `- ${at}: ${old}`, widens }];
  return [{ line: `~ ${at}: ${old} → ${next}`, widens }];
}

/** A command for people; what holds more than plain characters is quoted, so that two commands never look the same. */
export function formatCommand(argv: readonly string[]): string {
  return argv.map((item) => (/^[\w@%+=:,./-]+$/.test(item) ? item : JSON.stringify(item))).join(" ");
}

function list(items: readonly string[]): string {
  return JSON.stringify(items);
}

function summary(changes: readonly Change[]): Comparison {
  return {
    widened: changes.some((change) => change.widens),
    changes: changes.map((change) => change.line),
  };
}
