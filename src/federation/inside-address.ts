import { type LookupAddress, lookup as lookupName } from "node:dns";
import { lookup as resolveName } from "node:dns/promises";
import { BlockList, isIP, type LookupFunction } from "node:net";
import { CodedError } from "../coded-error.js";

/** Addresses that mean something only on this machine or in its own network (RFC 6890). */
const inside = new BlockList();
for (const [network, bits] of [
  ...([
    ["0.0.0.0", 8],
    ["10.0.0.0", 8],
    ["100.64.0.0", 10],
    ["127.0.0.0", 8],
    ["169.254.0.0", 16],
  ] as const),
  ...([
    ["172.16.0.0", 12],
    ["192.0.0.0", 24],
    ["192.168.0.0", 16],
    ["198.18.0.0", 15],
    ["224.0.0.0", 3],
  ] as const),
]) {
  inside.addSubnet(network, bits, "ipv4");
}
for (const [network, bits] of [
  ["::", 127],
  ["fc00::", 7],
  ["fe80::", 10],
  ["ff00::", 8],
  ["64:ff9b::", 96],
] as const) {
  inside.addSubnet(network, bits, "ipv6");
}

/** `address` is an IP address; one of IPv4 that is written as IPv6 counts as what it is. */
export function isInside(address: string): boolean {
  return inside.check(address, isIP(address) === 6 ? "ipv6" : "ipv4");
}

/** True if `hostname` (of a URL) is, or leads to, an address inside; false as well where it leads nowhere. */
export async function isInsideAddress(hostname: string): Promise<boolean> {
  const host = hostname.replace(/^\[|\]$/g, "");
  if (isIP(host) !== 0) return isInside(host);
  try {
    return (await resolveName(host, { all: true })).some(({ address }) => isInside(address));
  } catch {
    // The connection says why.
    return false;
  }
}

/** Resolves names, and fails with `endpoint-redirect` where any address is inside: what is checked is what is connected to. */
export const lookupOutside: LookupFunction = (hostname, options, callback) => {
  lookupName(hostname, { ...options, all: true }, (error, found) => {
    const addresses = found as readonly LookupAddress[];
    const [first] = addresses ?? [];
    if (error !== null) callback(error, "");
    else if (first === undefined || addresses.some(({ address }) => isInside(address))) {
      callback(leadsInside(hostname), "");
    } else if (options.all === true) callback(null, [...addresses]);
    else callback(null, first.address, first.family);
  });
};

export function leadsInside(host: string): CodedError {
  return new CodedError("endpoint-redirect", `${host} is an address inside this machine or its network; not followed`);
}
