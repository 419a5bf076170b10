import { once } from "node:events";
import { existsSync, statSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { bin, makeProject, python, type RunningDev, run, startDev, startProgram } from "./agentid.js";

/** Calls with an Idempotency-Key through the built program, with agent and daemon killed under way. */

const py = python ?? "python3";

/** One "METHOD KEY BODY" a line; says the status, whether the answer is an old one, and the answer. "half KEY" sends half of a request. */
const AGENT = `import os, socket, sys, urllib.parse, urllib.request, urllib.error
print("up", os.getpid(), flush=True)
address = os.environ["AGENTID_URL_ORDERS"]
for line in sys.stdin:
    method, key, *body = line.split()
    if method == "half":
        to = urllib.parse.urlsplit(address)
        cut = socket.create_connection((to.hostname, to.port))
        cut.sendall(f"POST /v1/orders HTTP/1.1\\r\\nHost: {to.netloc}\\r\\nIdempotency-Key: {key}\\r\\nContent-Length: 9\\r\\n\\r\\nhalf".encode())
        print("sent half", flush=True)
        continue
    headers = {} if key == "-" else {"Idempotency-Key": key}
    request = urllib.request.Request(address + "/v1/orders", method=method, data="".join(body).encode(), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            print(response.status, response.headers.get("Idempotency-Replayed"), response.read().decode(), flush=True)
    except urllib.error.HTTPError as error:
        print(error.code, error.headers.get("Idempotency-Replayed"), error.read().decode(), flush=True)
    except OSError as error:
        print("broken", repr(error), flush=True)
`;

let service: Server;
let project: string;
let dev: RunningDev;
/** What has arrived at the service and was not answered by itself. */
let arrived: { body: string; response: ServerResponse }[];
/** Whether the service answers by itself. */
let answers = true;
let wake: () => void = () => undefined;

beforeAll(async () => {
  service = createServer((request: IncomingMessage, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (chunk: string) => {
      body += chunk;
    });
    request.on("end", () => {
      arrived.push({ body, response });
      if (answers) response.end(`done ${arrived.length}`);
      wake();
    });
  });
  await once(service.listen(0, "127.0.0.1"), "listening");
});

afterAll(() => {
  service.closeAllConnections();
  service.close();
});

beforeEach(async () => {
  arrived = [];
  answers = true;
  const { port } = service.address() as AddressInfo;
  project = makeProject({
    "agentid.yaml": `trustDomain: shop.local
identities:
  agents/buyer: { launch: [${py}, agents/buyer.py] }
services:
  orders:
    http: http://127.0.0.1:${port}
    idempotent: [{ method: PUT }]
durable: { keep: 2h, megabytes: 4 }
`,
    "policies/orders.yaml": "rules:\n  - { name: buys, allow: { from: agents/buyer, to: orders } }\n",
    "agents/buyer.py": AGENT,
  });
  dev = await startDev(project);
});

afterEach(async () => {
  await dev.stop("SIGKILL");
});

async function agent() {
  const started = startProgram(process.execPath, [bin, "run", "buyer", "--", py, "agents/buyer.py"], {
    cwd: project,
    env: dev.env,
  });
  const pid = Number((await started.line()).split(" ")[1]);
  return {
    tell: (line: string) => started.write(`${line}\n`),
    async ask(line: string): Promise<string> {
      started.write(`${line}\n`);
      return started.line();
    },
    line: started.line,
    async kill() {
      process.kill(pid, "SIGKILL");
      await once(started.child, "close");
    },
  };
}

async function arrival(index: number): Promise<{ body: string; response: ServerResponse }> {
  while (arrived.length <= index) await new Promise<void>((resolve) => (wake = resolve));
  const one = arrived[index];
  if (one === undefined) throw new Error("it has not arrived");
  return one;
}

/** The daemon is killed and started again. */
async function killDaemon(): Promise<void> {
  await dev.stop("SIGKILL");
  dev = await startDev(project);
}

describe("a call with a key survives", () => {
  it("the agent's kill -9: the next launch gets the answer of the call that went on", async () => {
    answers = false;
    const first = await agent();
    first.tell("POST k 5");
    const { response } = await arrival(0);
    await first.kill();
    const second = await agent();
    second.tell("POST k 5");
    response.end("done");
    expect(await second.line()).toBe("200 true done");
    expect(await second.ask("POST k 6")).toContain("key-reused");
    expect(arrived.map(({ body }) => body)).toEqual(["5"]);
    await second.kill();
  });

  it("the daemon's kill -9 after the answer: it is given again", async () => {
    const first = await agent();
    expect(await first.ask("POST k 5")).toBe("200 None done 1");
    await first.kill();
    await killDaemon();
    const second = await agent();
    expect(await second.ask("POST k 5")).toBe("200 true done 1");
    expect(await second.ask("POST new 5")).toBe("200 None done 2");
    await second.kill();
    expect(statSync(join(project, ".agentid", "calls.sqlite")).mode & 0o777).toBe(0o600);
    // The record has it: the same call, answered from the store.
    const { stdout } = await run(process.execPath, [bin, "audit", "verify", "--json"], { cwd: project });
    expect(JSON.parse(stdout)).toMatchObject({ problems: [] });
  });

  it("the daemon's kill -9 after it was sent: it is not sent again, but where its route is idempotent", async () => {
    answers = false;
    const first = await agent();
    first.tell("POST k 5");
    await arrival(0);
    const other = await agent();
    other.tell("PUT k 5");
    await arrival(1);
    await killDaemon();
    await Promise.all([first.kill(), other.kill()]);
    answers = true;
    const second = await agent();
    expect(await second.ask("POST k 5")).toMatch(/^409 None .*outcome-unknown/);
    expect(await second.ask("POST k 5")).toMatch(/^409 None .*outcome-unknown/);
    expect(arrived).toHaveLength(2);
    expect(await second.ask("PUT k 5")).toBe("200 None done 3");
    expect(await second.ask("PUT k 5")).toBe("200 true done 3");
    expect(arrived).toHaveLength(3);
    await second.kill();
  });

  it("the daemon's kill -9 before it was sent: it is sent", async () => {
    const first = await agent();
    expect(await first.ask("half k")).toBe("sent half");
    // A whole call of the same agent: the half has come before it.
    expect(await first.ask("POST - x")).toBe("200 None done 1");
    await first.kill();
    await killDaemon();
    const second = await agent();
    expect(await second.ask("POST k half+half.")).toBe("200 None done 2");
    expect(arrived.map(({ body }) => body)).toEqual(["x", "half+half."]);
    await second.kill();
  });
});

it("without a key nothing is stored", async () => {
  const one = await agent();
  expect(await one.ask("POST - 5")).toBe("200 None done 1");
  expect(await one.ask("POST - 5")).toBe("200 None done 2");
  expect(existsSync(join(project, ".agentid", "calls.sqlite"))).toBe(false);
  await one.kill();
});

it("an ephemeral trust domain leaves nothing on the disk", async () => {
  await dev.stop();
  dev = await startDev(project, ["--ephemeral"]);
  const one = await agent();
  expect(await one.ask("POST k 5")).toBe("200 None done 1");
  expect(await one.ask("POST k 5")).toBe("200 true done 1");
  expect(existsSync(join(project, ".agentid", "calls.sqlite"))).toBe(false);
  await one.kill();
  await dev.stop();
  dev = await startDev(project, ["--ephemeral"]);
  const two = await agent();
  expect(await two.ask("POST k 5")).toBe("200 None done 2");
  await two.kill();
});
