import { normalize } from "node:path";
import { AUTHZEN_IDENTITY, BUNDLE_ENDPOINT_IDENTITY, type ServiceProtocol } from "./config.js";
import type { ConfigProblem } from "./config-error.js";
import { durationSeconds, formatDuration } from "./duration.js";
import { partsOfValue, secretsIn } from "./egress-values.js";
import { suggestion } from "./nearest.js";
import { valueAt } from "./schema-problems.js";
import { checkIdentityName, checkServiceName, checkTrustDomain } from "./values.js";
import type { YamlSource } from "./yaml-source.js";

/** Seconds of every lifetime that the file does not give; D24. */
export const STANDARD_LIFETIMES = { x509: 600, jwt: 300, ca: 86_400 } as const;

/** What an entry of `identities` may say without saying whose identity it is. */
const NOT_GROUNDS: readonly string[] = ["dnsNames", "hint", "federatesWith"];

/**
 * What one value cannot know of another: names, references, and numbers that bound each other.
 * Works on the file as written, whatever else is wrong with it, so that all problems come at once.
 */
export function crossChecks(source: YamlSource): readonly ConfigProblem[] {
  return [
    ...identityNames(source),
    ...pinnedWithoutPath(source),
    ...subagentReferences(source),
    ...enforcementPointReferences(source),
    ...instanceNames(source),
    ...serviceNames(source),
    ...serviceReferences(source),
    ...defaultIdentities(source),
    ...egressNames(source),
    ...connectTargets(source),
    ...unusedSecrets(source),
    ...listenPorts(source),
    ...listenSockets(source),
    ...lifetimeBounds(source),
    ...federatedTrustDomains(source),
    ...engineNames(source),
    ...engineScopes(source),
  ];
}

/** The identity of a service that no entry names: `services/invoices`, `mcp/payments`. */
export function defaultIdentityName(service: string, protocol: ServiceProtocol): string {
  return `${protocol === "mcp" ? "mcp" : "services"}/${service}`;
}

/** What rules know a target of `egress` by. */
export function egressIdentityName(target: string): string {
  return `egress/${target}`;
}

function identityNames(source: YamlSource): readonly ConfigProblem[] {
  return entriesOf(source, "identities").flatMap(([name, entry]) => {
    const wrong = checkIdentityName(name);
    if (wrong !== undefined) return [source.problem(["identities", name], wrong, "key")];
    if (name === BUNDLE_ENDPOINT_IDENTITY) {
      return [source.problem(["identities", name], "this name is that of agentid's own bundle endpoint", "key")];
    }
    if (name === AUTHZEN_IDENTITY) {
      return [source.problem(["identities", name], "this name is that of agentid's own decision point", "key")];
    }
    // With an unknown key, most likely a mistyped ground, that key is the problem.
    if (!isMapping(entry) || Object.keys(entry).some((key) => !NOT_GROUNDS.includes(key))) return [];
    return [
      source.problem(
        ["identities", name],
        "nothing says which process has this identity; give launch, user, uid, exe … or service",
        "key",
      ),
    ];
  });
}

/** A digest is pinned from a file: the launched command's, or the one that `exe` names. */
function pinnedWithoutPath(source: YamlSource): readonly ConfigProblem[] {
  return entriesOf(source, "identities").flatMap(([name, entry]) => {
    const exe = valueAt(entry, ["exe"]);
    if (!isMapping(exe) || !isMapping(entry) || exe.sha256 !== "pinned") return [];
    if (Object.hasOwn(exe, "path") || Object.hasOwn(entry, "launch")) return [];
    return [source.problem(["identities", name, "exe"], "a pinned digest needs the path of the file to pin")];
  });
}

/** Services may ask as well: what stands in the way of callers of its own is an enforcement point. */
function enforcementPointReferences(source: YamlSource): readonly ConfigProblem[] {
  const clients = valueAt(source.value, ["authzen", "clients"]);
  if (!Array.isArray(clients)) return [];
  const known = entriesOf(source, "identities").map(([name]) => name);
  return clients.flatMap((client: unknown, index) => {
    if (typeof client !== "string" || known.includes(client)) return [];
    const near = suggestion(client, known);
    return [source.problem(["authzen", "clients", index], `no identity ${JSON.stringify(client)}${near}`)];
  });
}

/** Only what can be launched can be a sub-agent. */
function subagentReferences(source: YamlSource): readonly ConfigProblem[] {
  const identities = new Map(entriesOf(source, "identities"));
  return [...identities].flatMap(([name, entry]) => {
    const subagents = valueAt(entry, ["launch", "subagents"]);
    if (!Array.isArray(subagents)) return [];
    return subagents.flatMap((subagent: unknown, index) => {
      if (typeof subagent !== "string") return [];
      const path = ["identities", name, "launch", "subagents", index];
      const named = identities.get(subagent);
      if (named === undefined) {
        const known = suggestion(subagent, [...identities.keys()]);
        return [source.problem(path, `no identity ${JSON.stringify(subagent)}${known}`)];
      }
      if (valueAt(named, ["launch"]) !== undefined) return [];
      return [source.problem(path, `${subagent} has no launch, so nobody can launch it`)];
    });
  });
}

/** `agents/billing/x` must be an instance of agents/billing or an identity of its own, never both. */
function instanceNames(source: YamlSource): readonly ConfigProblem[] {
  const identities = new Map(entriesOf(source, "identities"));
  return [...identities.keys()].flatMap((name) => {
    const above = name.slice(0, Math.max(0, name.lastIndexOf("/")));
    if (valueAt(identities.get(above), ["launch", "instances"]) !== true) return [];
    return [
      source.problem(["identities", name], `this is the name of an instance of ${above}, which has instances`, "key"),
    ];
  });
}

function serviceNames(source: YamlSource): readonly ConfigProblem[] {
  return entriesOf(source, "services").flatMap(([name]) => {
    const wrong = checkServiceName(name);
    return wrong === undefined ? [] : [source.problem(["services", name], wrong, "key")];
  });
}

function serviceReferences(source: YamlSource): readonly ConfigProblem[] {
  const known = entriesOf(source, "services").map(([name]) => name);
  const knownNames = new Set(known);
  const firstToName = new Map<string, string>();
  return entriesOf(source, "identities").flatMap(([name, entry]) => {
    const service = valueAt(entry, ["service"]);
    if (typeof service !== "string") return [];
    const path = ["identities", name, "service"];
    if (!knownNames.has(service)) {
      return [source.problem(path, `no service ${JSON.stringify(service)}${suggestion(service, known)}`)];
    }
    const first = firstToName.get(service);
    if (first !== undefined) {
      return [source.problem(path, `the service ${JSON.stringify(service)} already speaks as ${first}`)];
    }
    firstToName.set(service, name);
    return [];
  });
}

/** An identity of its own that happens to be called like a service's default one would silently become that service's. */
function defaultIdentities(source: YamlSource): readonly ConfigProblem[] {
  const identities = entriesOf(source, "identities");
  const names = new Set(identities.map(([name]) => name));
  const named = new Set(identities.map(([, entry]) => valueAt(entry, ["service"])));
  return entriesOf(source, "services").flatMap(([service, entry]) => {
    if (named.has(service) || !isMapping(entry)) return [];
    const name = defaultIdentityName(service, Object.hasOwn(entry, "mcp") ? "mcp" : "http");
    if (!names.has(name)) return [];
    return [
      source.problem(
        ["identities", name],
        `the service ${JSON.stringify(service)} would speak as this identity; say so with \`service: ${service}\`, or rename one of them`,
        "key",
      ),
    ];
  });
}

function listenPorts(source: YamlSource): readonly ConfigProblem[] {
  const firstAt = new Map<number, string>();
  const entries = ["services", "egress"].flatMap((section) =>
    entriesOf(source, section).map(([name, entry]) => [section, name, entry] as const),
  );
  const proxy = valueAt(source.value, ["proxy", "listen"]);
  if (typeof proxy === "number") firstAt.set(proxy, "proxy");
  return entries.flatMap(([section, name, entry]) => {
    const listen = valueAt(entry, ["listen"]);
    const at = [section, name, "listen", ...(isMapping(listen) ? ["port"] : [])];
    const port = isMapping(listen) ? listen.port : listen;
    if (typeof port !== "number") return [];
    const first = firstAt.get(port);
    if (first !== undefined) return [source.problem(at, `port ${port} is already that of ${first}`)];
    firstAt.set(port, `${section}.${name}`);
    return [];
  });
}

/** A socket is one service's, and never the one that the service itself listens on: the relay would call itself. */
function listenSockets(source: YamlSource): readonly ConfigProblem[] {
  const services = entriesOf(source, "services");
  const owners = new Map<string, string>();
  for (const [name, entry] of services) {
    for (const protocol of ["http", "mcp", "grpc", "tcp"]) {
      const path = valueAt(entry, [protocol, "unix"]);
      if (typeof path === "string") owners.set(normalize(path), `services.${name}.${protocol}`);
    }
  }
  return services.flatMap(([name, entry]) => {
    const path = valueAt(entry, ["listen", "unix"]);
    if (typeof path !== "string") return [];
    const owner = owners.get(normalize(path));
    const at = ["services", name, "listen", "unix"];
    if (owner !== undefined) return [source.problem(at, `${path} is already the socket of ${owner}`)];
    owners.set(normalize(path), `services.${name}`);
    return [];
  });
}

/** Services and targets share `AGENTID_URL_NAME`, and rules know both by name. */
function egressNames(source: YamlSource): readonly ConfigProblem[] {
  const services = new Map(entriesOf(source, "services").map(([name]) => [variableOf(name), name]));
  const identities = new Set(entriesOf(source, "identities").map(([name]) => name));
  return entriesOf(source, "egress").flatMap(([name]) => {
    const at = ["egress", name];
    const wrong = checkServiceName(name)?.replace("a service's", "a target's");
    if (wrong !== undefined) return [source.problem(at, wrong, "key")];
    const service = services.get(variableOf(name));
    if (service !== undefined) return [source.problem(at, `services.${service} has this name already`, "key")];
    const identity = egressIdentityName(name);
    if (!identities.has(identity)) return [];
    return [source.problem(["identities", identity], `rules know egress.${name} by this name`, "key")];
  });
}

function variableOf(name: string): string {
  return name.toUpperCase().replaceAll("-", "_");
}

/** CONNECT names a host and a port: two targets there could not be told apart. */
function connectTargets(source: YamlSource): readonly ConfigProblem[] {
  const targets = entriesOf(source, "egress").filter(([, entry]) => valueAt(entry, ["connect"]) === true);
  const firstAt = new Map<string, string>();
  const twice = targets.flatMap(([name, entry]) => {
    const url = valueAt(entry, ["url"]);
    if (typeof url !== "string") return [];
    const first = firstAt.get(url);
    if (first === undefined) firstAt.set(url, name);
    return first === undefined
      ? []
      : [source.problem(["egress", name, "url"], `CONNECT to this host is that of egress.${first} already`)];
  });
  const unused = valueAt(source.value, ["proxy"]) !== undefined && targets.length === 0;
  if (!unused) return twice;
  return [source.problem(["proxy"], "no target below egress says `connect: true`, so nothing listens here", "key")];
}

/** A source that no header asks for is most likely misspelt, and the header would ask the keychain. */
function unusedSecrets(source: YamlSource): readonly ConfigProblem[] {
  const used = entriesOf(source, "egress").flatMap(([, entry]) => {
    const header = valueAt(entry, ["header"]);
    const values = isMapping(header) ? Object.values(header).filter((value) => typeof value === "string") : [];
    return values.flatMap((value) => secretsIn({ name: "", value: partsOfValue(value) }));
  });
  return entriesOf(source, "secrets").flatMap(([name]) =>
    used.includes(name)
      ? []
      : [source.problem(["secrets", name], `no header below egress names this secret${suggestion(name, used)}`, "key")],
  );
}

/** Credentials must be able to live out their time under keys that are replaced at half of theirs. */
function lifetimeBounds(source: YamlSource): readonly ConfigProblem[] {
  const secondsOf = (kind: "x509" | "jwt" | "ca"): number | undefined => {
    const written = valueAt(source.value, ["lifetimes", kind]);
    if (written === undefined) return STANDARD_LIFETIMES[kind];
    return typeof written === "string" ? durationSeconds(written) : undefined;
  };
  const ca = secondsOf("ca");
  if (ca === undefined) return [];
  return (["x509", "jwt"] as const).flatMap((kind) => {
    const seconds = secondsOf(kind);
    if (seconds === undefined || seconds * 2 <= ca) return [];
    const written = (key: string) => valueAt(source.value, ["lifetimes", key]) !== undefined;
    const quote = (key: string, value: number) => `${formatDuration(value)}${written(key) ? "" : " by default"}`;
    return [
      source.problem(
        ["lifetimes", written(kind) ? kind : "ca"],
        `${kind} (${quote(kind, seconds)}) must be at most half of ca (${quote("ca", ca)})`,
      ),
    ];
  });
}

/** Each is another trust domain: a foreign endpoint never says who belongs to this one (D12). */
function federatedTrustDomains(source: YamlSource): readonly ConfigProblem[] {
  const named = valueAt(source.value, ["federation", "trustDomains"]);
  return Object.keys(isMapping(named) ? named : {}).flatMap((name) => {
    const own = name === valueAt(source.value, ["trustDomain"]);
    const wrong = own
      ? "this is the trust domain of this file: it cannot be federated with itself"
      : checkTrustDomain(name);
    return wrong === undefined ? [] : [source.problem(["federation", "trustDomains", name], wrong, "key")];
  });
}

function enginesOf(source: YamlSource): readonly unknown[] {
  const engines = valueAt(source.value, ["policy", "engines"]);
  return Array.isArray(engines) ? engines : [];
}

function engineNames(source: YamlSource): readonly ConfigProblem[] {
  const names = enginesOf(source).map((engine) => valueAt(engine, ["name"]));
  return names.flatMap((name, index) =>
    typeof name === "string" && names.indexOf(name) < index
      ? [source.problem(["policy", "engines", index, "name"], `there is another engine ${JSON.stringify(name)}`)]
      : [],
  );
}

/** Scopes name services, by name or by identity. What a pattern matches, and types, are looked at with the policies. */
function engineScopes(source: YamlSource): readonly ConfigProblem[] {
  const services = entriesOf(source, "services");
  const named = new Map(entriesOf(source, "identities").map(([name, entry]) => [valueAt(entry, ["service"]), name]));
  const known = services.flatMap(([service, entry]) => {
    const protocol = isMapping(entry) && Object.hasOwn(entry, "mcp") ? "mcp" : "http";
    return [service, named.get(service) ?? defaultIdentityName(service, protocol)];
  });
  known.push(...entriesOf(source, "egress").flatMap(([name]) => [name, egressIdentityName(name)]));
  const places = [["policy", "rules"], ...enginesOf(source).map((_, index) => ["policy", "engines", index])];
  return places.flatMap((place) => {
    const items = valueAt(source.value, [...place, "scope"]);
    return (Array.isArray(items) ? items : []).flatMap((item: unknown, index) => {
      if (typeof item !== "string" || item.includes("*") || item.includes("://") || known.includes(item)) return [];
      const hint = suggestion(item, known);
      return [source.problem([...place, "scope", index], `no service ${JSON.stringify(item)}${hint}`)];
    });
  });
}

function entriesOf(source: YamlSource, section: string): readonly (readonly [string, unknown])[] {
  const value = valueAt(source.value, [section]);
  return isMapping(value) ? Object.entries(value) : [];
}

function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
