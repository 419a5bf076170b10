import { fstatSync, readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { isIPv4 } from "node:net";
import { isSocketAt, socketsHeldBy } from "./linux-descriptors.js";
import { findSocket, hexEndpoint, parseStat, type SocketTableRow, withoutIpv4Mapping } from "./linux-proc-text.js";
import { socketByEnds } from "./linux-socket-diag.js";
import type { HolderOfConnection, NetworkView, OwnerOfConnection, TcpEndpoints } from "./platform.js";

/** How long the search may keep the event loop before it lets others run: they are to have their own answer within a millisecond. */
const SLICE_MS = 0.5;

/**
 * Which processes hold the client end of a loopback TCP connection: the socket table gives inode and user, the processes' descriptor tables the holders.
 * A descriptor with two holders proves nothing about either, so all processes are searched. A candidate that holds it is answered at once, with that search
 * still to come. Both ends are looked up again afterwards: a port that changed hands meanwhile is nobody's.
 */
export async function ownerOfTcpConnection(
  endpoints: TcpEndpoints,
  candidates: readonly number[],
  network?: NetworkView,
): Promise<HolderOfConnection> {
  const socket = await liveSocketOf(endpoints, network);
  if (socket === undefined) return { kind: "unknown", reason: "the connection is not in the kernel's socket table" };
  const inode = Number(socket.inode);
  const first = await firstAmong(candidates, inode);
  const searched = async () =>
    ownerAmong(await holdersOf(inode, first === undefined ? candidates : [first.pid]), socket, endpoints, network);
  return first === undefined
    ? searched()
    : { kind: "held", pid: first.pid, startTime: first.startTime, owner: searched() };
}

/** From the kernel's answer alone, which takes microseconds: whose socket it is, not which process holds it. */
export function userOfTcpConnection({ client, server }: TcpEndpoints): number | undefined {
  const ends = {
    client: { address: withoutIpv4Mapping(client.address), port: client.port },
    server: { address: withoutIpv4Mapping(server.address), port: server.port },
  };
  const found = socketByEnds(ends, isIPv4(ends.client.address) ? 4 : 6);
  return typeof found === "string" ? undefined : found.uid;
}

/** What follows from all holders of the socket. */
async function ownerAmong(
  holders: readonly Holder[],
  socket: SocketTableRow,
  endpoints: TcpEndpoints,
  network: NetworkView | undefined,
): Promise<OwnerOfConnection> {
  const again = await liveSocketOf(endpoints, network);
  if (again === undefined || again.inode !== socket.inode || again.uid !== socket.uid) {
    return { kind: "unknown", reason: "the connection was closed while its owner was looked for" };
  }
  const [first, second] = holders;
  if (first === undefined) return { kind: "user-only", uid: socket.uid };
  if (second !== undefined) return { kind: "shared", pids: holders.map((holder) => holder.pid), uid: socket.uid };
  return { kind: "process", pid: first.pid, uid: socket.uid, startTime: first.startTime };
}

/** The client's socket, while our end of the same connection is the accepted one. */
async function liveSocketOf(
  { client, server, accepted }: TcpEndpoints,
  network: NetworkView | undefined,
): Promise<SocketTableRow | undefined> {
  if (accepted !== undefined) {
    // Data that came before a reset can still be read when the client's port already belongs to somebody else's connection.
    const ours = await socketOf({ client: server, server: client }, network);
    if (ours === undefined || ours.inode !== inodeOf(accepted)) return undefined;
  }
  return socketOf({ client, server }, network);
}

function inodeOf(fd: number): string | undefined {
  try {
    return String(fstatSync(fd).ino);
  } catch {
    return undefined; // closed meanwhile
  }
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

/** The first candidate that holds the socket. */
async function firstAmong(candidates: readonly number[], inode: number): Promise<Holder | undefined> {
  const wanted = new Map([[inode, undefined]]);
  const pause = sliced();
  for (const pid of candidates) {
    const found = holderOf(pid, wanted);
    if (found !== undefined) return found.holder;
    const waiting = pause();
    if (waiting !== undefined) await waiting;
  }
  return undefined;
}

/** Lets others have the event loop whenever a slice of time is used up. */
function sliced(): () => Promise<void> | undefined {
  let start = performance.now();
  return () => {
    if (performance.now() - start <= SLICE_MS) return undefined;
    return new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
      start = performance.now();
    });
  };
}

/** One pass over all processes, for every socket that was asked for before it began. */
interface Search {
  /** By inode. */
  readonly holders: Map<number, Holder[]>;
  readonly firstPids: Set<number>;
  readonly done: Promise<void>;
}

let next: Search | undefined;
let previous: Promise<void> = Promise.resolve();

/** A pass under way may have gone by the holder already, so a question joins the pass that begins after it. */
async function holdersOf(inode: number, candidates: readonly number[]): Promise<readonly Holder[]> {
  next ??= announceSearch();
  const search = next;
  const holders = search.holders.get(inode) ?? [];
  search.holders.set(inode, holders);
  for (const pid of candidates) search.firstPids.add(pid);
  await search.done;
  return holders;
}

function announceSearch(): Search {
  const holders = new Map<number, Holder[]>();
  const firstPids = new Set<number>();
  const done = previous.then(() => {
    next = undefined;
    return searchProcesses(holders, firstPids);
  });
  previous = done.catch(() => undefined);
  return { holders, firstPids, done };
}

async function searchProcesses(wanted: ReadonlyMap<number, Holder[]>, firstPids: ReadonlySet<number>): Promise<void> {
  const pids = new Set([...firstPids, ...(await allPids())]);
  const pause = sliced();
  for (const pid of pids) {
    const found = holderOf(pid, wanted);
    for (const inode of found?.held ?? []) if (found !== undefined) wanted.get(inode)?.push(found.holder);
    const waiting = pause();
    if (waiting !== undefined) await waiting;
  }
}

async function allPids(): Promise<number[]> {
  return (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
}

/** Process `pid` and those of the wanted sockets that it holds: seen, then the start time read, then seen again, so that both are of one process. */
function holderOf(
  pid: number,
  wanted: ReadonlyMap<number, unknown>,
): { holder: Holder; held: Iterable<number> } | undefined {
  const seen = socketsHeldBy(pid, wanted);
  if (seen.size === 0) return undefined;
  const startTime = startTimeOf(pid);
  if (startTime === undefined) return undefined;
  const stays = [...seen].every(([inode, descriptor]) => isSocketAt(descriptor, inode));
  const held = stays ? seen : socketsHeldBy(pid, wanted);
  return held.size === 0 ? undefined : { holder: { pid, startTime }, held: held.keys() };
}

function startTimeOf(pid: number): bigint | undefined {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, "latin1")).startTime;
  } catch {
    return undefined; // it has exited
  }
}
