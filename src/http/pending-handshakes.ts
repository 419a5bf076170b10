import type { Socket } from "node:net";
import type { Server, TLSSocket } from "node:tls";

/** So many handshakes may be under way at a listener: as many as connections are served, since all of these may come at once. */
export const MAX_HANDSHAKES = 1_024;
/** Below this nobody is short of anything, and users are not asked for. */
const UNDER_PRESSURE = 64;

/**
 * Keeps the TLS handshakes under way at a server within `most`, so that connections which never come out of theirs take no place of those that do: beyond it
 * the user who has most of them under way loses the oldest. `userOf` is the kernel's word on who holds the other end of a loopback connection. Those for
 * whom it has none are taken for one user. Returns how to find the TCP connection under a TLS one that has come out of its handshake, which Node shows in no
 * other way.
 */
export function boundHandshakes(
  server: Server,
  userOf: (socket: Socket) => number | undefined,
  most = MAX_HANDSHAKES,
): (socket: TLSSocket) => Socket | undefined {
  /** Oldest first. */
  const pending = new Map<string, Pending>();
  const byUser = new Map<User, number>();

  const forget = (key: string, one: Pending) => {
    if (pending.get(key) !== one) return;
    pending.delete(key);
    if (one.user !== undefined) count(byUser, one.user, -1);
  };

  const askFor = (one: Pending) => {
    if (one.user !== undefined) return;
    one.user = userOf(one.socket) ?? "unknown";
    count(byUser, one.user, 1);
  };

  server.prependListener("connection", (socket: Socket) => {
    const key = keyOf(socket);
    const one: Pending = { socket, user: undefined };
    pending.set(key, one);
    socket.once("close", () => forget(key, one));
    if (pending.size <= Math.min(UNDER_PRESSURE, most)) return;
    // While it is alive: of a connection that is closed the kernel knows no user.
    askFor(one);
    if (pending.size <= most) return;
    for (const other of pending.values()) askFor(other);
    const busiest = [...byUser].reduce((known, other) => (other[1] > known[1] ? other : known))[0];
    for (const [itsKey, other] of pending) {
      if (other.user !== busiest) continue;
      forget(itsKey, other);
      other.socket.destroy();
      break;
    }
  });

  return (socket) => {
    const key = keyOf(socket);
    const one = pending.get(key);
    if (one !== undefined) forget(key, one);
    return one?.socket;
  };
}

/** So many connections of peers that showed no good certificate are answered at a listener at a time. */
export const MAX_STRANGERS = 64;

/** Keeps those who came out of their handshake without a good certificate to a few: they take no place of those who have one. */
export function boundStrangers(most = MAX_STRANGERS): { admit(socket: TLSSocket): boolean } {
  let here = 0;
  return {
    /** False where there were too many already; the connection has been closed then. */
    admit(socket) {
      if (here >= most) {
        socket.destroy();
        return false;
      }
      here += 1;
      socket.once("close", () => {
        here -= 1;
      });
      return true;
    },
  };
}

type User = number | "unknown";

interface Pending {
  readonly socket: Socket;
  /** Once it has been asked for. */
  user: User | undefined;
}

function count(counts: Map<User, number>, user: User, more: number): void {
  const next = (counts.get(user) ?? 0) + more;
  if (next === 0) counts.delete(user);
  else counts.set(user, next);
}

function keyOf({ remoteAddress, remotePort }: Socket | TLSSocket): string {
  return `${remoteAddress} ${remotePort}`;
}
