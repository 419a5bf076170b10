import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { encodePem } from "../../src/spiffe/pem.js";
import type { WITSVIDResponse } from "../../src/workload-api/generated/workload.js";
import { agentid, bin, type Finished, startProgram } from "../e2e/agentid.js";
import { HOUR, makeAuthority, makeLeaf } from "../spiffe/test-certificates.js";
import { identity, type RunningApi, runApi, secure } from "../workload-api/running-api.js";

// The commands as their user runs them, against a real Workload API of this process.
// Each is a process of its own.
vi.setConfig({ testTimeout: 120_000 });
const BILLING = "spiffe://shop.local/agents/billing";
const user = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
let running: RunningApi;
let directory: string;

beforeAll(async () => {
  running = await runApi({
    identities: [identity("agents/billing", undefined, "internal"), identity("agents/planner")],
  });
  running.authority.rotate();
  await running.keeper.rotateAll();
});
afterAll(() => running.close());
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "agentid-sv-"));
  return () => rmSync(directory, { recursive: true });
});

const address = () => `unix://${running.path}`;

function svid(args: readonly string[], input?: string): Promise<Finished> {
  return agentid(["svid", ...args], {
    cwd: directory,
    user,
    env: { SPIFFE_ENDPOINT_SOCKET: address() },
    ...(input === undefined ? {} : { input }),
  });
}

/** Without any Workload API to ask. */
function alone(args: readonly string[], input?: string): Promise<Finished> {
  return agentid(["svid", ...args], { cwd: directory, user, ...(input === undefined ? {} : { input }) });
}

/** `token` with other claims below the old signature. */
function rewritten(token: string, changed: Record<string, unknown>): string {
  const [header, payload = "", signature] = token.trim().split(".");
  const claims = { ...JSON.parse(Buffer.from(payload, "base64url").toString()), ...changed };
  return [header, Buffer.from(JSON.stringify(claims)).toString("base64url"), signature].join(".");
}

/** The first answer of FetchWITSVID. */
function fetchWit(): Promise<WITSVIDResponse> {
  const stream = running.client().fetchWitsvid({ spiffeId: "" }, secure());
  return new Promise((resolve, reject) => {
    stream.once("error", reject);
    stream.once("data", (message: WITSVIDResponse) => {
      stream.removeAllListeners("error").on("error", () => {});
      stream.cancel();
      resolve(message);
    });
  });
}

const at = (name: string) => join(directory, name);

describe("svid fetch", () => {
  it("shows every identity and writes the default one, its key for its owner alone", async () => {
    const { code, stdout } = await svid(["fetch", "--write", "out"]);
    expect(code).toBe(0);
    expect(stdout).toContain(`${BILLING}  (default)\n`);
    expect(stdout).toContain("spiffe://shop.local/agents/planner\n");
    expect(stdout).toContain("trusted: shop.local (2)");
    expect(readdirSync(at("out")).sort()).toEqual(["bundle.pem", "key.pem", "svid.pem"]);
    expect((statSync(at("out/key.pem")).mode & 0o777).toString(8)).toBe("600");
    const verified = execFileSync("openssl", ["verify", "-CAfile", at("out/bundle.pem"), at("out/svid.pem")]);
    expect(verified.toString()).toContain("OK");
    const publicKey = (...args: string[]) => execFileSync("openssl", args).toString();
    expect(publicKey("pkey", "-in", at("out/key.pem"), "-pubout")).toBe(
      publicKey("x509", "-in", at("out/svid.pem"), "-noout", "-pubkey"),
    );
  });

  it("picks another identity by name, and prints facts, not keys, as JSON", async () => {
    const { stdout } = await svid(["fetch", "--id", "planner", "--json"]);
    expect(JSON.parse(stdout)).toMatchObject({
      svids: [{ spiffeId: "spiffe://shop.local/agents/planner", default: false }],
      trustDomains: { "shop.local": 2 },
      written: [],
    });
    expect(stdout).not.toContain("PRIVATE");
    const unknown = await svid(["fetch", "--id", "nobody"]);
    expect(unknown).toMatchObject({ code: 1, stdout: "" });
    expect(unknown.stderr).toContain("it has spiffe://shop.local/agents/billing");
  });

  it("prints a token alone, for the named audiences and identity", async () => {
    const { stdout } = await svid(["fetch", "--audience", "orders", "--audience", "ledger", "--id", "planner"]);
    const shown = await svid(["show", "-"], stdout);
    expect(shown.stdout).toContain("spiffe://shop.local/agents/planner");
    expect(shown.stdout).toContain("orders, ledger");
    const written = await svid(["fetch", "--audience", "orders", "--write", "out"]);
    expect(written.stdout).toContain("token.jwt");
    expect((statSync(at("out/token.jwt")).mode & 0o777).toString(8)).toBe("600");
  });

  it("says by its exit code that it was refused, that nobody answers, that it was called wrongly", async () => {
    const refusing = await runApi({ identities: [] });
    const denied = await alone(["fetch", "--socket", `unix://${refusing.path}`]);
    expect(denied.code).toBe(3);
    await refusing.close();
    expect((await alone(["fetch", "--socket", "unix:///nowhere.sock"])).code).toBe(4);
    expect((await alone(["fetch", "--socket", "tcp://localhost:1"])).code).toBe(2);
    expect((await svid(["fetch"])).code).toBe(0);
  });
});

describe("svid watch", () => {
  it("prints one line an update", async () => {
    const watch = startProgram(process.execPath, [bin, "svid", "watch", "--json", "--count", "2"], {
      cwd: directory,
      user,
      env: { SPIFFE_ENDPOINT_SOCKET: address() },
    });
    const first = JSON.parse(await watch.line());
    expect(first).toMatchObject({
      event: "update",
      svids: [{ spiffeId: BILLING }, {}],
      trustDomains: { "shop.local": 2 },
    });
    await running.keeper.rotateAll();
    const second = JSON.parse(await watch.line());
    expect(second.event).toBe("update");
    expect(second.svids[0].serial).not.toBe(first.svids[0].serial);
    await watch.end();
    const text = await svid(["watch", "--count", "1"]);
    expect(text.stdout.trim().split("\n")).toHaveLength(1);
    expect(text.stdout).toContain(BILLING);
  });
});

describe("svid verify", () => {
  it("keeps every rule for a good SVID, with a bundle file or the Workload API", async () => {
    await svid(["fetch", "--write", "."]);
    for (const { code, stdout } of [
      await svid(["verify", "svid.pem"]),
      await alone(["verify", "svid.pem", "--bundle", "bundle.pem"]),
    ]) {
      expect([code, stdout.includes("✗"), stdout.includes("–")]).toEqual([0, false, false]);
      expect(stdout).toContain("✓ X509-SVID §2");
      expect(stdout).toContain("a valid X.509-SVID");
    }
  });

  it("does not call verified what could not be judged", async () => {
    await svid(["fetch", "--write", "."]);
    const { code, stdout } = await alone(["verify", "svid.pem"]);
    expect(code).toBe(1);
    expect(stdout).toContain("– X509-SVID §5.1");
    expect(stdout).toContain("not verified: nothing is broken, but 2 could not be judged");
  });

  it("names each rule that a certificate breaks", async () => {
    const root = await makeAuthority();
    writeFileSync(at("root.pem"), encodePem("CERTIFICATE", root.der));
    const old = await makeLeaf(root, { notBefore: -20_000 * HOUR, notAfter: -19_000 * HOUR });
    writeFileSync(at("old.der"), old.der);
    const authority = await alone(["verify", "root.pem", "--bundle", "root.pem", "--json"]);
    expect(authority.code).toBe(1);
    expect(brokenCodes(authority.stdout)).toEqual([
      "x509-svid-path-missing",
      "x509-svid-leaf-is-ca",
      "x509-svid-digital-signature-missing",
      "x509-svid-leaf-signs-certificates",
    ]);
    const expired = await alone(["verify", "old.der", "--bundle", "root.pem", "--json"]);
    expect(brokenCodes(expired.stdout)).toContain("x509-svid-expired");
    const elsewhere = await svid(["verify", "root.pem"]);
    expect(elsewhere.stdout).toMatch(/✗ X509-SVID §4\.1 .* it is a signing certificate \[x509-svid-leaf-is-ca\]/);
  });

  it("judges a token for an audience", async () => {
    const { stdout: token } = await svid(["fetch", "--audience", "orders"]);
    const good = await svid(["verify", "-", "--audience", "orders"], token);
    expect([good.code, good.stdout.includes("a valid JWT-SVID")]).toEqual([0, true]);
    const wrong = await svid(["verify", "-", "--audience", "ledger", "--json"], token);
    expect([wrong.code, brokenCodes(wrong.stdout)]).toEqual([1, ["jwt-svid-audience"]]);
    const forged = rewritten(token, { sub: "spiffe://shop.local/agents/root" });
    const refused = await svid(["verify", "-", "--audience", "orders", "--json"], forged);
    expect([refused.code, brokenCodes(refused.stdout)]).toEqual([1, ["jwt-svid-signature"]]);
    await svid(["export", "--current", "--format", "jwks", "--out", "bundle.json"]);
    expect((await alone(["verify", "-", "--audience", "orders", "--bundle", "bundle.json"], token)).code).toBe(0);
    expect((await svid(["verify", "-"], "not a token")).code).toBe(1);
    // The workload's JWT-SVID is told from its WIT-SVID, and one is not taken for the other.
    const { svids } = await fetchWit();
    const wit = svids[0]?.witSvid ?? "";
    const shown = await alone(["show", "-"], wit);
    expect(shown.stdout).toMatch(/^WIT-SVID\n {2}SPIFFE ID +spiffe:\/\/shop\.local\/agents\/billing\n/);
    const trusted = await svid(["verify", "-"], wit);
    expect([trusted.code, trusted.stdout.includes("a valid WIT-SVID")]).toEqual([0, true]);
    expect((await alone(["verify", "-"], wit)).stdout).toContain("not verified");
    const other = await svid(["verify", "-", "--json"], rewritten(wit, { sub: "spiffe://shop.local/agents/root" }));
    expect([other.code, brokenCodes(other.stdout)]).toEqual([1, ["jwt-svid-signature"]]);
    const bearer = await svid(["verify", "-", "--json"], rewritten(wit, { aud: "orders", cnf: undefined, exp: 1 }));
    expect(brokenCodes(bearer.stdout).sort()).toEqual(
      ["jwt-svid-signature", "wit-svid-audience", "wit-svid-confirmation", "wit-svid-expired"].sort(),
    );
    const keys = await alone(["verify", "-", "--bundle", "bundle.json", "--json"], wit);
    expect([keys.code, brokenCodes(keys.stdout)]).toEqual([1, ["wit-svid-trust-domain-unknown"]]);
    const slow = startProgram(process.execPath, [bin, "svid", "show", "-"], { cwd: directory, user });
    const [start, end] = [token.slice(0, 20), token.slice(20)];
    slow.write(start);
    await svid(["show", "-"], token);
    slow.child.stdin.end(end);
    expect(await slow.line()).toBe("JWT-SVID");
    await slow.end();
  });
});

describe("svid show", () => {
  it("shows certificates without their key, and nothing that moves the terminal", async () => {
    await svid(["export", "--current", "--format", "pem", "--out", "all.pem"]);
    const { stdout } = await alone(["show", "all.pem"]);
    expect(stdout).toContain(BILLING);
    expect(stdout).toContain("digitalSignature (critical)");
    expect(stdout).toContain("and a private key, which is not shown");
    expect(stdout).not.toContain("PRIVATE KEY");
    const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const claims = { sub: BILLING, aud: "x\u001b[2Jy", exp: 1, more: "\u202e" };
    const shown = await alone(["show", "-"], `${encode({ alg: "ES256" })}.${encode(claims)}.c2ln`);
    expect(shown.stdout).toContain("audience      xy");
    // biome-ignore lint/suspicious/noControlCharactersInRegex: looked for
    expect(shown.stdout).not.toMatch(/[\u001b\u202e]/);
  });
});

describe("svid export", () => {
  it("writes what openssl opens, for its owner alone", async () => {
    writeFileSync(at("pass"), "correct horse\n", { mode: 0o600 });
    const done = await svid(["export", "planner", "--format", "p12", "--passphrase-file", "pass", "--out", "x.p12"]);
    expect(done).toMatchObject({ code: 0, stderr: "" });
    expect((statSync(at("x.p12")).mode & 0o777).toString(8)).toBe("600");
    const opened = execFileSync("openssl", ["pkcs12", "-in", at("x.p12"), "-passin", "pass:correct horse", "-nodes"]);
    expect(opened.toString()).toContain("friendlyName: planner");
  });

  it("writes nothing without a passphrase or without knowing whose", async () => {
    const bare = await svid(["export", "--current", "--format", "p12", "--out", "x.p12"]);
    expect([bare.code, bare.stderr.includes("--passphrase-file")]).toEqual([1, true]);
    expect((await svid(["export", "--format", "pem", "--out", "x.pem"])).code).toBe(2);
    expect((await svid(["export", "billing", "--current", "--format", "pem", "--out", "x.pem"])).code).toBe(2);
    expect(readdirSync(directory)).toEqual([]);
    expect((await svid(["export", "billing", "--format", "pem", "--out", "x.pem"])).code).toBe(0);
    expect(readFileSync(at("x.pem"), "utf8")).toContain("BEGIN PRIVATE KEY");
  });
});

function brokenCodes(json: string): unknown[] {
  const { rules } = JSON.parse(json) as { rules: { verdict: string; code?: string }[] };
  return rules.filter(({ verdict }) => verdict === "broken").map(({ code }) => code);
}
