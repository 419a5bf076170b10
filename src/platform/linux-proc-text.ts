/**
 * The text of `/proc/PID/stat`, `/proc/PID/status` and `/proc/net/tcp`, parsed. Pure: proc(5) is the format's description.
 */

export interface ProcStat {
  readonly comm: string;
  readonly state: string;
  readonly parentPid: number;
  /** Clock ticks since boot (field 22). */
  readonly startTime: bigint;
  /** `startstack` and `arg_start` (fields 28 and 48), which every execve sets anew; undefined where the kernel shows zeros (no right to look). */
  readonly execGeneration: string | undefined;
}

/** Parses `/proc/PID/stat`. The command name may hold spaces and brackets, so fields are counted from the last `)`. */
export function parseStat(text: string): ProcStat {
  const open = text.indexOf("(");
  const close = text.lastIndexOf(")");
  // Field after field, so that only those which are wanted are cut out: this is read before every answer.
  let number = 3;
  let at = close + 2;
  const field = (wanted: number): string => {
    for (; number < wanted; number += 1) {
      const blank = text.indexOf(" ", at);
      if (blank === -1) return "0";
      at = blank + 1;
    }
    const end = text.indexOf(" ", at);
    return text.slice(at, end === -1 ? undefined : end);
  };
  const state = field(3);
  const parentPid = Number(field(4));
  const startTime = BigInt(field(22));
  // The kernel fills a new image's numbers in one after the other; where its code starts comes last, and no process can set it back to nothing.
  const isUnderWay = field(26) === "0";
  const startStack = field(28);
  const argStart = field(48);
  return {
    comm: text.slice(open + 1, close),
    state,
    parentPid,
    startTime,
    execGeneration: isUnderWay || (startStack === "0" && argStart === "0") ? undefined : `${startStack}:${argStart}`,
  };
}

export interface ProcCredentials {
  /** Effective. */
  readonly uid: number;
  /** Effective. */
  readonly gid: number;
  readonly supplementaryGids: readonly number[];
}

/** Parses the `Uid:`, `Gid:` and `Groups:` lines of `/proc/PID/status`; the second number is the effective one. */
export function parseStatus(text: string): ProcCredentials {
  const uids = text.indexOf("\nUid:");
  const gids = text.indexOf("\nGid:", uids);
  return {
    uid: numbersAfter(text, uids)[1] ?? -1,
    gid: numbersAfter(text, gids)[1] ?? -1,
    supplementaryGids: numbersAfter(text, text.indexOf("\nGroups:", gids)),
  };
}

const NEWLINE = 0x0a;
const ZERO = 0x30;
const NINE = 0x39;

/** The numbers on the line that begins after the line feed at `at`; this is read before every answer. */
function numbersAfter(text: string, at: number): number[] {
  const found: number[] = [];
  if (at === -1) return found;
  let number = -1;
  for (let index = text.indexOf(":", at) + 1; ; index += 1) {
    const code = index < text.length ? text.charCodeAt(index) : NEWLINE;
    if (code >= ZERO && code <= NINE) {
      number = Math.max(number, 0) * 10 + code - ZERO;
      continue;
    }
    if (number !== -1) found.push(number);
    number = -1;
    if (code === NEWLINE) return found;
  }
}

/** Splits the NUL-separated arguments of `/proc/PID/cmdline`. */
export function parseCommandLine(bytes: Buffer): readonly string[] {
  if (bytes.length === 0) return [];
  const text = bytes.toString("utf8");
  return (text.endsWith("\0") ? text.slice(0, -1) : text).split("\0");
}

export interface SocketTableRow {
  readonly uid: number;
  readonly inode: string;
}

/**
 * The row of `/proc/net/tcp` or `tcp6` whose own end is `local` and whose far end is `remote`, both as `hexEndpoint` writes them.
 * Undefined when there is none or when no process holds the socket any more (inode 0: TIME_WAIT).
 */
export function findSocket(table: string, local: string, remote: string): SocketTableRow | undefined {
  const at = table.indexOf(` ${local} ${remote} `);
  if (at === -1) return undefined;
  const end = table.indexOf("\n", at);
  const words = table
    .slice(at, end === -1 ? undefined : end)
    .trim()
    .split(/\s+/);
  // local, remote, state, queues, timer, retransmits, uid, timeout, inode
  const [, , , , , , uid, , inode] = words;
  if (uid === undefined || inode === undefined || inode === "0") return undefined;
  return { uid: Number(uid), inode };
}

/** `127.0.0.1`, 8080 → `0100007F:1F90`: each 32-bit word in this machine's byte order, the port in plain hex. */
export function hexEndpoint(address: string, port: number, family: 4 | 6): string {
  const bytes = addressBytes(address, family);
  let hex = "";
  for (let word = 0; word < bytes.length; word += 4) {
    for (let byte = 3; byte >= 0; byte -= 1) hex += (bytes[word + byte] ?? 0).toString(16).padStart(2, "0");
  }
  return `${hex}:${port.toString(16).padStart(4, "0")}`.toUpperCase();
}

/** The address in network order; an IPv4 address in family 6 is written as mapped. */
export function addressBytes(address: string, family: 4 | 6): readonly number[] {
  return family === 4 ? ipv4Bytes(address) : ipv6Bytes(address);
}

/** The IPv4 address inside `::ffff:127.0.0.1`, or the address itself. */
export function withoutIpv4Mapping(address: string): string {
  return /^::ffff:\d+\.\d+\.\d+\.\d+$/i.test(address) ? address.slice("::ffff:".length) : address;
}

function ipv4Bytes(address: string): number[] {
  return address.split(".").map(Number);
}

function ipv6Bytes(address: string): number[] {
  const mapped = withoutIpv4Mapping(address);
  if (mapped.includes(".")) return [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, ...ipv4Bytes(mapped)];
  const plain = address.split("%")[0] ?? address;
  const [head = "", tail] = plain.split("::");
  const groups = (text: string): number[] =>
    text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16));
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const middle = new Array<number>(Math.max(0, 8 - left.length - right.length)).fill(0);
  return [...left, ...middle, ...right].flatMap((group) => [group >> 8, group & 255]);
}

export interface MountOfPath {
  /** Where it is mounted. */
  readonly at: string;
  readonly readOnly: boolean;
}

/** The mount of /proc/PID/mountinfo on which `path` lies: of the longest mount point above it, the last one listed. Undefined when there is none. */
export function mountAt(mountinfo: string, path: string): MountOfPath | undefined {
  let found: MountOfPath | undefined;
  for (const line of mountinfo.split("\n")) {
    // id, parent, device, root, mount point, options, …
    const [, , , , point, options] = line.split(" ");
    if (point === undefined || options === undefined) continue;
    const at = point.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    const isAbove = path === at || path.startsWith(at === "/" ? "/" : `${at}/`);
    if (isAbove && (found === undefined || at.length >= found.at.length)) {
      found = { at, readOnly: options.split(",").includes("ro") };
    }
  }
  return found;
}
