import type { Socket } from "node:net";
import type { Caller, CallerAttestor } from "../attestation/caller.js";
import { CodedError } from "../coded-error.js";
import type { Clock } from "../platform/clock.js";

/** One accepted connection and the process at its other end. */
export interface Connection {
  /** Rejects with the CodedError of the attestation. */
  readonly caller: Promise<Caller>;
  /** The caller once it is known, so that hot paths need not wait for a promise. */
  readonly attested: Caller | undefined;
  /** Says that an RPC came in; a connection that never does this is closed. */
  spoke(): void;
  /** True for the first time that `subject` is mentioned on this connection: events are shown once, not once a retry. */
  firstTime(subject: string): boolean;
  /** Closes the connection when its last statuses are out. The process has become another one: a new connection is attested afresh. */
  retire(): void;
}

export interface Connections {
  /** Reads the kernel's word on the peer at once, starts attestation, and gives the socket the name by which RPCs find it again. */
  accept(socket: Socket): void;
  /** The connection an RPC came on, by `call.getPeer()`. */
  find(peer: string): Connection | undefined;
  readonly size: number;
  /** Resolves when the last connection is closed. */
  allClosed(): Promise<void>;
  /** Closes every connection now. */
  destroy(): void;
}

export interface ConnectionLimits {
  /** A connection on which no RPC comes for this long is closed. */
  readonly firstCallMs: number;
  /** How long statuses have to leave before a retired connection is closed. */
  readonly retireMs: number;
}

/** Keeps what the kernel said of each peer for as long as its connection lives (D11). */
export function createConnections(
  attestor: Pick<CallerAttestor, "ofUnixSocket">,
  clock: Clock,
  limits: ConnectionLimits,
): Connections {
  const open = new Map<string, { connection: Connection; socket: Socket }>();
  let accepted = 0;
  let onEmpty: (() => void)[] = [];

  function forget(key: string): void {
    open.delete(key);
    if (open.size > 0) return;
    for (const resolve of onEmpty) resolve();
    onEmpty = [];
  }

  return {
    accept(socket) {
      const key = `connection-${++accepted}`;
      // grpc-js names a call's peer by these two; a Unix socket has neither of its own.
      Object.defineProperty(socket, "remoteAddress", { value: key });
      Object.defineProperty(socket, "remotePort", { value: undefined });
      const held = holdCaller(socket, attestor, clock, limits);
      open.set(key, { connection: held.connection, socket });
      socket.once("close", () => {
        held.release();
        forget(key);
      });
    },
    find: (peer) => open.get(peer)?.connection,
    get size() {
      return open.size;
    },
    allClosed: () => (open.size === 0 ? Promise.resolve() : new Promise((resolve) => onEmpty.push(resolve))),
    destroy() {
      for (const { socket } of open.values()) socket.destroy();
    },
  };
}

function holdCaller(
  socket: Socket,
  attestor: Pick<CallerAttestor, "ofUnixSocket">,
  clock: Clock,
  limits: ConnectionLimits,
): { connection: Connection; release: () => void } {
  let attested: Caller | undefined;
  let cancelTimer = clock.after(limits.firstCallMs, () => socket.destroy());
  let retired = false;
  const mentioned = new Set<string>();

  const caller = attest(socket, attestor);
  caller.then(
    (result) => {
      attested = result;
      if (socket.destroyed) result.close();
    },
    // The RPCs that wait for it report it.
    () => undefined,
  );

  const connection: Connection = {
    caller,
    get attested() {
      return attested;
    },
    spoke() {
      if (!retired) cancelTimer();
    },
    firstTime(subject) {
      if (mentioned.has(subject)) return false;
      mentioned.add(subject);
      return true;
    },
    retire() {
      if (retired) return;
      retired = true;
      cancelTimer();
      cancelTimer = clock.after(limits.retireMs, () => socket.destroy());
    },
  };
  const release = (): void => {
    cancelTimer();
    attested?.close();
  };
  return { connection, release };
}

/** Never throws synchronously: what the kernel refuses is the RPCs' answer, not the end of the accept loop. */
async function attest(socket: Socket, attestor: Pick<CallerAttestor, "ofUnixSocket">): Promise<Caller> {
  return attestor.ofUnixSocket(descriptorOf(socket));
}

/** The descriptor of an accepted connection. Node has no public name for it. */
function descriptorOf(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, "_handle");
  if (
    typeof handle === "object" &&
    handle !== null &&
    "fd" in handle &&
    typeof handle.fd === "number" &&
    handle.fd >= 0
  )
    return handle.fd;
  throw new CodedError("peer-unknown", "the connection was closed before the kernel could be asked who opened it");
}
