import { createSecureContext } from "node:tls";
import { afterEach, describe, expect, it } from "vitest";
import { addressClass } from "../../src/config/address-class.js";
import type { EgressTarget } from "../../src/config/config.js";
import type { Resolve } from "../../src/relay/egress-connection.js";
import { egressService } from "../../src/relay/running-service.js";
import { type Outside, runOutside, target } from "./outside.js";
import { type RunningRelay, runRelay } from "./running-relay.js";

/** Where a target's name may lead, and who must answer there. */

const open: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

async function outsideWith(options: Parameters<typeof runOutside>[0] = {}): Promise<Outside> {
  const outside = await runOutside({ names: ["api.test"], ...options });
  open.push(() => outside.close());
  return outside;
}

async function relayTo(api: EgressTarget, resolve?: Resolve): Promise<RunningRelay> {
  const running = await runRelay({
    services: [egressService(api)],
    rules: "rules:\n  - { name: all, allow: { from: agents/tests, to: egress/api } }\n",
    change: (parts) => ({ ...parts, ...(resolve && { resolve }) }),
  });
  open.push(() => running.close());
  return running;
}

/** Status, and the code of a refusal. */
async function outcome(running: RunningRelay): Promise<string> {
  const response = await fetch(`${running.urlOf("api")}/`);
  const text = await response.text();
  if (response.status === 200) return `200 ${text}`;
  return `${response.status} ${(JSON.parse(text) as { code: string }).code}`;
}

const leadsTo =
  (...addresses: readonly string[]): Resolve =>
  async () =>
    addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));

describe("the class of an address", () => {
  it.each([
    ["0.0.0.0", "unspecified"],
    ["0.1.2.3", "unspecified"],
    ["10.0.0.1", "private"],
    ["172.16.0.1", "private"],
    ["172.31.255.255", "private"],
    ["192.168.1.1", "private"],
    ["100.64.0.1", "shared (CGNAT)"],
    ["100.127.255.255", "shared (CGNAT)"],
    ["127.0.0.1", "loopback"],
    ["127.255.0.1", "loopback"],
    ["169.254.169.254", "link-local"],
    ["192.0.0.8", "protocol assignments"],
    ["192.0.2.1", "documentation"],
    ["198.51.100.1", "documentation"],
    ["203.0.113.1", "documentation"],
    ["192.88.99.1", "6to4"],
    ["198.18.0.1", "benchmarking"],
    ["198.19.255.255", "benchmarking"],
    ["224.0.0.1", "multicast"],
    ["239.255.255.250", "multicast"],
    ["240.0.0.1", "reserved"],
    ["255.255.255.255", "reserved"],
    ["::", "unspecified"],
    ["::1", "loopback"],
    ["::127.0.0.1", "IPv4-compatible"],
    ["::2", "IPv4-compatible"],
    ["::ffff:127.0.0.1", "IPv4-mapped"],
    ["::ffff:7f00:1", "IPv4-mapped"],
    ["::ffff:8.8.8.8", "IPv4-mapped"],
    ["64:ff9b::7f00:1", "NAT64"],
    ["64:ff9b::8.8.8.8", "NAT64"],
    ["64:ff9b:1::1", "NAT64"],
    ["2001::1", "Teredo"],
    ["2001:20::1", "protocol assignments"],
    ["2001:db8::1", "documentation"],
    ["3fff::1", "documentation"],
    ["2002:7f00:1::", "6to4"],
    ["fc00::1", "unique local"],
    ["fd12:3456::1", "unique local"],
    ["fe80::1", "link-local"],
    ["fe80::1%eth0", "link-local"],
    ["fec0::1", "reserved"],
    ["ff02::1", "multicast"],
    ["100::1", "reserved"],
    ["4000::1", "reserved"],
    ["1", "reserved"],
    ["0x7f000001", "reserved"],
    ["", "reserved"],
  ])("%s is %s", (address, is) => expect(addressClass(address)).toBe(is));

  // The neighbours of each range: what is refused is no more than what is named.
  it.each([
    ...["1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1"],
    ...["169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.0.3.0", "192.88.98.0"],
    ...["192.88.100.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.99.255"],
    ...["198.51.101.0", "203.0.112.255", "203.0.114.0", "223.255.255.255", "8.8.8.8"],
    ...["2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:4700::1111", "3ffe::1", "3fff:1000::", "2000::1"],
  ])("%s is public", (address) => expect(addressClass(address)).toBe("public"));
});

describe("a name that leads inside", () => {
  const classes = [
    ...["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "0.0.0.0", "::1", "::127.0.0.1"],
    ...["::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fd00::1", "fe80::1", "ff02::1", "::"],
  ];

  it.each(classes)("to %s is refused, whatever else it leads to", async (address) => {
    const outside = await outsideWith();
    const api = target("api", outside, { host: "api.test", private: false });
    expect(await outcome(await relayTo(api, leadsTo(address)))).toBe("502 address-refused");
    expect(await outcome(await relayTo(api, leadsTo("8.8.8.8", address)))).toBe("502 address-refused");
    expect(outside.arrived).toEqual([]);
  });

  it("is called where the target may be private, at the address that was checked and at no other", async () => {
    const outside = await outsideWith();
    const asked: string[] = [];
    const resolve: Resolve = async (host) => {
      asked.push(host);
      return leadsTo("127.0.0.1")(host);
    };
    // The system's resolver does not know this name.
    const running = await relayTo(target("api", outside, { host: "api.test" }), resolve);
    expect(await outcome(running)).toBe("200 outside");
    expect(asked).toEqual(["api.test"]);
    expect(outside.arrived[0]).toMatchObject({ serverName: "api.test", headers: { host: `api.test:${outside.port}` } });
  });

  it.each(["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"])(
    "to %s, where nobody can be meant, is refused also then",
    async (address) => {
      const outside = await outsideWith();
      const running = await relayTo(target("api", outside, { host: "api.test" }), leadsTo(address));
      expect(await outcome(running)).toBe("502 address-refused");
      expect(outside.arrived).toEqual([]);
    },
  );

  it("is checked again at every connection: a name that is bound anew leads nowhere", async () => {
    const outside = await outsideWith();
    outside.answer = (_request, response) => response.setHeader("Connection", "close").end("outside");
    let address = "127.0.0.1";
    const running = await relayTo(target("api", outside, { host: "api.test" }), (host) => leadsTo(address)(host));
    expect(await outcome(running)).toBe("200 outside");
    address = "0.0.0.0";
    expect(await outcome(running)).toBe("502 address-refused");
    expect(outside.arrived).toHaveLength(1);
  });

  it("an address in the configuration itself is checked as well", async () => {
    const outside = await outsideWith();
    expect(await outcome(await relayTo(target("api", outside, { private: false })))).toBe("502 address-refused");
    expect(await outcome(await relayTo(target("api", outside)))).toBe("200 outside");
    expect(outside.arrived).toHaveLength(1);
  });

  it("a name that leads nowhere is said to", async () => {
    const outside = await outsideWith();
    const nowhere: Resolve = async () => {
      throw Object.assign(new Error("no such name"), { code: "ENOTFOUND" });
    };
    const api = target("api", outside, { host: "api.test" });
    expect(await outcome(await relayTo(api, nowhere))).toBe("502 upstream-unreachable");
    expect(await outcome(await relayTo(api, leadsTo()))).toBe("502 upstream-unreachable");
  });
});

describe("plain http", () => {
  it("stays on this machine: a name that leads elsewhere is refused", async () => {
    const outside = await outsideWith({ plain: true });
    const api = target("api", outside, { scheme: "http", host: "localhost", ca: undefined });
    expect(await outcome(await relayTo(api, leadsTo("10.0.0.1")))).toBe("502 address-refused");
    expect(await outcome(await relayTo(api, leadsTo("8.8.8.8")))).toBe("502 address-refused");
    expect(await outcome(await relayTo(api, leadsTo("127.0.0.1")))).toBe("200 outside");
    expect(outside.arrived).toHaveLength(1);
  });
});

describe("who answers", () => {
  const named = { host: "api.test" };
  const here = leadsTo("127.0.0.1");

  it("must lead to the authorities of the target's ca, or of the Web PKI without one", async () => {
    const outside = await outsideWith();
    const other = await outsideWith();
    const cases: readonly (readonly [string | undefined, string])[] = [
      [undefined, "502 upstream-unverified"],
      [other.ca, "502 upstream-unverified"],
      ["/nowhere/ca.pem", "502 upstream-unverified"],
      [outside.ca, "200 outside"],
    ];
    for (const [ca, expected] of cases) {
      expect(await outcome(await relayTo(target("api", outside, { ...named, ca }), here)), ca).toBe(expected);
    }
    expect(outside.arrived).toHaveLength(1);
  });

  it("must have a certificate for the target's own name", async () => {
    const outside = await outsideWith();
    const elsewhere = target("api", outside, { host: "other.test" });
    expect(await outcome(await relayTo(elsewhere, here))).toBe("502 upstream-unverified");
    expect(outside.arrived).toEqual([]);
    expect(await outcome(await relayTo(target("api", outside, named), here))).toBe("200 outside");
  });

  it("must speak TLS 1.2 or newer", async () => {
    const old = await outsideWith({
      tls: { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" },
    });
    expect(await outcome(await relayTo(target("api", old, named), here))).toBe("502 upstream-unverified");
    // The server itself is able to: who asks for less gets an answer.
    const context = createSecureContext({ minVersion: "TLSv1", ciphers: "DEFAULT@SECLEVEL=0" });
    const { connect } = await import("node:tls");
    const protocol = await new Promise<string | null>((resolve, reject) => {
      const socket = connect({ port: old.port, host: "127.0.0.1", secureContext: context, rejectUnauthorized: false });
      socket.once("secureConnect", () => {
        resolve(socket.getProtocol());
        socket.destroy();
      });
      socket.once("error", reject);
    });
    expect(protocol).toBe("TLSv1.1");
    const newer = await outsideWith({ tls: { maxVersion: "TLSv1.2" } });
    expect(await outcome(await relayTo(target("api", newer, named), here))).toBe("200 outside");
  });

  it("must be there", async () => {
    const [gone, here] = [await outsideWith(), await outsideWith()];
    gone.close();
    const { port } = gone;
    expect(await outcome(await relayTo(target("api", { port, ca: here.ca })))).toBe("502 upstream-unreachable");
    expect(await outcome(await relayTo(target("api", here)))).toBe("200 outside");
  });
});
