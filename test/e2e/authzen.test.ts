import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createX509Source, type X509Source } from "../../src/client/spiffe/index.js";
import { encodePem } from "../../src/spiffe/pem.js";
import { certify, exchange, items, type Target } from "../authzen/certification.js";
import { agentid, giveTo, type RunningDev, run, startDev } from "./agentid.js";

/** The certification scenario's policy as a person would write it. */
const policy = `rules:
  - name: everybody-reads
    allow: { subject: { type: user }, action: read, resource: { type: record } }
  - name: alice-writes-what-is-active
    allow: { subject: { type: user, id: alice }, action: write, resource: { type: record } }
    when: resource.properties.status != 'archived'
  - name: admins-write-what-is-archived
    allow: { subject: { type: user, properties: { role: admin } }, action: write, resource: { type: record, properties: { status: archived } } }
  - name: alice-deletes-softly
    allow: { subject: { type: user, id: alice }, action: { name: delete, properties: { soft: true } }, resource: { type: record } }
  - name: exports-need-approval
    allow: { subject: { type: user }, action: export, resource: { type: record } }
    require: [approval]
  - name: gateway-gets
    allow: { from: agents/gateway, to: payments, tools: "get_*" }
`;
/** Tools that no rule names in full. */
const lock = `version: 1
identities: {}
tools:
  payments:
    get_invoice: { sha256: "${"0".repeat(64)}", inputSchema: {} }
    refund: { sha256: "${"1".repeat(64)}", inputSchema: {} }
`;
const entities = `entities:
  - { type: user, id: alice }
  - { type: user, id: bob, properties: { role: admin } }
  - { type: record, id: record-1, properties: { status: active } }
  - { type: record, id: record-2, properties: { status: archived } }
`;

const uid = process.getuid?.() ?? 0;
let port: number;
const yaml = (clients: string) => `trustDomain: shop.local
identities:
  agents/gateway: { uid: ${uid} }
  agents/other: { exe: /nonexistent/other }
  mcp/payments: { service: payments }
services:
  payments: { mcp: { unix: /nonexistent/payments.sock } }
authzen:
  listen: 127.0.0.1:${port}
  clients: [${clients}]
reload: auto
`;

describe("the decision point of a running trust domain", () => {
  const project = mkdtempSync(join(tmpdir(), "agentid-e2e-authzen-"));
  let dev: RunningDev;
  let source: X509Source;
  let bundle: string;

  beforeAll(async () => {
    port = await freePort();
    mkdirSync(join(project, "policies"));
    writeFileSync(join(project, "agentid.yaml"), yaml("agents/gateway"));
    writeFileSync(join(project, "entities.yaml"), entities);
    writeFileSync(join(project, "agentid.lock"), lock);
    writeFileSync(join(project, "policies", "records.yaml"), policy);
    giveTo(project);
    dev = await startDev(project);
    source = await createX509Source({ socketPath: dev.ready.workloadApi });
    bundle = (await agentid(["bundle", "show", "--format", "pem"], { cwd: project })).stdout;
  });
  afterAll(async () => {
    source.close();
    await dev.stop();
    rmSync(project, { recursive: true, force: true });
  });

  const overTls = (): Target => {
    const { certificates, privateKey } = source.svid();
    const cert = certificates.map((der) => encodePem("CERTIFICATE", der)).join("");
    const key = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
    return { base: dev.ready.authzen.url ?? "", tls: { ca: bundle, cert, key } };
  };
  const onSocket = (): Target => ({
    base: "http://localhost",
    socketPath: dev.ready.authzen.socket.replace(/^unix:\/\//, ""),
  });
  const ask = async (target: Target, body: object) =>
    exchange(target, {
      method: "POST",
      path: "/access/v1/evaluation",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  const question = {
    subject: { type: "user", id: "alice" },
    action: { name: "write" },
    resource: { type: "record", id: "record-1" },
  };

  it.each([
    { door: "TLS", target: overTls },
    { door: "the Unix socket", target: onSocket },
  ])("passes the certification scenario, every level, over $door", async ({ target }) => {
    const outcomes = await certify(target());
    const failed = outcomes.filter(({ failure }) => failure !== undefined);
    expect(failed.map(({ id, failure }) => `${id}: ${failure}`)).toEqual([]);
    expect(outcomes).toHaveLength(items.length);
  });

  it("finds the pinned tools that a caller may call", async () => {
    const subject = { type: "spiffe", id: "spiffe://shop.local/agents/gateway" };
    const { text } = await exchange(overTls(), {
      method: "POST",
      path: "/access/v1/search/resource",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ subject, action: { name: "tools/call" }, resource: { type: "mcp-tool" } }),
    });
    const payments = { type: "mcp-tool", id: "spiffe://shop.local/mcp/payments" };
    expect(JSON.parse(text).results).toEqual([{ ...payments, properties: { tool: "get_invoice" } }]);
  });

  it("records each decision, which explain explains", async () => {
    const answer = await ask(overTls(), { ...question, resource: { type: "record", id: "record-2" } });
    const { decision, context } = JSON.parse(answer.text);
    expect(decision).toBe(false);
    const explained = await agentid(["explain", context.id], { cwd: project });
    expect(explained.stdout).toContain("DENY  user:alice → record:record-2");
    expect(explained.stdout).toContain("alice-writes-what-is-active");
    const record = await agentid(["audit", "show", "--json"], { cwd: project });
    expect(record.stdout).toContain(context.id);
  });

  it("names in its metadata the obligations that the rules ask for, and permits who knows them", async () => {
    const metadata = await exchange(overTls(), { method: "GET", path: "/.well-known/authzen-configuration" });
    expect(JSON.parse(metadata.text)).toMatchObject({ supported_obligations: ["approval"] });
    const exporting = { ...question, action: { name: "export" } };
    expect(JSON.parse((await ask(overTls(), exporting)).text).decision).toBe(false);
    const able = { ...exporting, context: { supported_obligations: ["approval"] } };
    expect(JSON.parse((await ask(overTls(), able)).text)).toMatchObject({
      decision: true,
      context: { obligations: [{ type: "approval", properties: {} }] },
    });
  });

  it("answers the owner's shell, as the documentation shows it", async () => {
    const { socketPath = "" } = onSocket();
    const { stdout } = await run(
      "curl",
      [
        ...["-sS", "--unix-socket", socketPath, "http://localhost/access/v1/evaluation"],
        ...["-H", "Content-Type: application/json", "-d", JSON.stringify(question)],
      ],
      { cwd: project },
    );
    expect(JSON.parse(stdout)).toMatchObject({ decision: true });
  });

  it("takes another list of clients from the saved file", async () => {
    expect((await ask(overTls(), question)).status).toBe(200);
    const since = dev.events.length;
    writeFileSync(join(project, "agentid.yaml"), yaml("agents/other"));
    await dev.until((event) => event.event === "reload" && event.outcome === "applied", since);
    expect((await ask(overTls(), question)).status).toBe(403);
    expect((await ask(onSocket(), question)).status).toBe(403);
  });
});

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}
