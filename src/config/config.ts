import type { SpiffeId, TrustDomain } from "../spiffe/spiffe-id.js";
import type { PinnedTools } from "./tool-pin.js";

/** `agentid.yaml`, parsed, validated and with every default filled in. */
export interface Config {
  /** Absolute path of the project: the folder that holds `agentid.yaml`. */
  readonly projectDirectory: string;
  /** Absolute path of the file; undefined for the built-in configuration of `agentid ci` without one. */
  readonly file: string | undefined;
  readonly trustDomain: TrustDomain;
  /** In the order of the file, which is the order in which a process with several identities gets them (D9). */
  readonly identities: readonly IdentityConfig[];
  readonly services: readonly ServiceConfig[];
  /** What lies outside and may be called. */
  readonly egress: readonly EgressTarget[];
  /** Where CONNECT is taken; derived where the file does not say. */
  readonly proxyPort?: number;
  /** Where each secret is that `egress` names. */
  readonly secrets: Readonly<Record<string, SecretSourceConfig>>;
  /** Absolute path of the policies folder. */
  readonly policiesDirectory: string;
  readonly policy: PolicyConfig;
  readonly lifetimes: Lifetimes;
  /** Absolute paths of PEM files. */
  readonly upstreamAuthority: { readonly certificate: string; readonly key: string } | undefined;
  readonly federation: FederationConfig;
  readonly oidc: OidcConfig | undefined;
  readonly authzen: AuthzenConfig;
  /** Where spans of calls go: the base URL of a collector. */
  readonly telemetry: { readonly otlp: string } | undefined;
  readonly durable: DurableConfig;
  /** What a widening reload does (D13). */
  readonly reload: "confirm" | "auto";
  /** `disk`: keys under `.agentid/`; `memory`: nothing is kept. */
  readonly keys: "disk" | "memory";
  /** Hex SHA-256 of the file's bytes. */
  readonly digest: string;
}

/** Which engines judge what (D15). */
export interface PolicyConfig {
  /** What our own rules are asked about; undefined: everything. */
  readonly rulesScope: readonly ScopeItem[] | undefined;
  readonly engines: readonly EngineConfig[];
}

/** Services by name, by identity or by a pattern of identities; or resources by type. */
export type ScopeItem = { readonly identity: string } | { readonly type: string };

interface EngineBase {
  readonly name: string;
  /** Undefined: everything. */
  readonly scope: readonly ScopeItem[] | undefined;
  /** The longest that a decision may take which is not made at once. */
  readonly timeoutMillis: number;
}

export type EngineConfig = CedarEngineConfig | RegoEngineConfig | OpaEngineConfig | AuthzenEngineConfig;

/** All paths are absolute. */
export interface CedarEngineConfig extends EngineBase {
  readonly kind: "cedar";
  /** File, or folder of `*.cedar`. */
  readonly policies: string;
  readonly schema: string | undefined;
  readonly entities: string | undefined;
  readonly namespace: string | undefined;
  /** Types of AuthZEN → types of Cedar, where they are not the standard ones. */
  readonly types: Readonly<Record<string, string>>;
}

export interface RegoEngineConfig extends EngineBase {
  readonly kind: "rego";
  readonly source: { readonly rego: string } | { readonly bundle: string };
  /** `finance/allow`. */
  readonly entrypoint: string;
  readonly data: string | undefined;
}

interface RemoteEngineBase extends EngineBase {
  /** `https://…`, `http://` on this machine, or `unix:/absolute/path`. */
  readonly url: string;
  readonly tokenFile: string | undefined;
  readonly ca: string | undefined;
}

export interface OpaEngineConfig extends RemoteEngineBase {
  readonly kind: "opa";
  /** Below `/v1/data/`. */
  readonly path: string;
}

export interface AuthzenEngineConfig extends RemoteEngineBase {
  readonly kind: "authzen";
}

/** Whom this trust domain tells its bundle, and whose it follows. */
export interface FederationConfig {
  readonly endpoint: BundleEndpointConfig | undefined;
  readonly relationships: readonly FederationRelationship[];
}

export interface BundleEndpointConfig {
  readonly listen: HostPort;
  /** Undefined: `https_spiffe`, with the SVID of `BUNDLE_ENDPOINT_IDENTITY`. */
  readonly web: WebCertificateFiles | undefined;
}

/** SPIFFE Federation §5.1: URL, profile and trust domain name; with `https_spiffe` the endpoint's ID and a first bundle as well. */
export interface FederationRelationship {
  readonly trustDomain: TrustDomain;
  readonly url: string;
  /** Undefined: `https_web`. */
  readonly spiffe: { readonly endpointId: SpiffeId /** Absolute. */; readonly bundleFile: string } | undefined;
}

export interface OidcConfig {
  readonly listen: HostPort;
  readonly issuer: string;
  /** Undefined: plain HTTP. */
  readonly web: WebCertificateFiles | undefined;
}

/** Who may ask the decision point, and where besides its Unix socket. */
export interface AuthzenConfig {
  /** A loopback address. */
  readonly listen: HostPort | undefined;
  /** Names of the identities of enforcement points. */
  readonly clients: readonly string[];
}

/** How long, and how many, answers to requests with an `Idempotency-Key` are kept. */
export interface DurableConfig {
  readonly keepSeconds: number;
  readonly maxBytes: number;
}

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** PEM files of a web server; absolute paths. */
export interface WebCertificateFiles {
  readonly certificate: string;
  readonly key: string;
}

/** The identity that an `https_spiffe` bundle endpoint presents. No process ever has it. */
export const BUNDLE_ENDPOINT_IDENTITY = "agentid/bundle-endpoint";

/** The identity that the AuthZEN listener presents. No process ever has it. */
export const AUTHZEN_IDENTITY = "agentid/authzen";

/** Seconds. D24: X.509 600, JWT 300, CA 86400; none under 10. */
export interface Lifetimes {
  readonly x509Seconds: number;
  readonly jwtSeconds: number;
  readonly caSeconds: number;
}

/** One identity: what must hold for a process to have it. All that is given must hold; an identity with neither facts nor launch nor service is refused at load. */
export interface IdentityConfig {
  /** `agents/billing`. */
  readonly name: string;
  readonly id: SpiffeId;
  readonly facts: RequiredFacts;
  readonly launch: LaunchConfig | undefined;
  /** Name of the service whose relay leg speaks as this identity. */
  readonly service: string | undefined;
  readonly dnsNames: readonly string[];
  readonly hint: string;
  readonly labels?: Labels;
  /** What no rule allows it is let through and recorded; what a rule denies is denied. */
  readonly shadow?: boolean;
  /** Names of the other trust domains whose workloads it deals with; absent: all that are known here. */
  readonly federatesWith?: readonly string[];
}

/** What rules may ask of an identity or a service: `team: finance`. */
export type Labels = Readonly<Record<string, string>>;

export interface RequiredFacts {
  readonly uid?: number;
  readonly user?: string;
  readonly gid?: number;
  readonly group?: string;
  readonly supplementaryGid?: number;
  readonly supplementaryGroup?: string;
  readonly exePath?: string;
  /** Hex digest, or `pinned`: the digest is the one in `agentid.lock`. */
  readonly exeSha256?: string;
  readonly systemdUnit?: string;
  readonly systemdUserUnit?: string;
  readonly cgroup?: string;
  readonly containerId?: string;
  readonly podUid?: string;
  readonly signingTeam?: string;
  readonly signingIdentifier?: string;
  readonly parentExePath?: string;
  /** Hex digest. */
  readonly parentExeSha256?: string;
}

export interface LaunchConfig {
  readonly argv: readonly string[];
  /** Absolute. */
  readonly workingDirectory: string;
  /** Variables that load code or look like secrets and are kept all the same. */
  readonly keepEnv: readonly string[];
  /** Whether processes that descend from the launched one have the identity too, with the evidence `parent`. */
  readonly children: boolean;
  /** Whether `agentid run NAME --instance X` gives `NAME/X`. */
  readonly instances: boolean;
  /** Names of the identities that it may launch. */
  readonly subagents: readonly string[];
  /** It runs in a sandbox only. */
  readonly sandbox: SandboxConfig | undefined;
}

/** What a sandbox opens of the file system; absolute paths. */
export interface SandboxConfig {
  readonly read: readonly string[];
  readonly write: readonly string[];
}

/** `grpc`: what it speaks is HTTP/2. */
export type ServiceProtocol = "http" | "mcp" | "grpc" | "tcp";

export interface ServiceConfig {
  /** `payments`; rules and URLs use it. */
  readonly name: string;
  /** The identity its inbound leg speaks as. */
  readonly id: SpiffeId;
  readonly protocol: ServiceProtocol;
  readonly upstream: Upstream;
  /** Fixed loopback port of the outbound leg, or undefined for the stable one derived from project and name. */
  readonly listenPort: number | undefined;
  /** Absolute path of the Unix socket on which the outbound leg listens too; `true`: one in agentid's own folder. */
  readonly listenSocket?: string | true;
  /** Of a `tcp` service. */
  readonly connections?: TcpConnections;
  readonly labels?: Labels;
  /** What may be sent once more where nobody knows whether it was done. */
  readonly idempotent?: readonly IdempotentRoute[];
}

/** Calls of an HTTP service by `method`, `path` or both, or of an MCP server by `tool`; patterns as in rules. */
export interface IdempotentRoute {
  readonly method?: string;
  readonly path?: string;
  readonly tool?: string;
}

/** Bounds of the connections of a `tcp` service. */
export interface TcpConnections {
  readonly max: number;
  readonly idleSeconds: number;
}

export type Upstream =
  /** Started by agentid; listens on the Unix socket named by AGENTID_LISTEN in a private directory. */
  | { readonly kind: "command"; readonly argv: readonly string[]; readonly workingDirectory: string }
  /** Reachable around the relay by anything outside a sandbox (D26). */
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string }
  /** The service speaks mutual TLS itself with its own SVID; the outbound leg connects to it and decides. */
  | { readonly kind: "mtls"; readonly host: string; readonly port: number };

/** A named address outside, and what the relay adds to calls there. */
export interface EgressTarget {
  /** `openai`; as services', and none has the name of a service. */
  readonly name: string;
  /** `spiffe://shop.local/egress/openai`: what rules are about. Nobody ever has it. */
  readonly id: SpiffeId;
  readonly scheme: "https" | "http";
  /** A name, or an IP address without brackets. */
  readonly host: string;
  readonly port: number;
  /** `/v1`, or empty; before every path that callers ask for. */
  readonly basePath: string;
  readonly headers: readonly InjectedHeader[];
  /** Absolute path of a PEM file; undefined: the Web PKI. */
  readonly ca: string | undefined;
  /** It may be at an address that is not public. */
  readonly private: boolean;
  readonly listenPort: number | undefined;
  /** Callers reach it with their own TLS, by CONNECT: it is decided by its host alone. */
  readonly connect?: boolean;
}

export interface InjectedHeader {
  readonly name: string;
  /** Text, and names of secrets, one after the other. */
  readonly value: readonly (string | { readonly secret: string })[];
}

export type SecretSourceConfig =
  | { readonly kind: "keychain" }
  /** `path` is absolute. */
  | { readonly kind: "file"; readonly path: string; readonly key: string }
  | { readonly kind: "command"; readonly argv: readonly string[] };

/** `agentid.lock`: digests of what may run, and of what tools say they are (D8). */
export interface Lock {
  readonly identities: Readonly<Record<string, LockedIdentity>>;
  /** Of services whose tools were pinned. */
  readonly tools?: PinnedTools;
}

export interface LockedIdentity {
  readonly exe: { readonly path: string; readonly sha256: string };
  /** Path relative to the launch's working directory → hex SHA-256. */
  readonly files: Readonly<Record<string, string>>;
}
