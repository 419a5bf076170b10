import type { ClientHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import { CodedError } from "../coded-error.js";

const { connect } = process.getBuiltinModule("node:http2");

/** So many streams share a connection before another is opened, whatever more the other side would take. */
const MAX_STREAMS = 100;
const MAX_SESSIONS = 32;
const IDLE_MS = 30_000;

/** A place on an HTTP/2 connection for one call. */
export interface SessionLease {
  readonly session: ClientHttp2Session;
  /** Must be called once, when the call is over. */
  release(): void;
}

/** HTTP/2 connections to one place. */
export interface SessionPool {
  /** Rejects as opening a connection fails. */
  lease(): Promise<SessionLease>;
  /** Lets calls finish, and opens nothing more. */
  retire(): void;
  /** Closes at once. */
  destroy(): void;
}

interface Entry {
  readonly ready: Promise<ClientHttp2Session>;
  session: ClientHttp2Session | undefined;
  running: number;
  idle: NodeJS.Timeout | undefined;
}

/** `open` makes the connections; `origin` is how requests on them name the other side: `http://localhost`. */
export function createSessionPool(origin: string, open: () => Promise<Socket>): SessionPool {
  const entries = new Set<Entry>();
  let retired = false;

  function add(): Entry {
    const entry: Entry = { ready: open().then(speak), session: undefined, running: 0, idle: undefined };
    entries.add(entry);
    entry.ready.then(
      (session) => {
        entry.session = session;
        const over = () => {
          clearTimeout(entry.idle);
          entries.delete(entry);
        };
        session.once("close", over);
        // What runs on it goes on; nothing new is accepted there.
        session.once("goaway", over);
      },
      () => entries.delete(entry),
    );
    return entry;
  }

  function speak(socket: Socket): ClientHttp2Session {
    const session = connect(origin, {
      createConnection: () => socket,
      settings: { enablePush: false, maxHeaderListSize: 32 * 1024 },
      maxSettings: 32,
      maxHeaderListPairs: 128,
      maxSessionMemory: 10,
    });
    session.on("error", () => session.destroy());
    // A connection that waits for its next call keeps nobody's process alive.
    session.unref();
    return session;
  }

  function roomIn({ session }: Entry): number {
    if (session === undefined) return MAX_STREAMS;
    return Math.min(MAX_STREAMS, session.remoteSettings?.maxConcurrentStreams ?? MAX_STREAMS);
  }

  function choose(): Entry {
    const usable = [...entries].filter(
      ({ session }) => session === undefined || !(session.closed || session.destroyed),
    );
    const free = usable.find((entry) => entry.running < roomIn(entry));
    if (free !== undefined) return free;
    if (usable.length < MAX_SESSIONS) return add();
    return usable.reduce((one, other) => (other.running < one.running ? other : one));
  }

  function release(entry: Entry): void {
    entry.running -= 1;
    if (entry.running > 0) return;
    if (retired) entry.session?.close();
    entry.idle = setTimeout(() => entry.session?.close(), IDLE_MS);
    entry.idle.unref();
  }

  return {
    async lease() {
      const entry = choose();
      entry.running += 1;
      clearTimeout(entry.idle);
      try {
        const session = await entry.ready;
        if (session.closed || session.destroyed) throw new CodedError("ECONNRESET", "the connection has ended");
        let released = false;
        return {
          session,
          release() {
            if (!released) release(entry);
            released = true;
          },
        };
      } catch (thrown) {
        release(entry);
        throw thrown;
      }
    },
    retire() {
      retired = true;
      // Those with calls on them are closed as the last of these ends.
      for (const { running, session } of entries) if (running === 0) session?.close();
    },
    destroy() {
      for (const { ready } of entries)
        void ready.then(
          (session) => session.destroy(),
          () => undefined,
        );
      entries.clear();
    },
  };
}
