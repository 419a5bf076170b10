import { isIP } from "node:net";
import { addressClass } from "../config/address-class.js";
import { byName } from "../http/by-name.js";
import { headerOf } from "../http/request-headers.js";
import type { Exchange } from "./exchange.js";
import type { AnswerHeaders } from "./forward.js";

/** Where a caller has found this leg, or where this leg sends on. */
interface Place {
  readonly scheme: "http" | "https";
  /** As `Host` names it. */
  readonly host: string;
}

interface Onward extends Place {
  readonly url: URL;
  /** What this leg puts before each path. */
  readonly basePath: string;
  /** Any name for this machine leads there, not only the one in `Host`. */
  readonly isLocal: boolean;
}

type Rename = (value: string, here: Place, there: Onward) => string;

const RENAMES: ReadonlyMap<string, Rename> = new Map([
  ["location", referenceFrom],
  ["content-location", referenceFrom],
  ["refresh", refreshFrom],
  ["link", linksFrom],
]);
const ofAnswer = byName((name) => ({ rename: RENAMES.get(name.toLowerCase()) }));
/** As browsers read it (HTML, shared declarative refresh steps): seconds, a separator, `url=`, quotes. */
const REFRESH = /^(\s*[\d.]*[\s;,]*(?:url\s*=\s*)?)(?:"([^"]*).*|'([^']*).*|(.*))$/is;
/** Targets of links, past strings that may hold whatever looks like one (RFC 8288 §3): a parameter is no place to go to. */
const LINK_TARGET = /"(?:[^"\\]|\\.)*"?|<([^<>]*)>/gs;
/** What a reference without a host is resolved to (RFC 6761: nobody's). */
const NO_HOST = "relay.invalid";
const WEB_SOCKET = { http: "ws", https: "wss" } as const;

/**
 * Headers of an answer in which the place that the request was sent on to is named as its caller knows it: at this leg. A redirect of a service to itself
 * would lead its client around the relay. What names any other place stays as it is.
 */
export function namedFromHere(exchange: Exchange, host: string): AnswerHeaders {
  return (headers) => {
    const named = [...headers];
    let places: readonly [Place, Onward] | undefined;
    for (let index = 0; index < named.length; index += 2) {
      const { rename } = ofAnswer(named[index] ?? "");
      // Most answers have none of them.
      if (rename === undefined) continue;
      places ??= placesOf(exchange, host);
      named[index + 1] = rename(named[index + 1] ?? "", ...places);
    }
    return named;
  };
}

function placesOf({ leg, request, service: { upstream } }: Exchange, host: string): readonly [Place, Onward] {
  const here = {
    scheme: leg === "inbound" ? "https" : "http",
    host: headerOf(request.rawHeaders, "host") ?? "",
  } as const;
  const target = upstream.kind === "egress" ? upstream.target : undefined;
  // Between the legs, and to a service that speaks mutual TLS itself.
  const scheme = target?.scheme ?? (leg === "inbound" ? "http" : "https");
  const url = new URL(`${scheme}://${host}`);
  const isLocal = upstream.kind !== "unix" && isThisMachine(url.hostname);
  return [here, { scheme, host, url, isLocal, basePath: target?.basePath ?? "" }];
}

function refreshFrom(value: string, here: Place, there: Onward): string {
  const [, before = "", ...quotings] = REFRESH.exec(value) ?? [];
  const reference = quotings.find((one) => one !== undefined) ?? "";
  const named = referenceFrom(reference, here, there);
  return named === reference ? value : `${before}${named}`;
}

function linksFrom(value: string, here: Place, there: Onward): string {
  return value.replace(LINK_TARGET, (found, reference?: string) =>
    reference === undefined ? found : `<${referenceFrom(reference, here, there)}>`,
  );
}

function referenceFrom(reference: string, here: Place, there: Onward): string {
  const url = URL.parse(reference, `${here.scheme}://${NO_HOST}`);
  if (url === null) return reference;
  const isRelative = url.host === NO_HOST;
  // Relative to the path of the request, which is below the caller's base as it is below the target's.
  if (isRelative ? there.basePath === "" || !/^\s*[/\\]/.test(reference) : !names(url, there)) return reference;
  const path = pathBelow(url.pathname, there.basePath);
  if (path === undefined) return reference;
  const rest = `${path}${url.search}${url.hash}`;
  if (isRelative) return rest;
  return `${url.protocol.startsWith("ws") ? WEB_SOCKET[here.scheme] : here.scheme}://${here.host}${rest}`;
}

function names(url: URL, there: Onward): boolean {
  if (!/^(?:http|ws)s?:$/.test(url.protocol) || portOf(url) !== portOf(there.url)) return false;
  const host = url.hostname.replace(/\.$/, "");
  return host === there.url.hostname || (there.isLocal && isThisMachine(host));
}

function portOf({ port, protocol }: URL): string {
  if (port !== "") return port;
  return protocol === "https:" || protocol === "wss:" ? "443" : "80";
}

function isThisMachine(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, "");
  if (isIP(host) === 0) return host === "localhost" || host.endsWith(".localhost");
  const is = addressClass(host.replace(/^::ffff:7f[0-9a-f]{2}:[0-9a-f]{1,4}$/, "127.0.0.1"));
  return is === "loopback" || is === "unspecified";
}

function pathBelow(path: string, basePath: string): string | undefined {
  if (path === basePath) return "/";
  return path.startsWith(`${basePath}/`) ? path.slice(basePath.length) : undefined;
}
