import { once } from "node:events";
import { closeSync, fstatSync, openSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { linux } from "../../src/platform/linux.js";
import { descriptorOf } from "../attestation/processes.js";
import { type RunningRelay, runRelay, runUpstream, type Upstream } from "./running-relay.js";

describe.runIf(process.platform === "linux")("descriptors that a sandbox hands in as its listeners", () => {
  let invoices: Upstream;
  let running: RunningRelay;
  const port = () => Number(new URL(running.urlOf("invoices")).port);
  const network = linux.openNetwork(process.pid);

  beforeAll(async () => {
    invoices = await runUpstream("invoices", "http", (_request, response) => response.end());
    running = await runRelay({ services: [invoices.service], rules: "rules: []\n" });
  });
  afterAll(async () => {
    await running.close();
    invoices.close();
    network.close();
  });

  const fileAt = (fd: number): string | undefined => {
    try {
      const { dev, ino } = fstatSync(fd, { bigint: true });
      return `${dev}:${ino}`;
    } catch {
      return undefined;
    }
  };

  it("are served until the end of it", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const fd = linux.takeDescriptor(process.pid, descriptorOf(server as never));
    const address = server.address() as AddressInfo;
    const file = fileAt(fd);
    const end = running.relay.listenInside(network, new Map([[port(), [fd]]]));
    server.close();
    const response = await fetch(`http://127.0.0.1:${address.port}/`);
    expect(await response.json()).toHaveProperty("code");
    expect(fileAt(fd)).toBe(file);
    await end();
    expect(fileAt(fd)).not.toBe(file);
  });

  it("are closed at once where nothing can listen on them", async () => {
    const file = openSync(import.meta.filename, "r");
    const own = linux.takeDescriptor(process.pid, file);
    const before = fileAt(own);
    expect(before).toBe(fileAt(file));
    const end = running.relay.listenInside(network, new Map([[port(), [own]]]));
    expect(fileAt(own)).not.toBe(before);
    expect(fileAt(file)).toBe(before);
    await end();
    closeSync(file);
  });
});
