import { isIPv4 } from "node:net";
import { messageOf } from "../coded-error.js";
import { SpiffeId, TrustDomain } from "../spiffe/spiffe-id.js";

/**
 * What single values in `agentid.yaml` must be. Each check returns what is wrong, for people, or undefined.
 * The schema calls them; `normalise.ts` then relies on them.
 */
export type ValueCheck = (text: string) => string | undefined;

const MAX_TRUST_DOMAIN_BYTES = 255;
/** `sun_path` holds 108 bytes on Linux (104 on macOS) with the final zero. */
const MAX_SOCKET_PATH_BYTES = 103;

export const checkTrustDomain: ValueCheck = (text) => {
  if (text.includes("://")) return `write the name only, ${JSON.stringify(text.replace(/^.*:\/\//, ""))}`;
  try {
    TrustDomain.parse(text);
  } catch (thrown) {
    const lower = text.toLowerCase();
    return (
      messageOf(thrown) + (lower !== text && isTrustDomain(lower) ? `; did you mean ${JSON.stringify(lower)}?` : "")
    );
  }
  // SPIFFE-ID §2.1: implementations must not make trust domain names longer than 255 bytes.
  return text.length > MAX_TRUST_DOMAIN_BYTES
    ? `trust domain is longer than ${MAX_TRUST_DOMAIN_BYTES} bytes`
    : undefined;
};

function isTrustDomain(text: string): boolean {
  try {
    TrustDomain.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** An identity is named by the path of its SPIFFE ID without the leading slash; SPIFFE-ID §2.2. */
export const checkIdentityName: ValueCheck = (name) => {
  if (name.includes("://")) return "write only the path of the SPIFFE ID, as in agents/billing";
  if (name.startsWith("/")) return `write it without the leading slash, ${JSON.stringify(name.replace(/^\/+/, ""))}`;
  if (name === "") return "an identity needs a name, as in agents/billing";
  // A mapping key of this name does not survive every JSON reader.
  if (name === "__proto__") return "this name cannot be used";
  try {
    SpiffeId.of(TrustDomain.parse("example.org"), name);
    return undefined;
  } catch (thrown) {
    // The probe's trust domain would only confuse.
    return messageOf(thrown).replaceAll("spiffe://example.org/", "");
  }
};

export const SERVICE_NAME_PATTERN = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** Service names become environment variables (`AGENTID_URL_PAYMENTS`) and parts of URLs and rules. */
export const checkServiceName: ValueCheck = (name) =>
  SERVICE_NAME_PATTERN.test(name)
    ? undefined
    : "a service's name holds only a-z, 0-9 and dashes inside, at most 63 characters";

/** Host names that never leave this machine, by RFC 6761 §6.3, RFC 1122 §3.2.1.3 and RFC 4291 §2.5.3. */
function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(?:\.\d{1,3}){3}$/.test(hostname);
}

export const checkHttpUrl: ValueCheck = (text) => {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return `not a URL; write it as http://127.0.0.1:8080`;
  }
  if (url.protocol === "https:") {
    return "TLS without a SPIFFE ID at the other end cannot be verified here; write { mtls: host:port } for a service with its own SVID, or the plain http:// address on this machine";
  }
  if (url.protocol !== "http:") return `only http:// addresses can be upstreams, not ${url.protocol}//`;
  if (!isLoopback(url.hostname)) {
    return `plain HTTP to ${url.hostname} would leave this machine unprotected, and anybody on the way could read and change it; run a relay there and write { mtls: host:port }`;
  }
  if (url.username !== "" || url.password !== "") return "an address must not hold a user name or password";
  if (url.pathname !== "/" || url.search !== "" || url.hash !== "") {
    return `write only ${url.origin}; callers add the path, and rules see the path that they add`;
  }
  return undefined;
};

/** The base address of a collector: calls of a whole trust domain are told there, so that only TLS leaves this machine. */
export const checkCollectorUrl: ValueCheck = (text) => {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return "not a URL; write it as http://127.0.0.1:4318";
  }
  if (url.protocol !== "https:" && url.protocol !== "http:")
    return `https:// or http:// on this machine, not ${url.protocol}//`;
  if (url.protocol === "http:" && !isLoopback(url.hostname))
    return `plain HTTP to ${url.hostname} would leave this machine unprotected: write https://`;
  if (url.username !== "" || url.password !== "") return "an address must not hold a user name or password";
  if (url.search !== "" || url.hash !== "") return `write only ${url.origin}${url.pathname}`;
  return undefined;
};

/** `http://[::1]:8080` → `::1`, 8080. Only for what `checkHttpUrl` accepts. */
export function endpointOfHttpUrl(text: string): { host: string; port: number } {
  const url = new URL(text);
  return { host: url.hostname.replace(/^\[|\]$/g, ""), port: url.port === "" ? 80 : Number(url.port) };
}

const HOST_PORT = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)):([0-9]{1,5})$/;

export const checkHostPort: ValueCheck = (text) => {
  if (text.includes("://")) return `write host:port only, as in 127.0.0.1:8443`;
  const endpoint = parseHostPort(text);
  if (endpoint === undefined) return "not host:port, as in 127.0.0.1:8443 or [::1]:8443";
  return endpoint.port >= 1 && endpoint.port <= 65_535 ? undefined : "a port is a number from 1 to 65535";
};

/** Where a service listens that speaks neither TLS nor HTTP. */
export const checkTcpAddress: ValueCheck = (text) => {
  if (text.includes("://")) return "write host:port only, as in 127.0.0.1:5432";
  const wrong = checkHostPort(text);
  if (wrong !== undefined) return wrong;
  const { host = "" } = parseHostPort(text) ?? {};
  // What only looks like an address of 127/8 would be looked up as a name.
  const isLocal = host === "localhost" || host === "::1" || (isIPv4(host) && host.startsWith("127."));
  return isLocal
    ? undefined
    : `plain TCP to ${host} would leave this machine unprotected, and anybody on the way could read and change it; run a relay there and write { mtls: host:port }`;
};

export const checkLoopbackHostPort: ValueCheck = (text) => {
  const wrong = checkHostPort(text);
  if (wrong !== undefined) return wrong;
  const host = parseHostPort(text)?.host;
  return host === "127.0.0.1" || host === "::1"
    ? undefined
    : "only for this machine: write 127.0.0.1:PORT or [::1]:PORT";
};

/** `[::1]:8443` → `::1`, 8443; undefined if it is not host:port. */
export function parseHostPort(text: string): { host: string; port: number } | undefined {
  const match = HOST_PORT.exec(text);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined) return undefined;
  return { host, port: Number(match?.[3]) };
}

export const checkSocketPath: ValueCheck = (text) => {
  if (text === "" || text.includes("\0")) return "not a path";
  if (text.startsWith("unix:")) return `write the path only, without "unix:"`;
  return Buffer.byteLength(text) > MAX_SOCKET_PATH_BYTES
    ? `longer than the ${MAX_SOCKET_PATH_BYTES} bytes that the path of a Unix socket may have`
    : undefined;
};

/** A process is known by the file that the kernel runs, so a bare name that depends on somebody's PATH is refused. */
export const checkExecutablePath: ValueCheck = (text) => {
  if (text === "" || text.includes("\0")) return "not a path";
  if (text.startsWith("~")) return "write the whole path; ~ is not expanded";
  return text.includes("/")
    ? undefined
    : `write the path of the file, as in /usr/bin/${text}; which ${JSON.stringify(text)} a PATH finds can differ from process to process`;
};

export const checkPath: ValueCheck = (text) => {
  if (text === "" || text.includes("\0")) return "not a path";
  return text.startsWith("~") ? "write the whole path; ~ is not expanded" : undefined;
};

/** An argument as execve takes it. */
export const checkArgument: ValueCheck = (text) =>
  text.includes("\0") ? "an argument must not hold a zero byte" : undefined;

const DNS_LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

export const checkDnsName: ValueCheck = (text) => {
  if (text.includes("*")) return "wildcards are not put into SVIDs; write each name";
  const valid = text.length <= 253 && text.split(".").every((label) => DNS_LABEL.test(label));
  return valid ? undefined : "not a DNS name in lower case";
};

export const checkVariableName: ValueCheck = (text) =>
  /^[A-Za-z_][A-Za-z0-9_]*$/.test(text) ? undefined : "not the name of an environment variable";

export const checkHint: ValueCheck = (text) =>
  /^[\x20-\x7e]{0,256}$/.test(text) ? undefined : "a hint is at most 256 printable ASCII characters";

/** Where a trust domain publishes its bundle: https only (Federation §5.1). */
export const checkEndpointUrl: ValueCheck = (text) => {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return "not a URL; write it as https://host:8443/";
  }
  if (url.protocol !== "https:") return `bundles are fetched over https:// only, not ${url.protocol}//`;
  if (url.username !== "" || url.password !== "") return "an address must not hold a user name or password";
  return url.hash === "" ? undefined : "an address must not hold a fragment";
};

/** Where a decision point is asked: https, or what never leaves this machine. */
export const checkDecisionPointUrl: ValueCheck = (text) => {
  if (text.startsWith("unix:")) return checkSocketPath(text.slice("unix:".length));
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return "not a URL; write it as https://pdp.example or http://127.0.0.1:8181";
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") return `only https:// and http://, not ${url.protocol}//`;
  if (url.protocol === "http:" && !isLoopback(url.hostname)) {
    return `plain http to ${url.hostname} would leave this machine unprotected, and anybody on the way could permit anything; write https://`;
  }
  if (url.search !== "" || url.hash !== "" || url.username !== "" || url.password !== "") {
    return "the address has no query, fragment, user name or password";
  }
  const written = url.pathname === "/" ? url.origin : url.origin + url.pathname.replace(/\/$/, "");
  return text === written ? undefined : `write it as ${written}`;
};

export const checkWorkloadId: ValueCheck = (text) => {
  try {
    return SpiffeId.parse(text).path === ""
      ? "names a trust domain; write the whole SPIFFE ID of the endpoint"
      : undefined;
  } catch (thrown) {
    return messageOf(thrown);
  }
};

/** OpenID Connect Discovery §3: https without query and fragment; plain http only where nobody is in between. */
export const checkIssuer: ValueCheck = (text) => {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return "not a URL; write it as https://issuer.example";
  }
  if (url.protocol !== "https:" && !(url.protocol === "http:" && isLoopback(url.hostname))) {
    return "an issuer is an https:// address; plain http:// only on this machine";
  }
  if (url.search !== "" || url.hash !== "" || url.username !== "" || url.password !== "") {
    return "an issuer has no query, fragment, user name or password";
  }
  // Verifiers compare `iss` octet by octet, so it must be what a URL parser gives back.
  const written = url.pathname === "/" ? url.origin : url.origin + url.pathname.replace(/\/$/, "");
  return text === written ? undefined : `write it as ${written}`;
};
