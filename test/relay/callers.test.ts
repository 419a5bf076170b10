import { execFile } from "node:child_process";
import { once } from "node:events";
import { existsSync, realpathSync } from "node:fs";
import { createServer } from "node:net";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { derivedPort } from "../../src/http/listen.js";
import { identity, type RunningRelay, runRelay, runUpstream, testAgent, type Upstream } from "./running-relay.js";

const run = promisify(execFile);
const CURL = "/usr/bin/curl";

let invoices: Upstream;
let running: RunningRelay;
let url: string;

beforeAll(async () => {
  invoices = await runUpstream("invoices", "http", (request, response) => {
    request.resume().on("end", () => response.end(String(request.headers["x-forwarded-client-cert"])));
  });
  running = await runRelay({
    services: [invoices.service],
    identities: [testAgent, identity("agents/curl", { facts: { exePath: realpathSync(CURL) } })],
    rules: "rules:\n  - { name: all, allow: { from: agents/*, to: invoices } }\n",
  });
  url = `${running.urlOf("invoices")}/v1/x`;
});

afterAll(async () => {
  await running.close();
  invoices.close();
});

describe.skipIf(!existsSync(CURL))("foreign programs", () => {
  it("curl calls as the identity that its executable has", async () => {
    const { stdout } = await run(CURL, ["-sS", url]);
    expect(stdout).toContain("URI=spiffe://shop.local/agents/curl");
    const shown = running.events.findLast(({ event }) => event === "call");
    expect(shown).toMatchObject({
      caller: "agents/curl",
      callerDetail: expect.stringMatching(/curl -sS .*, pid \d+, uid \d+$/),
    });
  });

  it("a program without an identity is refused in words, and shown as (none)", async () => {
    const script = `import urllib.request, urllib.error
try: print(urllib.request.urlopen("${url}").read())
except urllib.error.HTTPError as e: print(e.code, e.read().decode())`;
    const { stdout } = await run("python3", ["-c", script]);
    expect(stdout).toMatch(/^403 .*"code":"no-identity".*no identity: .*python3 -c.*pid \d+, uid \d+/);
    const shown = running.events.findLast(({ event }) => event === "call");
    expect(shown).toMatchObject({ verdict: "DENY", caller: "(none)", rule: "no-identity" });
    // The positive control: the same call by a program that has one.
    expect((await run(CURL, ["-sS", url])).stdout).toContain("agents/curl");
  });

  it("both loopback addresses answer", async () => {
    const { port } = new URL(url);
    const { stdout } = await run(CURL, ["-sS", "-g", `http://[::1]:${port}/v1/x`]);
    expect(stdout).toContain("agents/curl");
  });
});

it("a process that executes something else keeps the connection but not the identity (D5)", async () => {
  const { stdout: python } = await run("python3", ["-c", "import os, sys; print(os.path.realpath(sys.executable))"]);
  const relay = await runRelay({
    services: [invoices.service],
    identities: [identity("agents/python", { facts: { exePath: python.trim() } })],
    rules: "rules:\n  - { name: all, allow: { from: agents/*, to: invoices } }\n",
  });
  const address = new URL(relay.urlOf("invoices"));
  const ask = `
def ask(s):
    s.sendall(b"GET /v1/x HTTP/1.1\\r\\nHost: ${address.host}\\r\\n\\r\\n")
    text = b""
    while not (text.endswith(b"agents/python") or text.endswith(b"}")): text += s.recv(65536)
    print(text.split(b" ")[1].decode(), text[-40:].decode(), flush=True)
`;
  // The same program, the same executable, the same PID and start time: only the kernel's word on execve tells.
  const second = `import socket${ask}ask(socket.socket(fileno=FD))`;
  const first = `import os, socket, sys${ask}
s = socket.create_connection(("127.0.0.1", ${address.port}))
ask(s)
ask(s)
s.set_inheritable(True)
os.execv(sys.executable, [sys.executable, "-c", ${JSON.stringify(second)}.replace("FD", str(s.fileno()))])`;
  const { stdout } = await run(python.trim(), ["-c", first]);
  expect(stdout.split("\n").map((line) => line.slice(0, 3))).toEqual(["200", "200", "403", ""]);
  const shown = relay.events.findLast(({ event }) => event === "call");
  expect(shown).toMatchObject({ verdict: "DENY", caller: "(none)", rule: "process-changed" });
  await relay.close();
});

it("a connection closes when its identity is taken out of the configuration", async () => {
  const seen: string[] = [];
  const cut = await runRelay({
    services: [invoices.service],
    rules: "rules:\n  - { name: all, allow: { from: agents/*, to: invoices } }\n",
  });
  const stream = new Promise<void>((resolve) => {
    const before = invoices.answer;
    invoices.answer = (_request, response) => {
      invoices.answer = before;
      response.write("begun");
      response.once("close", () => seen.push("upstream closed"));
      resolve();
    };
  });
  const response = await fetch(`${cut.urlOf("invoices")}/v1/x`);
  await stream;
  cut.configure(cut.identities.filter(({ name }) => name !== "agents/tests"));
  await expect(response.text()).rejects.toThrow();
  await expect.poll(() => seen).toEqual(["upstream closed"]);
  await cut.close();
});

describe("ports", () => {
  it("are stable for a project and a service, between 20000 and 29999", () => {
    const port = derivedPort("/home/dev/shop", "payments");
    expect(derivedPort("/home/dev/shop", "payments")).toBe(port);
    expect(port).toBeGreaterThanOrEqual(20_000);
    expect(port).toBeLessThan(30_000);
    expect(derivedPort("/home/dev/other", "payments")).not.toBe(port);
  });

  it("that somebody else holds are an error at start that names the port (D26)", async () => {
    const holder = createServer().listen(0, "127.0.0.1");
    await once(holder, "listening");
    const address = holder.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const start = runRelay({ services: [{ ...invoices.service, listenPort: port }], rules: "rules: []\n" });
    await expect(start).rejects.toMatchObject({ code: "port-in-use", message: expect.stringContaining(String(port)) });
    holder.close();
    await once(holder, "close");
    const free = await runRelay({ services: [{ ...invoices.service, listenPort: port }], rules: "rules: []\n" });
    expect(free.urlOf("invoices")).toBe(`http://127.0.0.1:${port}`);
    await free.close();
  });

  it("are free again after close", async () => {
    const one = await runRelay({ services: [invoices.service], rules: "rules: []\n" });
    const { port } = new URL(one.urlOf("invoices"));
    await one.close();
    const holder = createServer().listen(Number(port), "127.0.0.1");
    await once(holder, "listening");
    holder.close();
  });
});

it("update starts new services, ends removed ones and keeps the others' connections", async () => {
  const other = await runUpstream("orders", "http", (_request, response) => response.end("orders"));
  const relay = await runRelay({
    services: [invoices.service, other.service],
    rules: "rules:\n  - { name: all, allow: { from: agents/*, to: [invoices, orders] } }\n",
  });
  const ordersUrl = relay.urlOf("orders");
  await relay.relay.update([invoices.service]);
  await expect(fetch(ordersUrl)).rejects.toThrow();
  expect(relay.relay.addressesOf("orders")).toBeUndefined();
  const before = relay.urlOf("invoices");
  await relay.relay.update([{ ...invoices.service, upstream: other.service.upstream }, other.service]);
  expect(relay.urlOf("invoices")).toBe(before);
  expect(await (await fetch(`${before}/v1/x`)).text()).toBe("orders");
  expect(await (await fetch(`${relay.urlOf("orders")}/v1/x`)).text()).toBe("orders");
  await relay.close();
  other.close();
});
