import { lookup } from "node:dns/promises";
import { readFileSync } from "node:fs";
import { connect as connectTcp, isIP, type LookupFunction, type Socket } from "node:net";
import { connect as connectTls, createSecureContext, getCACertificates, type SecureContext } from "node:tls";
import { codeOf, messageOf } from "../coded-error.js";
import { addressClass, isNoDestination } from "../config/address-class.js";
import type { EgressTarget } from "../config/config.js";
import { urlOfTarget } from "../config/describe-egress.js";
import type { ReadsInto } from "../http/client-connection.js";
import { ClientPool } from "../http/client-pool.js";
import type { Onward } from "../http/outgoing-call.js";
import { Refusal } from "../http/refusal.js";

/** All addresses of a name, in the order in which to try them. */
export type Resolve = (host: string) => Promise<readonly { readonly address: string; readonly family: number }[]>;

/** The way out to one target, of which callers share the connections. */
export interface EgressConnection {
  readonly target: EgressTarget;
  readonly dispatcher: Onward;
  /** As `Host` names the target. */
  readonly host: string;
  /** Lets calls finish. */
  retire(): void;
  destroy(): Promise<void>;
}

const MAX_CONNECTIONS = 128;
const KEEP_ALIVE_MS = 4_000;
const CONNECT_TIMEOUT_MS = 10_000;

const resolveBySystem: Resolve = (host) => lookup(host, { all: true });

/** Connects to `target` when the first call goes there. Throws Refusal `upstream-unverified` where its `ca` cannot be read. */
export function connectEgress(
  target: EgressTarget,
  options: { answerTimeoutMs: number; resolve?: Resolve | undefined },
): EgressConnection {
  const resolve = options.resolve ?? resolveBySystem;
  let made: SecureContext | undefined;
  const trusted = () => (made ??= secureContextFor(target));
  const context = () => (target.scheme === "https" ? trusted() : undefined);
  const pool = new ClientPool({
    connect: (onread, settled) => reach(target, resolve, context, settled, onread),
    maxConnections: MAX_CONNECTIONS,
    answerTimeoutMs: options.answerTimeoutMs,
    keepAliveMs: KEEP_ALIVE_MS,
  });
  return {
    target,
    dispatcher: pool,
    host: urlOfTarget({ ...target, basePath: "" }).replace(/^https?:\/\//, ""),
    retire: () => void pool.close(),
    destroy: () => pool.destroy(),
  };
}

/**
 * A plain connection to where `target` is, for callers who speak their own TLS with it. Rejects with Refusal `address-refused`, `upstream-unreachable`,
 * `upstream-timeout`.
 */
export function connectTunnel(target: EgressTarget, resolve: Resolve = resolveBySystem): Promise<Socket> {
  return new Promise((connected, failed) => {
    reach(
      target,
      resolve,
      () => undefined,
      (outcome) => {
        if (outcome instanceof Error) return failed(outcome);
        // Until its bytes are relayed nobody else listens.
        outcome.on("error", () => outcome.destroy());
        connected(outcome);
      },
    );
  });
}

/** Calls `done` once, within the time that a connection may take; what comes later is closed. */
function reach(
  target: EgressTarget,
  resolve: Resolve,
  trusted: () => SecureContext | undefined,
  done: (outcome: Socket | Error) => void,
  onread?: ReadsInto,
): void {
  const late = new AbortController();
  let settle: (outcome: Socket | Error) => void = (outcome) => {
    settle = (another) => (another instanceof Error ? undefined : another.destroy());
    clearTimeout(timer);
    done(outcome);
  };
  const timer = setTimeout(() => {
    late.abort();
    settle(new Refusal("upstream-timeout", 504, `${target.name}: ${target.host} did not take the connection in time`));
  }, CONNECT_TIMEOUT_MS);
  addressesOf(target, resolve)
    .then((addresses) => openSocket(target, addresses, { secureContext: trusted(), late: late.signal, onread }))
    .then(
      (socket) => settle(socket),
      (error: Error) => settle(error),
    );
}

/**
 * Every address of the target's host, each one checked: a name of somebody else's may lead anywhere. What is returned is what is connected to.
 * Throws Refusal `address-refused` or `upstream-unreachable`.
 */
async function addressesOf(target: EgressTarget, resolve: Resolve): ReturnType<Resolve> {
  const { host } = target;
  const addresses = isIP(host) === 0 ? await resolved(target, resolve) : [{ address: host, family: isIP(host) }];
  for (const { address } of addresses) {
    const is = addressClass(address);
    const mayBe = is === "public" || (target.private && !isNoDestination(is));
    if (!mayBe) {
      throw new Refusal(
        "address-refused",
        502,
        `${target.name}: ${host} leads to ${address}, which is no public address (${is})`,
      );
    }
    if (target.scheme === "http" && is !== "loopback") {
      throw new Refusal(
        "address-refused",
        502,
        `${target.name}: ${host} leads to ${address}, and plain http would leave this machine`,
      );
    }
  }
  return addresses;
}

async function resolved({ name, host }: EgressTarget, resolve: Resolve): ReturnType<Resolve> {
  const unreachable = (why: string, cause?: unknown) =>
    new Refusal("upstream-unreachable", 502, `${name}: ${host} ${why}`, { cause });
  const addresses = await resolve(host).catch((cause: unknown) => {
    throw unreachable(`cannot be resolved (${codeOf(cause)})`, cause);
  });
  if (addresses.length === 0) throw unreachable("has no address");
  return addresses;
}

function secureContextFor({ name, ca }: EgressTarget): SecureContext {
  try {
    return ca === undefined ? webPki() : createSecureContext({ ca: readFileSync(ca), minVersion: "TLSv1.2" });
  } catch (cause) {
    throw new Refusal("upstream-unverified", 502, `${name}: its authorities cannot be read: ${messageOf(cause)}`, {
      cause,
    });
  }
}

let webPkiOnce: SecureContext | undefined;

/** Node's own list, NODE_EXTRA_CA_CERTS, and what this machine trusts: behind a company's proxy only that one works. Made once: it takes 50 ms. */
function webPki(): SecureContext {
  webPkiOnce ??= createSecureContext({
    ca: [...new Set([...getCACertificates("default"), ...getCACertificates("system")])],
    minVersion: "TLSv1.2",
  });
  return webPkiOnce;
}

/** Connects to one of `addresses`, as Node finds the fastest, and nowhere else. With TLS, the peer is who the address names. */
function openSocket(
  target: EgressTarget,
  addresses: Awaited<ReturnType<Resolve>>,
  {
    secureContext,
    late,
    onread,
  }: { secureContext: SecureContext | undefined; late: AbortSignal; onread: ReadsInto | undefined },
): Promise<Socket> {
  const { host, port } = target;
  // Node asks this instead of the resolver: nothing is resolved between the check and the connection.
  const pinned: LookupFunction = (_host, { all }, callback) => {
    const [first] = addresses;
    if (all === true || first === undefined) callback(null, [...addresses]);
    else callback(null, first.address, first.family);
  };
  const allowHalfOpen = target.connect === true;
  const to = { host, port, lookup: pinned, autoSelectFamily: true, allowHalfOpen, ...(onread && { onread }) };
  return new Promise((resolve, reject) => {
    const socket =
      secureContext === undefined
        ? connectTcp(to)
        : connectTls({
            ...to,
            secureContext,
            // Verified for this name; an IP address has none to send.
            ...(isIP(host) === 0 ? { servername: host } : {}),
            rejectUnauthorized: true,
            ALPNProtocols: ["http/1.1"],
          });
    const failed = (error: Error) => {
      socket.destroy();
      reject(connectionRefusal(target, error));
    };
    late.addEventListener("abort", () => socket.destroy(), { once: true });
    socket.once("error", failed);
    socket.once(secureContext === undefined ? "connect" : "secureConnect", () => {
      socket.off("error", failed);
      socket.setNoDelay(true);
      resolve(socket);
    });
  });
}

/** OpenSSL's and Node's codes for a peer that could not be verified. */
const VERIFICATION_CODES =
  /^(CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|ERR_TLS_CERT_ALTNAME|INVALID_CA|HOSTNAME_MISMATCH|ERROR_IN_CERT_|PATH_LENGTH|ERR_SSL_)/;

function connectionRefusal({ name, host }: EgressTarget, error: Error): Refusal {
  const code = codeOf(error);
  const unverified = VERIFICATION_CODES.test(code);
  const what = unverified ? `${host} is not who it must be` : `${host} cannot be reached`;
  const reason = `${name}: ${what} (${code})`;
  return new Refusal(unverified ? "upstream-unverified" : "upstream-unreachable", 502, reason, { cause: error });
}
