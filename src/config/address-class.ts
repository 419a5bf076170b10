import { isIP } from "node:net";

/** What an IP address is for; `public` alone leads to who is meant on the Internet. */
export type AddressClass =
  | "public"
  | "unspecified"
  | "loopback"
  | "private"
  | "shared (CGNAT)"
  | "link-local"
  | "protocol assignments"
  | "documentation"
  | "benchmarking"
  | "6to4"
  | "Teredo"
  | "multicast"
  | "reserved"
  | "IPv4-compatible"
  | "IPv4-mapped"
  | "NAT64"
  | "unique local";

/** RFC 6890 and IANA's registries of special addresses. */
const IPV4: readonly (readonly [network: string, bits: number, is: AddressClass])[] = [
  ["0.0.0.0", 8, "unspecified"],
  ["10.0.0.0", 8, "private"],
  ["100.64.0.0", 10, "shared (CGNAT)"],
  ["127.0.0.0", 8, "loopback"],
  ["169.254.0.0", 16, "link-local"],
  ["172.16.0.0", 12, "private"],
  ["192.0.0.0", 24, "protocol assignments"],
  ["192.0.2.0", 24, "documentation"],
  ["192.88.99.0", 24, "6to4"],
  ["192.168.0.0", 16, "private"],
  ["198.18.0.0", 15, "benchmarking"],
  ["198.51.100.0", 24, "documentation"],
  ["203.0.113.0", 24, "documentation"],
  ["224.0.0.0", 4, "multicast"],
  ["240.0.0.0", 4, "reserved"],
];

/** The first that fits counts. Last come the addresses that are given to nobody: all but 2000::/3. */
const IPV6: readonly (readonly [network: string, bits: number, is: AddressClass])[] = [
  ["::", 128, "unspecified"],
  ["::1", 128, "loopback"],
  ["::ffff:0:0", 96, "IPv4-mapped"],
  ["::", 96, "IPv4-compatible"],
  ["64:ff9b::", 96, "NAT64"],
  ["64:ff9b:1::", 48, "NAT64"],
  ["2001::", 32, "Teredo"],
  ["2001::", 23, "protocol assignments"],
  ["2001:db8::", 32, "documentation"],
  ["2002::", 16, "6to4"],
  ["3fff::", 20, "documentation"],
  ["fc00::", 7, "unique local"],
  ["fe80::", 10, "link-local"],
  ["ff00::", 8, "multicast"],
  ["2000::", 3, "public"],
  ["::", 0, "reserved"],
];

/** The class of `address`, in any form that Node's resolver gives; what is no IP address is `reserved`. */
export function addressClass(address: string): AddressClass {
  // fe80::1%eth0: the zone says which link.
  const plain = address.replace(/%.*$/, "");
  if (isIP(plain) === 4) return classIn(IPV4, ipv4Number(plain), 32, ipv4Number) ?? "public";
  if (isIP(plain) === 6) return classIn(IPV6, ipv6Number(plain), 128, ipv6Number) ?? "reserved";
  return "reserved";
}

/** Where nobody can be meant, whatever a configuration says: connecting to 0.0.0.0 reaches this very machine. */
export function isNoDestination(is: AddressClass): boolean {
  return is === "unspecified" || is === "multicast" || is === "reserved";
}

function classIn(
  table: typeof IPV4,
  number: bigint,
  width: number,
  numberOf: (network: string) => bigint,
): AddressClass | undefined {
  return table.find(([network, bits]) => {
    const rest = BigInt(width - bits);
    return number >> rest === numberOf(network) >> rest;
  })?.[2];
}

function ipv4Number(text: string): bigint {
  return text.split(".").reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
}

function ipv6Number(text: string): bigint {
  // ::127.0.0.1: the last four bytes as IPv4 writes them.
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  const low = dotted === null ? 0n : ipv4Number(dotted[2] ?? "");
  const hex = dotted === null ? text : `${dotted[1]}${(low >> 16n).toString(16)}:${(low & 0xffffn).toString(16)}`;
  const [head = "", tail] = hex.split("::");
  const groups = (part: string | undefined) => (part === undefined || part === "" ? [] : part.split(":"));
  const [before, after] = [groups(head), groups(tail)];
  const zeros = Array<string>(8 - before.length - after.length).fill("0");
  return [...before, ...zeros, ...after].reduce((sum, group) => (sum << 16n) + BigInt(`0x${group}`), 0n);
}
