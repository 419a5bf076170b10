import type { Socket } from "node:net";
import type { Caller, CallerAttestor, Nobody } from "../attestation/caller.js";
import { codeOf, messageOf } from "../coded-error.js";
import { Refusal } from "../http/refusal.js";
import type { Entitlement, IdentityRegistry } from "../identity/entitlement.js";
import type { NetworkView, TcpEndpoints } from "../platform/platform.js";
import { descriptorOf } from "../platform/socket-descriptor.js";

/** How a connection came in: on a Unix socket, or by TCP in our own network or in a sandbox's. */
export type Arrival = "unix" | NetworkView | undefined;

/** A plain connection and the process at its other end. */
export interface AttestedConnection {
  readonly attested: Promise<Caller | Nobody>;
  /** Set once `attested` has settled, so that later requests on the connection need not wait a turn. */
  who: Caller | Nobody | undefined;
}

/** Begins attestation at accept, once a connection; what it holds of the process is let go when the connection closes. */
export function attestConnection(attestor: CallerAttestor, socket: Socket, arrival: Arrival): AttestedConnection {
  const attested = arrival === "unix" ? ofUnixSocket(attestor, socket) : ofTcpConnection(attestor, socket, arrival);
  const calling: AttestedConnection = { attested, who: undefined };
  let closed = false;
  void attested.then((who) => {
    calling.who = who;
    if (closed) release(who);
  });
  socket.once("close", () => {
    closed = true;
    if (calling.who !== undefined) release(calling.who);
  });
  return calling;
}

function ofTcpConnection(
  attestor: CallerAttestor,
  socket: Socket,
  network: NetworkView | undefined,
): Promise<Caller | Nobody> {
  return attestor.ofTcpConnection({ ...endpointsOf(socket), ...acceptedDescriptor(socket) }, network);
}

function endpointsOf(socket: Socket): TcpEndpoints {
  return {
    client: { address: socket.remoteAddress ?? "", port: socket.remotePort ?? 0 },
    server: { address: socket.localAddress ?? "", port: socket.localPort ?? 0 },
  };
}

/** Whose connection it is, where the kernel says so at once: for bounds, not for identities. */
export function userBehind(attestor: CallerAttestor, socket: Socket): number | undefined {
  return attestor.userOfTcpConnection?.(endpointsOf(socket));
}

/** The kernel's word is taken here and now, before the peer can do anything further. */
async function ofUnixSocket(attestor: CallerAttestor, socket: Socket): Promise<Caller | Nobody> {
  try {
    return await attestor.ofUnixSocket(descriptorOf(socket));
  } catch (thrown) {
    return { nobody: true, uid: undefined, pid: undefined, reason: messageOf(thrown) };
  }
}

/** Without it a connection is known by its two ends only. */
function acceptedDescriptor(socket: Socket): { accepted?: number } {
  try {
    return { accepted: descriptorOf(socket) };
  } catch {
    return {};
  }
}

function release(who: Caller | Nobody): void {
  if (!("nobody" in who)) who.close();
}

/** The first identity that follows now from the process, checked again (D5, D9). Throws Refusal `no-identity` or `process-changed` (403). */
export function identityOf(registry: IdentityRegistry, who: Caller | Nobody): Entitlement {
  if ("nobody" in who) throw new Refusal("no-identity", 403, `no identity: ${who.reason}`);
  try {
    who.recheck();
  } catch (cause) {
    const reason = `${codeOf(cause)}: ${messageOf(cause)}`;
    throw new Refusal("process-changed", 403, `no identity: ${describeProcess(who)} (${reason})`, { cause });
  }
  const entitlement = entitlementOf(registry, who);
  if (entitlement !== undefined) return entitlement;
  const hint = `"agentid attest ${who.facts.pid}" says why`;
  throw new Refusal("no-identity", 403, `no identity: ${describeProcess(who)}; ${hint}`);
}

/** What the process is entitled to first, as it was at its last check. */
export function entitlementOf(registry: IdentityRegistry, who: Caller | Nobody | undefined): Entitlement | undefined {
  if (who === undefined || "nobody" in who) return undefined;
  return registry.entitlementsOf(who).granted[0];
}

export function passesRecheck(caller: Caller): boolean {
  try {
    caller.recheck();
    return true;
  } catch {
    return false;
  }
}

/** The user of the process at the other end, where the kernel says so. */
export function userOf(who: Caller | Nobody): number | undefined {
  return "nobody" in who ? who.uid : who.facts.uid;
}

/** `python3 other.py, pid 5120, uid 1000`. */
export function describeProcess(who: Caller | Nobody): string {
  const words: string[] = [];
  if ("nobody" in who) {
    if (who.pid !== undefined) words.push(`pid ${who.pid}`);
    if (who.uid !== undefined) words.push(`uid ${who.uid}`);
    return words.join(", ");
  }
  const { commandLine, exePath, pid, uid } = who.facts;
  const command = commandLine.length > 0 ? commandLine.join(" ") : exePath;
  if (command !== undefined) words.push(command);
  return [...words, `pid ${pid}`, `uid ${uid}`].join(", ");
}
