import { execFile } from "node:child_process";
import { mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decidesBy, type RunningAuthzen, runAuthzen } from "../authzen/running-authzen.js";
import { identity } from "../relay/running-relay.js";
import { preparePythonEnvironment } from "./python-environment.js";

const execute = promisify(execFile);
const clients = join(import.meta.dirname, "authzen-python");
const python = await preparePythonEnvironment("authzen-python", join(clients, "requirements.txt"));
if ("missing" in python) process.stderr.write(`SKIPPED: AuthZEN clients of other people: ${python.missing}\n`);

/** The second client puts names of its own into the request; `write` is what both have in common. */
const decisionPoint = decidesBy(
  ({ subject, action }) => /alice$/.test(subject.id) && subject.type === "user" && /write/.test(action.name),
);

let running: RunningAuthzen;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "agentid-authzen-interop-"));
  const exePath = "python" in python ? realpathSync(python.python) : "/nonexistent";
  running = await runAuthzen({
    identities: [identity("agents/python", { facts: { exePath } })],
    change: () => ({ decisionPoint: () => decisionPoint, clients: () => ["agents/gateway", "agents/python"] }),
  });
  const { cert = "", key = "" } = running.tlsAs("agents/gateway").tls ?? {};
  writeFileSync(join(folder, "bundle.pem"), running.ca());
  writeFileSync(join(folder, "gateway.pem"), cert + key, { mode: 0o600 });
});
afterAll(async () => {
  await running.close();
  rmSync(folder, { recursive: true, force: true });
});

describe.skipIf("missing" in python)("unmodified AuthZEN clients from PyPI", () => {
  it("decern and authzen-policy-backend are answered over TLS and on the socket", async () => {
    if ("missing" in python) throw new Error(python.missing);
    const target = running.tlsAs("agents/gateway");
    const { stdout } = await execute(python.python, [
      join(clients, "ask.py"),
      target.base,
      join(folder, "bundle.pem"),
      join(folder, "gateway.pem"),
      running.unix.socketPath,
    ]);
    const answers = new Map(
      stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as { name: string })
        .map(({ name, ...answer }) => [name, answer]),
    );
    expect(Object.fromEntries(answers)).toEqual({
      "decern permit": { allowed: true, id: expect.any(String) },
      "decern deny": { allowed: false, id: expect.any(String) },
      "decern without a certificate": { status: 401 },
      "backend permit": { allowed: true, failed: false, reason: expect.any(String) },
      "backend deny": { allowed: false, failed: false, reason: expect.any(String) },
      "backend without a certificate": { allowed: false, failed: true, reason: expect.stringContaining("401") },
      "backend on the socket": { allowed: true, failed: false, reason: expect.any(String) },
    });
  });
});

describe("openssl", () => {
  it("verifies the listener by the trust bundle and by this machine's names, and by no other", async () => {
    const verify = (...name: string[]) =>
      execute("sh", [
        "-c",
        'openssl s_client -connect "$0" -CAfile "$1" -verify_return_error "$2" "$3" </dev/null',
        `127.0.0.1:${running.tlsPort}`,
        join(folder, "bundle.pem"),
        ...name,
      ]).then(
        ({ stdout }) => /Verification: OK|Verify return code: 0/.test(stdout),
        () => false,
      );
    expect(await verify("-verify_ip", "127.0.0.1")).toBe(true);
    expect(await verify("-verify_hostname", "localhost")).toBe(true);
    expect(await verify("-verify_hostname", "evil.example")).toBe(false);
    expect(await verify("-verify_ip", "127.0.0.2")).toBe(false);
  });
});
