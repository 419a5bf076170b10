import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { createServer, type Http2Server } from "node:http2";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type GrpcService, runGrpcService } from "../relay/grpc-service.js";
import { identity, type RunningRelay, runRelay } from "../relay/running-relay.js";
import { preparePythonEnvironment } from "./python-environment.js";

const execute = promisify(execFile);
const programs = join(import.meta.dirname, "grpc-python");
const python = await preparePythonEnvironment("grpc-python", join(programs, "requirements.txt"));
if ("missing" in python) process.stderr.write(`SKIPPED: gRPC clients of other people: ${python.missing}\n`);
const h2spec = await buildH2spec();
if ("missing" in h2spec) process.stderr.write(`SKIPPED: h2spec: ${h2spec.missing}\n`);

async function buildH2spec(): Promise<{ readonly program: string } | { readonly missing: string }> {
  const directory = join(import.meta.dirname, "../../.cache/interop/h2spec");
  const program = join(directory, "h2spec");
  if (existsSync(program)) return { program };
  mkdirSync(directory, { recursive: true });
  try {
    await execute("go", ["install", "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"], {
      cwd: directory,
      env: { ...process.env, GOBIN: directory, GOFLAGS: "-mod=mod" },
    });
    return { program };
  } catch (cause) {
    return { missing: `it cannot be built here: ${String(cause).split("\n")[0]}` };
  }
}

let service: GrpcService;
let running: RunningRelay;

beforeAll(async () => {
  service = await runGrpcService("ledger");
  const exePath = "python" in python ? realpathSync(python.python) : "/nonexistent";
  running = await runRelay({
    services: [service.service],
    identities: [identity("agents/python", { facts: { exePath } })],
    rules: `rules:
  - { name: ledger, allow: { from: agents/python, to: ledger, path: /shop.Ledger/* } }
  - { name: no-secrets, deny: { from: agents/python, to: ledger, path: /shop.Ledger/Secret } }
`,
  });
});
afterAll(async () => {
  await running.close();
  service.close();
});

describe.skipIf("missing" in python)("grpcio from PyPI, through both legs", () => {
  it("has every kind of call, allowed and denied, with deadlines and cancellation", async () => {
    if ("missing" in python) throw new Error(python.missing);
    const { Get } = service.handlers;
    service.handlers.Get = (call, callback) => {
      if (call.request.toString() !== "slow") Get(call, callback);
    };
    const { stdout } = await execute(python.python, [
      join(programs, "client.py"),
      new URL(running.urlOf("ledger")).host,
    ]);
    const answers = stdout.trim().split("\n");
    expect(answers.map((line) => JSON.parse(line) as unknown)).toEqual([
      { value: "hello" },
      {
        code: "PERMISSION_DENIED",
        details: expect.stringMatching(/^denied by policy no-secrets .* Decision \w+$/),
        decision: expect.stringMatching(/^\w{4}$/),
      },
      { value: "5" },
      { value: ["0", "1", "2"] },
      { value: ["a", "b"] },
      { value: true },
      { code: "DEADLINE_EXCEEDED", details: expect.any(String), decision: expect.any(String) },
      { code: "CANCELLED", details: expect.any(String), decision: "" },
    ]);
    expect(service.arrived.map(({ method }) => method)).not.toContain("Secret");
    const [first] = service.arrived;
    expect(String(first?.metadata.get("x-forwarded-client-cert"))).toContain("URI=spiffe://shop.local/agents/python");
  });
});

describe.skipIf("missing" in h2spec)("h2spec", () => {
  /** Names of the cases that fail, of so many that were tried. */
  async function judge(port: number): Promise<{ failed: readonly string[]; tried: number }> {
    if ("missing" in h2spec) throw new Error(h2spec.missing);
    const report = join(import.meta.dirname, `../../.cache/interop/h2spec/${port}.xml`);
    // It exits 1 where any case fails; the report says which.
    await execute(h2spec.program, ["-h", "127.0.0.1", "-p", String(port), "-o", "2", "-j", report]).catch(
      () => undefined,
    );
    const text = readFileSync(report, "utf8");
    rmSync(report);
    const cases = text.split("<testcase").slice(1);
    const nameOf = (one: string) =>
      ["package", "classname"].map((key) => new RegExp(`${key}="([^"]*)"`).exec(one)?.[1]).join(" ");
    return { failed: cases.filter((one) => /<failure|<error/.test(one)).map(nameOf), tried: cases.length };
  }

  it("finds nothing in the relay that it does not find in Node's own server", { timeout: 300_000 }, async () => {
    const bare: Http2Server = createServer((_request, response) => response.end("hello from a bare server"));
    await new Promise<void>((resolve) => bare.listen(0, "127.0.0.1", resolve));
    const address = bare.address();
    const ofNode = await judge(typeof address === "object" && address !== null ? address.port : 0);
    bare.close();
    const ofRelay = await judge(Number(new URL(running.urlOf("ledger")).port));

    expect(ofRelay.tried).toBe(ofNode.tried);
    expect(ofRelay.tried).toBeGreaterThan(100);
    expect(ofRelay.failed.filter((name) => !ofNode.failed.includes(name))).toEqual([]);
  });
});
