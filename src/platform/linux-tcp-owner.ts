import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { isIPv4 } from "node:net";
import { findSocket, hexEndpoint, parseStat, type SocketTableRow, withoutIpv4Mapping } from "./linux-proc-text.js";
import { socketByEnds } from "./linux-socket-diag.js";
import type { NetworkView, OwnerOfConnection, TcpEndpoints } from "./platform.js";

/** How long the search may keep the event loop before it lets others run. */
const SLICE_MS = 2;

/**
 * Which processes hold the client end of a loopback TCP connection: the socket table gives inode and user, the processes' descriptor tables the holders.
 * All processes are searched, `candidates` first, because a descriptor with two holders proves nothing about either. The table is read again at
 * the end: a port that changed hands meanwhile is nobody's.
 */
export async function ownerOfTcpConnection(
  endpoints: TcpEndpoints,
  candidates: readonly number[],
  network?: NetworkView,
): Promise<OwnerOfConnection> {
  const socket = await socketOf(endpoints, network);
  if (socket === undefined) return { kind: "unknown", reason: "the connection is not in the kernel's socket table" };
  const holders = await holdersOf(`socket:[${socket.inode}]`, candidates);
  const again = await socketOf(endpoints, network);
  if (again === undefined || again.inode !== socket.inode || again.uid !== socket.uid) {
    return { kind: "unknown", reason: "the connection was closed while its owner was looked for" };
  }
  const [first, second] = holders;
  if (first === undefined) return { kind: "user-only", uid: socket.uid };
  if (second !== undefined) return { kind: "shared", pids: holders.map((holder) => holder.pid), uid: socket.uid };
  return { kind: "process", pid: first.pid, uid: socket.uid, startTime: first.startTime };
}

async function socketOf(
  { client, server }: TcpEndpoints,
  network: NetworkView | undefined,
): Promise<SocketTableRow | undefined> {
  const ends = {
    client: { address: withoutIpv4Mapping(client.address), port: client.port },
    server: { address: withoutIpv4Mapping(server.address), port: server.port },
  };
  const isV4 = isIPv4(ends.client.address);
  if (network !== undefined) return socketIn((version) => network.table(version), ends, isV4);
  const found = socketByEnds(ends, isV4 ? 4 : 6);
  if (found === "unavailable") return socketInTable(ends, isV4);
  return found === "none" ? undefined : found;
}

/** The same from /proc/net/tcp and tcp6. */
export async function socketInTable(ends: TcpEndpoints, isV4: boolean): Promise<SocketTableRow | undefined> {
  const v4 = isV4 ? await readFile("/proc/net/tcp", "latin1") : "";
  const v6 = await readFile("/proc/net/tcp6", "latin1").catch(() => "");
  return socketIn((version) => (version === 4 ? v4 : v6), ends, isV4);
}

function socketIn(
  table: (version: 4 | 6) => string,
  { client, server }: TcpEndpoints,
  isV4: boolean,
): SocketTableRow | undefined {
  const rowIn = (version: 4 | 6): SocketTableRow | undefined =>
    findSocket(
      table(version),
      hexEndpoint(client.address, client.port, version),
      hexEndpoint(server.address, server.port, version),
    );
  // An IPv6 socket that speaks IPv4 stands in the other table, with mapped addresses.
  return (isV4 ? rowIn(4) : undefined) ?? rowIn(6);
}

interface Holder {
  readonly pid: number;
  readonly startTime: bigint;
}

/** One pass over all processes, for every socket that was asked for before it began. */
interface Search {
  readonly holders: Map<string, Holder[]>;
  readonly firstPids: Set<number>;
  readonly done: Promise<void>;
}

let next: Search | undefined;
let previous: Promise<void> = Promise.resolve();

/** A pass under way may have gone by the holder already, so a question joins the pass that begins after it. */
async function holdersOf(link: string, candidates: readonly number[]): Promise<readonly Holder[]> {
  next ??= announceSearch();
  const search = next;
  const holders = search.holders.get(link) ?? [];
  search.holders.set(link, holders);
  for (const pid of candidates) search.firstPids.add(pid);
  await search.done;
  return holders;
}

function announceSearch(): Search {
  const holders = new Map<string, Holder[]>();
  const firstPids = new Set<number>();
  const done = previous.then(() => {
    next = undefined;
    return searchProcesses(holders, firstPids);
  });
  previous = done.catch(() => undefined);
  return { holders, firstPids, done };
}

async function searchProcesses(wanted: ReadonlyMap<string, Holder[]>, firstPids: ReadonlySet<number>): Promise<void> {
  let sliceStart = performance.now();
  for (const pid of new Set([...firstPids, ...allPids()])) {
    const startTime = startTimeOf(pid);
    if (startTime === undefined) continue;
    for (const link of linksOf(pid, wanted)) wanted.get(link)?.push({ pid, startTime });
    if (performance.now() - sliceStart > SLICE_MS) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      sliceStart = performance.now();
    }
  }
}

function allPids(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

function startTimeOf(pid: number): bigint | undefined {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, "latin1")).startTime;
  } catch {
    return undefined; // it has exited
  }
}

/** Those of the wanted links that the process holds. */
function linksOf(pid: number, wanted: ReadonlyMap<string, unknown>): ReadonlySet<string> {
  const directory = `/proc/${pid}/fd`;
  const held = new Set<string>();
  let descriptors: string[];
  try {
    descriptors = readdirSync(directory);
  } catch {
    return held; // it has exited, or it is another user's and not for us to see
  }
  for (const descriptor of descriptors) {
    try {
      const link = readlinkSync(`${directory}/${descriptor}`);
      if (wanted.has(link)) held.add(link);
    } catch {
      // this descriptor was closed between the listing and now
    }
  }
  return held;
}
