import type { TcpEndpoints } from "./platform.js";

/**
 * The structures of macOS that agentid reads, decoded from their bytes. Pure, so that it is tested on every system; the layouts are those of
 * <bsm/audit.h>, <sys/ucred.h> and <sys/proc_info.h>, which are the same on Intel and Apple silicon (little-endian).
 */

/** By the names of Apple's headers. */
export const KERNEL_NUMBERS = {
  SOL_LOCAL: 0,
  LOCAL_PEERCRED: 1,
  LOCAL_PEERPID: 2,
  LOCAL_PEERTOKEN: 6,
  PROC_PIDTBSDINFO: 3,
  PROC_PIDLISTFDS: 1,
  PROC_PIDFDSOCKETINFO: 3,
  CTL_KERN: 1,
  KERN_PROCARGS2: 49,
  PT_DENY_ATTACH: 31,
  PROC_PIDUNIQIDENTIFIERINFO: 17,
  CS_OPS_STATUS: 0,
  CS_OPS_IDENTITY: 11,
  CS_OPS_TEAMID: 14,
  CS_VALID: 0x1,
  CS_DEBUGGED: 0x10000000,
} as const;

export const AUDIT_TOKEN_BYTES = 32;
export interface AuditToken {
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
  /** Counts up at every execve of the process. */
  readonly pidVersion: number;
}

/** audit_token_t: auid, euid, egid, ruid, rgid, pid, asid, pidversion. */
export function decodeAuditToken(bytes: Buffer): AuditToken {
  return {
    uid: bytes.readUInt32LE(4),
    gid: bytes.readUInt32LE(8),
    pid: bytes.readInt32LE(20),
    pidVersion: bytes.readInt32LE(28),
  };
}

export const XUCRED_BYTES = 76;
/** struct xucred: version, uid, number of groups, groups; the first group is the effective one. */
export function decodeXucred(bytes: Buffer): { uid: number; gid: number; groups: readonly number[] } {
  const count = Math.min(Math.max(bytes.readInt16LE(8), 0), 16);
  const groups = Array.from({ length: count }, (_, index) => bytes.readUInt32LE(12 + 4 * index));
  return { uid: bytes.readUInt32LE(4), gid: groups[0] ?? -1, groups: groups.slice(1) };
}

export const BSD_INFO_BYTES = 136;
export interface BsdInfo {
  readonly zombie: boolean;
  readonly parentPid: number;
  readonly uid: number;
  readonly gid: number;
  readonly name: string;
  /** Microseconds since the Unix epoch. */
  readonly startTime: bigint;
}

const SZOMB = 5;
/** struct proc_bsdinfo. */
export function decodeBsdInfo(bytes: Buffer): BsdInfo {
  const longName = cString(bytes.subarray(64, 96));
  return {
    zombie: bytes.readUInt32LE(4) === SZOMB,
    parentPid: bytes.readUInt32LE(16),
    uid: bytes.readUInt32LE(20),
    gid: bytes.readUInt32LE(24),
    name: longName === "" ? cString(bytes.subarray(48, 64)) : longName,
    startTime: bytes.readBigUInt64LE(120) * 1_000_000n + bytes.readBigUInt64LE(128),
  };
}

export const UNIQUE_INFO_BYTES = 56;
/** struct proc_uniqidentifierinfo: the UUID of the main executable and the version that counts up at every execve. */
export function decodeExecGeneration(bytes: Buffer): string {
  return `${bytes.toString("hex", 0, 16)}:${bytes.readInt32LE(32)}`;
}

/** The same structure: `p_idversion`, which an audit token calls pidversion. */
export function decodePidVersion(bytes: Buffer): number {
  return bytes.readInt32LE(32);
}

/** csops CS_OPS_STATUS: whether the kernel still stands by the signature; not once a debugger was let in. */
export function isEnforcedSignature(status: Buffer): boolean {
  const flags = status.readUInt32LE(0);
  return (flags & KERNEL_NUMBERS.CS_VALID) !== 0 && (flags & KERNEL_NUMBERS.CS_DEBUGGED) === 0;
}

/** csops CS_OPS_IDENTITY and CS_OPS_TEAMID: a word that is zero, the whole length (big-endian), then the text and a NUL. */
export function decodeSigningText(bytes: Buffer): string | undefined {
  const length = bytes.readUInt32BE(4);
  if (length <= 8 || length > bytes.length) return undefined;
  const text = cString(bytes.subarray(8, length));
  return text === "" ? undefined : text;
}

export const SOCKET_INFO_BYTES = 792;
const SOCKINFO_TCP = 2;
const KIND_AT = 24 + 232;
const UNION_AT = 24 + 240;
const INI_IPV4 = 1;

/** struct socket_fdinfo of a TCP socket: its far end as `server`, its own end as `client`; undefined for every other kind of socket. */
export function decodeTcpSocket(bytes: Buffer): TcpEndpoints | undefined {
  if (bytes.readInt32LE(KIND_AT) !== SOCKINFO_TCP) return undefined;
  const ipv4 = (bytes.readUInt8(UNION_AT + 24) & INI_IPV4) !== 0;
  const address = (at: number): string => (ipv4 ? ipv4At(bytes, at + 12) : ipv6At(bytes, at));
  return {
    server: { address: address(UNION_AT + 32), port: bytes.readUInt16BE(UNION_AT) },
    client: { address: address(UNION_AT + 48), port: bytes.readUInt16BE(UNION_AT + 4) },
  };
}

export const FD_INFO_BYTES = 8;
const PROX_FDTYPE_SOCKET = 2;
/** struct proc_fdinfo[]: the descriptors that are sockets. */
export function decodeSocketDescriptors(bytes: Buffer): readonly number[] {
  const descriptors: number[] = [];
  for (let at = 0; at + FD_INFO_BYTES <= bytes.length; at += FD_INFO_BYTES) {
    if (bytes.readUInt32LE(at + 4) === PROX_FDTYPE_SOCKET) descriptors.push(bytes.readInt32LE(at));
  }
  return descriptors;
}

/**
 * The answer of sysctl KERN_PROCARGS2: argc, the executable's path, NULs up to the next multiple of eight from its start (exec_extract_strings in xnu), then
 * the arguments. What is NUL after those is an empty argument: to skip it would take the environment for arguments.
 */
export function decodeProcessArguments(bytes: Buffer): readonly string[] {
  if (bytes.length < 4) return [];
  const count = bytes.readInt32LE(0);
  const endOfPath = bytes.indexOf(0, 4);
  if (endOfPath === -1) return [];
  const at = 4 + 8 * Math.ceil((endOfPath + 1 - 4) / 8);
  const words = bytes.toString("utf8", at).split("\0");
  // The last word is not ended: either nothing, or cut off.
  return count < 0 || count > words.length - 1 ? [] : words.slice(0, count);
}

function cString(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("utf8", 0, end === -1 ? bytes.length : end);
}

function ipv4At(bytes: Buffer, at: number): string {
  return Array.from(bytes.subarray(at, at + 4)).join(".");
}

/** Every group written out in hex without leading zeros; compared only with addresses that went through `normalAddress`. */
function ipv6At(bytes: Buffer, at: number): string {
  return Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(at + 2 * index).toString(16)).join(":");
}

/** The form in which addresses are compared: IPv4 dotted, also when mapped into IPv6; IPv6 with all eight groups. */
export function normalAddress(address: string): string {
  const plain = (address.split("%")[0] ?? address).toLowerCase();
  if (/^::ffff:\d+\.\d+\.\d+\.\d+$/.test(plain)) return plain.slice("::ffff:".length);
  if (!plain.includes("::")) return plain;
  const [head = "", tail = ""] = plain.split("::");
  const groups = (text: string): string[] => (text === "" ? [] : text.split(":"));
  const missing = 8 - groups(head).length - groups(tail).length;
  return [...groups(head), ...new Array<string>(Math.max(0, missing)).fill("0"), ...groups(tail)].join(":");
}
