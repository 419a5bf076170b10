import { BlockList } from "node:net";
import fc from "fast-check";
import { expect, it } from "vitest";
import { addressClass } from "../../src/config/address-class.js";
import { runs } from "../properties.js";

const byte = fc.integer({ min: 0, max: 255 });
const ipv4 = fc.tuple(byte, byte, byte, byte).map((bytes) => bytes.join("."));
/** Mostly zeros and the prefixes that mean something. */
const group = fc.oneof(
  fc.constantFrom(0, 0, 0, 0x64, 0xff9b, 0xffff, 0x2001, 0x2002, 0xdb8, 0x3fff, 0xfc00, 0xfe80, 0xfec0, 0xff02, 0x7f00),
  fc.integer({ min: 0, max: 0xffff }),
);
const groups = fc.array(group, { minLength: 8, maxLength: 8 });

/** What Node makes of the same table. It takes mapped addresses for IPv4, so those are left to the examples. */
const special = { ipv4: new BlockList(), ipv6: new BlockList() };
for (const network of ["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"])
  add(network);
for (const network of ["192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"])
  add(network);
for (const network of ["198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"]) add(network);
for (const network of ["::/3", "4000::/2", "8000::/1", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"])
  add(network);

function add(network: string): void {
  const [address = "", bits] = network.split("/");
  const family = address.includes(":") ? "ipv6" : "ipv4";
  special[family].addSubnet(address, Number(bits), family);
}

it("an IPv4 address is public exactly where no special range has it", () => {
  fc.assert(
    fc.property(ipv4, (address) => {
      expect(addressClass(address) === "public").toBe(!special.ipv4.check(address, "ipv4"));
    }),
    { numRuns: runs(2_000) },
  );
});

it("an IPv6 address is public exactly where no special range has it, and however it is written", () => {
  fc.assert(
    fc.property(groups, (parts) => {
      const full = parts.map((part) => part.toString(16)).join(":");
      const short = new URL(`http://[${full}]`).hostname.slice(1, -1);
      const low = parts.slice(6).flatMap((part) => [part >> 8, part & 255]);
      const dotted = `${parts
        .slice(0, 6)
        .map((part) => part.toString(16))
        .join(":")}:${low.join(".")}`;
      const is = addressClass(full);
      expect([addressClass(short), addressClass(dotted), addressClass(full.toUpperCase())]).toEqual([is, is, is]);
      if (is !== "IPv4-mapped") expect(is === "public").toBe(!special.ipv6.check(full, "ipv6"));
    }),
    { numRuns: runs(2_000) },
  );
});
