import type { EgressTarget } from "../config/config.js";
import { Refusal } from "../http/refusal.js";
import { checkRequestHeaders, headerOf, type RawHeaders } from "../http/request-headers.js";
import { isTunnelled, type RunningService } from "./running-service.js";

/** Where a CONNECT wants to go, in the one form that has one reading. */
export interface Authority {
  /** In lower case; an IPv6 address without brackets. */
  readonly host: string;
  readonly port: number;
}

/** Names, IPv4 and bracketed IPv6: no user, no percent-encoding, no zone, no empty label and no dot at the end. */
const AUTHORITY = /^(?:(?<name>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)|\[(?<v6>[0-9a-f:.]+)\]):(?<port>[1-9][0-9]{0,4})$/;

/**
 * What a CONNECT asks for (RFC 9110 §9.3.6). `Host` says the same, without the port where that is 443, and may be absent in HTTP/1.0 alone.
 * Throws Refusal `authority-form`, `host-mismatch`, `connect-body`, and those of `checkRequestHeaders`.
 */
export function authorityOf(request: {
  readonly url?: string | undefined;
  readonly httpVersion: string;
  readonly rawHeaders: RawHeaders;
}): Authority {
  const { url = "", httpVersion, rawHeaders } = request;
  const { name, v6, port } = AUTHORITY.exec(url)?.groups ?? {};
  const host = name ?? v6;
  if (host === undefined || Number(port) > 65_535) {
    const form = "CONNECT takes host:port: in lower case, without a dot at the end, and nothing else";
    throw new Refusal("authority-form", 400, form);
  }
  checkRequestHeaders(rawHeaders);
  const named = headerOf(rawHeaders, "host");
  const agrees = named === url || (port === "443" && named === url.slice(0, -":443".length));
  if (named === undefined ? httpVersion !== "1.0" : !agrees) {
    throw new Refusal("host-mismatch", 400, "Host must be what CONNECT asks for");
  }
  const length = headerOf(rawHeaders, "content-length") ?? "0";
  if (length !== "0" || headerOf(rawHeaders, "transfer-encoding") !== undefined) {
    throw new Refusal("connect-body", 400, "CONNECT has no body");
  }
  return { host, port: Number(port) };
}

/** A target with the service that it is to rules and the record. */
export interface Tunnelled {
  readonly service: RunningService;
  readonly target: EgressTarget;
}

/** The target at exactly this host and port. Throws Refusal `target-unknown`, which says how a target without `connect` is reached. */
export function targetAt({ host, port }: Authority, services: readonly RunningService[]): Tunnelled {
  const there = services.flatMap((service) => {
    const { upstream } = service;
    if (upstream.kind !== "egress" || upstream.target.host !== host || upstream.target.port !== port) return [];
    return [{ service, target: upstream.target }];
  });
  const reachable = there.find(({ service }) => isTunnelled(service));
  if (reachable !== undefined) return reachable;
  const [other] = there;
  const how =
    other === undefined
      ? "no target below egress has this address and `connect: true`"
      : `${other.service.name} is called at ${urlVariable(other.service.name)}, not by CONNECT`;
  throw new Refusal("target-unknown", 403, `${host}:${port} is not reachable: ${how}`);
}

/** Where launched programs find the address of a service. */
function urlVariable(name: string): string {
  return `AGENTID_URL_${name.toUpperCase().replaceAll("-", "_")}`;
}
