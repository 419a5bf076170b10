import { isIP, isIPv6 } from "node:net";
import { WorkloadApiError } from "./workload-api-error.js";

/** Where a Workload API listens, and how grpc-js names it. */
export interface WorkloadEndpoint {
  /** As it was given, for messages. */
  readonly address: string;
  /** The target of a gRPC channel: `unix:/run/x.sock`, `ipv4:127.0.0.1:8000`, `ipv6:[::1]:8000`. */
  readonly target: string;
}

const SOCKET_VARIABLE = "SPIFFE_ENDPOINT_SOCKET";

/**
 * The endpoint named by `address`, else by the environment variable SPIFFE_ENDPOINT_SOCKET. Workload Endpoint §4: an RFC 3986 URI whose
 * scheme is `unix` ("the authority component MUST NOT be set, and the path component MUST be set to the absolute path") or `tcp`
 * ("the host component MUST be an IP address, the port MUST be set"); nothing else may be there (EP-13, EP-14).
 * Throws WorkloadApiError `workload-api-address-missing`, `workload-api-address-invalid`.
 */
export function workloadEndpoint(
  address: string | undefined,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): WorkloadEndpoint {
  const named = address ?? environment[SOCKET_VARIABLE];
  if (named === undefined || named === "") {
    throw new WorkloadApiError("workload-api-address-missing", "there is no Workload API to ask", {
      hint: `set ${SOCKET_VARIABLE} to its address, for example unix:///run/workload.sock`,
    });
  }
  return { address: named, target: targetOf(named) };
}

/** RFC 3986 appendix B, without characters that no URI may hold. */
const URI = /^([A-Za-z][A-Za-z0-9+.-]*):(?:\/\/([^/?#]*))?([^?#]*)(\?[^#]*)?(#.*)?$/;

function targetOf(address: string): string {
  const [, scheme = "", authority, path = "", query, fragment] = URI.exec(address) ?? [];
  if (scheme === "" || /[^\x21-\x7e]/.test(address)) throw invalid(address, "it is not a URI");
  if (query !== undefined || fragment !== undefined) throw invalid(address, "it must not have a query or a fragment");
  // RFC 3986 §3.1: "schemes are case-insensitive".
  const kind = scheme.toLowerCase();
  if (kind === "unix") return `unix:${socketPath(address, authority, path)}`;
  if (kind === "tcp") return tcpTarget(address, authority ?? "", path);
  throw invalid(address, "its scheme must be unix or tcp");
}

function socketPath(address: string, authority: string | undefined, path: string): string {
  if (authority !== undefined && authority !== "") throw invalid(address, "a unix address has no host");
  if (!path.startsWith("/") || path === "/") throw invalid(address, "a unix address holds an absolute path");
  let decoded: string;
  try {
    decoded = decodeURIComponent(path);
  } catch {
    throw invalid(address, "a percent sign is not followed by a character's number");
  }
  if (decoded.includes("\0")) throw invalid(address, "a path holds no NUL");
  return decoded;
}

function tcpTarget(address: string, authority: string, path: string): string {
  if (path !== "") throw invalid(address, "a tcp address has no path");
  const [, bracketed, plain, port = ""] = /^(?:\[([^\]]*)\]|([^:@[\]]*)):(\d{1,5})$/.exec(authority) ?? [];
  const host = bracketed ?? plain ?? "";
  const isAddress = bracketed === undefined ? isIP(host) === 4 : isIPv6(host) && !host.includes("%");
  if (!isAddress) throw invalid(address, "a tcp address is an IP address and a port, not a name");
  if (Number(port) < 1 || Number(port) > 65_535) throw invalid(address, "its port is not a port");
  return bracketed === undefined ? `ipv4:${host}:${port}` : `ipv6:[${host}]:${port}`;
}

function invalid(address: string, why: string): WorkloadApiError {
  return new WorkloadApiError(
    "workload-api-address-invalid",
    `${JSON.stringify(address)} is not the address of a Workload API: ${why}`,
    { hint: "write unix:///absolute/path or tcp://127.0.0.1:PORT" },
  );
}
