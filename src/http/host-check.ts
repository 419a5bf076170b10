import { Refusal } from "./refusal.js";
import type { RawHeaders } from "./request-headers.js";
import { headerOf } from "./request-headers.js";

/** The names a listener answers to, exactly: what stops DNS rebinding (a page of evil.example that resolves to 127.0.0.1). */
export interface ListenerNames {
  readonly hosts: ReadonlySet<string>;
  readonly origins: ReadonlySet<string>;
}

/** Names of a loopback listener on `port`. */
export function loopbackNames(scheme: "http" | "https", port: number): ListenerNames {
  return names(scheme, loopbackHosts(port));
}

/** Names of the plain loopback listener on `port`. */
export function outboundNames(port: number): ListenerNames {
  return loopbackNames("http", port);
}

/** Names of a listener on a Unix socket: what programs send as `Host` where there is no address, and the service's own. No page has an origin there. */
export function unixSocketNames(service: string): ListenerNames {
  return { hosts: new Set(["localhost", service]), origins: new Set() };
}

/** Names of the mutual-TLS listener on `port`: loopback, and the service's own name with or without trust domain and port. */
export function inboundNames(port: number, service: string, trustDomain: string): ListenerNames {
  const own = [service, `${service}.${trustDomain}`];
  return names("https", [...loopbackHosts(port), ...own, ...own.map((name) => `${name}:${port}`)]);
}

/** Throws Refusal `host-unknown` (421) or `origin-foreign` (403). */
export function checkHostAndOrigin(raw: RawHeaders, allowed: ListenerNames): void {
  const host = headerOf(raw, "host");
  if (host === undefined || !allowed.hosts.has(host.toLowerCase())) {
    throw new Refusal("host-unknown", 421, `this listener does not answer for ${JSON.stringify(host ?? "")}`);
  }
  const origin = headerOf(raw, "origin");
  if (origin !== undefined && !allowed.origins.has(origin.toLowerCase())) {
    throw new Refusal("origin-foreign", 403, `requests from the origin ${JSON.stringify(origin)} are refused`);
  }
  // A browser says this even where it leaves Origin out (GET without CORS).
  const site = headerOf(raw, "sec-fetch-site");
  if (site !== undefined && site !== "same-origin" && site !== "none") {
    throw new Refusal("origin-foreign", 403, "requests from another site's page are refused");
  }
}

function loopbackHosts(port: number): string[] {
  return [`127.0.0.1:${port}`, `localhost:${port}`, `[::1]:${port}`];
}

function names(scheme: string, hosts: readonly string[]): ListenerNames {
  return { hosts: new Set(hosts), origins: new Set(hosts.map((host) => `${scheme}://${host}`)) };
}
