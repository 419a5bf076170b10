import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { agentid, bin, makeProject, type RunningDev, startDev, startProgram } from "./agentid.js";

const root = join(import.meta.dirname, "..", "..");

/** A WebSocket server as small as RFC 6455 allows: it accepts, says hello and closes. */
const FEED = `const { createHash } = require("node:crypto");
const { createServer } = require("node:http");
const server = createServer((request, response) => response.end("plain"));
server.on("upgrade", (request, socket) => {
  const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  const accept = createHash("sha1").update(key).digest("base64");
  socket.on("error", () => undefined);
  socket.write("HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: " + accept + "\\r\\n\\r\\n");
  socket.write(Buffer.from([0x81, 5, ...Buffer.from("hello")]));
});
server.listen(process.env.AGENTID_LISTEN);
`;

const GRPC = `const grpc = require(${JSON.stringify(join(root, "node_modules/@grpc/grpc-js"))});
const plain = (value) => value;
const names = { requestSerialize: plain, requestDeserialize: plain, responseSerialize: plain, responseDeserialize: plain };
const method = (name) => ({ path: "/shop.Ledger/" + name, requestStream: false, responseStream: false, ...names });
const ledger = { Get: method("Get"), Secret: method("Secret") };
`;

const LEDGER = `${GRPC}
const server = new grpc.Server();
const answer = (call, callback) => callback(null, Buffer.from(String(call.metadata.get("x-forwarded-client-cert"))));
server.addService(ledger, { Get: answer, Secret: answer });
server.bindAsync("unix:" + process.env.AGENTID_LISTEN, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
`;

/** One "ws PATH" or "grpc METHOD" a line. */
const AGENT = `${GRPC}
console.log("up", process.pid);
const Ledger = grpc.makeGenericClientConstructor(ledger);
const client = new Ledger(process.env.AGENTID_ADDRESS_LEDGER, grpc.credentials.createInsecure());
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const [what, name] = line.split(" ");
  if (what === "grpc") {
    client[name](Buffer.from("x"), (error, value) => console.log(error ? error.code + " " + error.details : "0 " + value));
    return;
  }
  const socket = new WebSocket(process.env.AGENTID_URL_FEED.replace("http:", "ws:") + name);
  socket.onmessage = ({ data }) => (console.log("said", data), socket.close());
  socket.onerror = () => console.log("refused");
});
`;

const CONFIG = `trustDomain: shop.local
identities:
  agents/reader:
    launch: ${JSON.stringify([process.execPath, "agents/reader.js"])}
services:
  feed: { http: { command: [${JSON.stringify(process.execPath)}, services/feed.js] } }
  ledger: { grpc: { command: [${JSON.stringify(process.execPath)}, services/ledger.js] } }
reload: auto
`;

const POLICY = `rules:
  - { name: feed, allow: { from: agents/reader, to: feed, method: GET, path: /feed, context: { protocol: websocket } } }
  - { name: ledger, allow: { from: agents/reader, to: services/ledger, method: POST, path: /shop.Ledger/Get } }
`;

describe("an agent that speaks more than HTTP/1.1", () => {
  const project = makeProject({
    "agentid.yaml": CONFIG,
    "policies/shop.yaml": POLICY,
    "agents/reader.js": AGENT,
    "services/feed.js": FEED,
    "services/ledger.js": LEDGER,
  });
  let dev: RunningDev;
  let agent: ReturnType<typeof startProgram>;

  beforeAll(async () => {
    dev = await startDev(project);
    const command = [bin, "run", "reader", "--", process.execPath, "agents/reader.js"];
    agent = startProgram(process.execPath, command, { cwd: project });
    expect(await agent.line()).toBe(`up ${agent.pid}`);
  });
  afterAll(async () => {
    await agent.end();
    await dev.stop();
  });

  const ask = (line: string): Promise<string> => {
    agent.write(`${line}\n`);
    return agent.line();
  };

  it("opens the WebSocket that it may, and no other", async () => {
    expect(await ask("ws /feed")).toBe("said hello");
    expect(await ask("ws /admin")).toBe("refused");
  });

  it("makes the calls of gRPC that it may, and no other; the denial is explained", async () => {
    expect(await ask("grpc Get")).toMatch(/^0 By=.*URI=spiffe:\/\/shop.local\/agents\/reader$/);
    const denied = await ask("grpc Secret");
    expect(denied).toMatch(/^7 denied by policy default .*Decision \w+$/);
    const explained = await agentid(["explain", denied.split(" ").at(-1) ?? ""], { cwd: project });
    expect(explained.stdout).toContain("DENY  agents/reader → ledger");
    expect(explained.stdout).toContain("/shop.Ledger/Secret");
  });
});
