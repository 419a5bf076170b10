import { execFile } from "node:child_process";
import { realpathSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { identity, type RunningRelay, runRelay } from "../relay/running-relay.js";
import { runWebSocketService, type WebSocketService } from "../relay/websocket-service.js";
import { prepareJavaClient } from "./foreign-workloads.js";
import { preparePythonEnvironment } from "./python-environment.js";

const execute = promisify(execFile);
const programs = join(import.meta.dirname, "websocket-python");
const python = await preparePythonEnvironment("websocket-python", join(programs, "requirements.txt"));
const java = await prepareJavaClient();
if ("missing" in java) process.stderr.write(`SKIPPED: Java's WebSocket client: ${java.missing}\n`);
if ("missing" in python) process.stderr.write(`SKIPPED: WebSocket clients of other people: ${python.missing}\n`);

let chat: WebSocketService;
let running: RunningRelay;

beforeAll(async () => {
  chat = await runWebSocketService("chat");
  const exePath = "python" in python ? realpathSync(python.python) : "/nonexistent";
  running = await runRelay({
    services: [chat.service],
    identities: [
      identity("agents/python", { facts: { exePath } }),
      identity("agents/java", { facts: { exePath: "missing" in java ? "/nonexistent" : java.workload.exePath } }),
    ],
    rules: "rules:\n  - { name: chat, allow: { from: [agents/python, agents/java], to: chat, path: /chat } }\n",
  });
});
afterAll(async () => {
  await running.close();
  chat.close();
});

describe.skipIf("missing" in python)("websockets from PyPI, through both legs", () => {
  it("is let through, denied and refused as any client", async () => {
    if ("missing" in python) throw new Error(python.missing);
    const url = running.urlOf("chat").replace("http:", "ws:");
    const { stdout } = await execute(python.python, [
      join(programs, "client.py"),
      ...[`${url}/chat`, `${url}/admin`, `${url}/chat https://evil.example`],
    ]);
    const answers = stdout.trim().split("\n");
    expect(answers.map((line) => JSON.parse(line) as unknown)).toEqual([
      { text: "hello", large: true, pong: true, subprotocol: "v1.chat", closed: 4321 },
      { status: 403, code: "denied" },
      { status: 403, code: "origin-foreign" },
    ]);
    expect(chat.arrived).toHaveLength(1);
    expect(chat.arrived[0]?.headers["x-forwarded-client-cert"]).toContain("URI=spiffe://shop.local/agents/python");
  });
});

describe.skipIf("missing" in java)("Java's own client, through both legs", () => {
  it("is let through and denied as any client", async () => {
    if ("missing" in java) throw new Error(java.missing);
    const [program = "", ...args] = java.workload.command;
    const url = running.urlOf("chat").replace("http:", "ws:");
    const before = chat.arrived.length;
    const { stdout } = await execute(program, [...args, `${url}/chat`, `${url}/admin`]);
    const answers = stdout.trim().split("\n");
    expect(answers.map((line) => JSON.parse(line) as unknown)).toEqual([
      { text: "hello", large: true, subprotocol: "v1.chat", closed: 4321 },
      { status: 403 },
    ]);
    expect(chat.arrived).toHaveLength(before + 1);
    expect(chat.arrived.at(-1)?.headers["x-forwarded-client-cert"]).toContain("URI=spiffe://shop.local/agents/java");
  });
});
