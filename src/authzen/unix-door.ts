import { createServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Caller } from "../attestation/caller.js";
import { messageOf } from "../coded-error.js";
import { type HttpListener, serveHttp } from "../http/http-listener.js";
import type { IncomingRequest } from "../http/incoming-request.js";
import { Refusal } from "../http/refusal.js";
import { descriptorOf } from "../platform/socket-descriptor.js";
import { listenOnUnixSocket } from "../platform/unix-socket-listener.js";
import { clientAmong } from "./clients.js";
import type { AuthzenParts, EnforcementPoint } from "./parts.js";
import type { Answerer, Door } from "./server.js";

/** A connection and the process at its other end; undefined until the kernel's word is worked out. */
interface Connected {
  readonly fd: number;
  readonly attested: Promise<Caller>;
  who: Caller | undefined;
}

/** `http://localhost` on a socket: what programs send as `Host` when there is none. */
const HOSTS = ["localhost", "agentid"];

/**
 * Answers on the Unix socket `path`. Who asks, the kernel says: a process of one of the identities that may, or one that is shown to be the owner's own
 * (D25). Only the owner's processes can enter the folder, and only the owner the socket.
 */
export async function openUnixDoor(parts: AuthzenParts, answer: Answerer, path: string): Promise<HttpListener> {
  const connections = new Map<Duplex, Connected>();
  const door: Door = {
    names: { hosts: new Set(HOSTS), origins: new Set() },
    scheme: "http",
    challenge: `Kernel realm="${parts.trustDomain.name}"`,
    whoAsks: (request) => {
      const connected = connectionOf(connections, request);
      if (connected.who !== undefined) return identified(connected, connected.who, parts);
      return connected.attested.then(
        (who) => identified(connected, who, parts),
        (cause: unknown) => {
          throw new Refusal("no-identity", 401, `nobody can say who asks: ${messageOf(cause)}`, { cause });
        },
      );
    },
    describe: (request) => {
      const who = connections.get(request.socket)?.who;
      return { caller: "(none)", detail: detailOf(who), user: who?.facts.uid };
    },
  };
  const server = createServer();
  const listener = serveHttp(server, {
    refused: () => undefined,
    request: (request, response) => answer(door, request, response),
  });
  server.on("connection", (socket: Socket) => connections.set(socket, attest(parts, socket, connections)));
  await listenOnUnixSocket(server, path, 0o600);
  return listener;
}

function connectionOf(connections: ReadonlyMap<Duplex, Connected>, request: IncomingRequest): Connected {
  const connected = connections.get(request.socket);
  if (connected === undefined) throw new Refusal("no-identity", 401, "the connection was closed");
  return connected;
}

/** Begins attestation at accept, once a connection. */
function attest(parts: AuthzenParts, socket: Socket, connections: Map<Duplex, Connected>): Connected {
  const fd = descriptorOf(socket);
  const attested = parts.attestor.ofUnixSocket(fd);
  const connected: Connected = { fd, attested, who: undefined };
  let closed = false;
  attested.then(
    (who) => {
      connected.who = who;
      if (closed) who.close();
    },
    // Whoever asks on it reports it.
    () => undefined,
  );
  socket.once("close", () => {
    closed = true;
    connections.delete(socket);
    connected.who?.close();
  });
  return connected;
}

/** Before each request: the process is the one that was attested (D5), and has now what makes it an enforcement point. */
function identified({ fd }: Connected, who: Caller, parts: AuthzenParts): EnforcementPoint {
  const detail = detailOf(who);
  try {
    who.recheck();
  } catch (cause) {
    throw new Refusal("process-changed", 401, `no identity: ${detail} (${messageOf(cause)})`, { cause });
  }
  const { granted } = parts.registry.entitlementsOf(who);
  const names = granted.map(({ identity }) => identity.name);
  const clients = parts.clients();
  if (names.some((name) => clients.includes(name))) {
    const ids = new Map(granted.map(({ identity }) => [identity.name, identity.id.toString()]));
    return clientAmong(names, clients, (name) => ids.get(name) ?? "", detail);
  }
  const owner = parts.owner(fd);
  if (owner.allowed) return { name: "owner", id: undefined, detail };
  if (names.length > 0) return clientAmong(names, clients, () => "", detail);
  throw new Refusal(
    "no-identity",
    401,
    `no identity: ${detail}; "agentid attest ${who.facts.pid}" says why. Nor is it the owner's own: ${owner.reason}`,
  );
}

/** `python3 gateway.py, pid 5120, uid 1000`. */
function detailOf(who: Caller | undefined): string {
  if (who === undefined) return "";
  const { commandLine, exePath, pid, uid } = who.facts;
  const command = commandLine.length > 0 ? commandLine.join(" ") : (exePath ?? "");
  return [command, `pid ${pid}`, `uid ${uid}`].filter((part) => part !== "").join(", ");
}
