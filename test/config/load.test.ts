import { execFile } from "node:child_process";
import { chmod, chown, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { codeOf } from "../../src/coded-error.js";
import { ConfigError } from "../../src/config/config-error.js";
import { builtInConfig, findProject, loadConfig } from "../../src/config/load.js";
import { distrustOf } from "../../src/config/project-file.js";
import { parse, project } from "./project.js";

const PLAIN = { children: false, instances: false, subagents: [] };

const FULL = `
trustDomain: shop.local
identities:
  agents/billing:
    launch: [python3, agents/billing.py]
  agents/planner:
    launch: { command: [node, planner.js], cwd: agents, keepEnv: [OPENAI_API_KEY] }
    user: dev
    uid: 1000
    group: staff
    gid: 20
    supplementaryGroup: docker
    supplementaryGid: 999
    exe: { path: bin/node, sha256: pinned }
    hint: internal
  agents/clerk: { exe: /usr/bin/clerk }
  mcp/payments: { service: payments, dnsNames: [payments.localhost] }
services:
  payments: { mcp: { command: [node, payments.js], cwd: mcp }, listen: 18080 }
  invoices: { http: { unix: run/invoices.sock } }
  legacy: { http: "http://127.0.0.1:8080" }
  six: { http: "http://[::1]" }
  ledger: { mcp: { mtls: "[::1]:8443" } }
policies: rules
lifetimes: { x509: 300s, jwt: 1m, ca: 2d }
reload: auto
keys: memory
`;

describe("a full agentid.yaml", () => {
  const config = parse(FULL);

  it("keeps the order of the identities and appends those that services have by themselves", () => {
    expect(config.identities.map((identity) => identity.id.toString())).toEqual([
      "spiffe://shop.local/agents/billing",
      "spiffe://shop.local/agents/planner",
      "spiffe://shop.local/agents/clerk",
      "spiffe://shop.local/mcp/payments",
      "spiffe://shop.local/services/invoices",
      "spiffe://shop.local/services/legacy",
      "spiffe://shop.local/services/six",
      "spiffe://shop.local/mcp/ledger",
    ]);
  });

  it("keeps the file's order also for names that look like numbers", () => {
    const numbered = parse("trustDomain: a\nidentities: { zebra: { uid: 1 }, '10': { uid: 2 }, '9': { uid: 3 } }\n");
    expect(numbered.identities.map((identity) => identity.name)).toEqual(["zebra", "10", "9"]);
  });

  it("has every fact, with paths made absolute", () => {
    const [billing, planner, clerk, payments] = config.identities;
    expect(billing).toMatchObject({
      name: "agents/billing",
      facts: {},
      launch: { argv: ["python3", "agents/billing.py"], workingDirectory: "/shop", keepEnv: [], ...PLAIN },
      service: undefined,
      dnsNames: [],
      hint: "",
    });
    expect(planner).toMatchObject({
      facts: {
        uid: 1000,
        user: "dev",
        gid: 20,
        group: "staff",
        supplementaryGid: 999,
        supplementaryGroup: "docker",
        exePath: "/shop/bin/node",
        exeSha256: "pinned",
      },
      launch: { argv: ["node", "planner.js"], workingDirectory: "/shop/agents", keepEnv: ["OPENAI_API_KEY"], ...PLAIN },
      hint: "internal",
    });
    expect(clerk?.facts).toEqual({ exePath: "/usr/bin/clerk" });
    expect(payments).toMatchObject({ service: "payments", dnsNames: ["payments.localhost"], facts: {} });
  });

  it("has every fact of where a process runs, who started it and who signed it", () => {
    const container = "ab".repeat(32);
    const parsed = parse(`
trustDomain: a
identities:
  x:
    systemdUnit: cron.service
    systemdUserUnit: app-1.scope
    cgroup: /system.slice/cron.service
    containerId: ${container}
    podUid: 8c2f1e6a-3a53-4d53-a4b0-1f0a9b7c6d5e
    parentExe: { path: bin/starter, sha256: ${container} }
    signature: { team: 9JA89QQLNQ, identifier: org.python.python }
  y: { parentExe: /usr/bin/tmux }
`);
    expect(parsed.identities.map(({ facts }) => facts)).toEqual([
      {
        systemdUnit: "cron.service",
        systemdUserUnit: "app-1.scope",
        cgroup: "/system.slice/cron.service",
        containerId: container,
        podUid: "8c2f1e6a-3a53-4d53-a4b0-1f0a9b7c6d5e",
        parentExePath: "/shop/bin/starter",
        parentExeSha256: container,
        signingTeam: "9JA89QQLNQ",
        signingIdentifier: "org.python.python",
      },
      { parentExePath: "/usr/bin/tmux" },
    ]);
  });

  it("has every kind of upstream", () => {
    const services = config.services.map(({ name, protocol, upstream, listenPort, id }) => ({
      as: `${name} ${protocol} ${id.name} ${listenPort}`,
      upstream,
    }));
    expect(services).toEqual([
      {
        as: "payments mcp mcp/payments 18080",
        upstream: { kind: "command", argv: ["node", "payments.js"], workingDirectory: "/shop/mcp" },
      },
      {
        as: "invoices http services/invoices undefined",
        upstream: { kind: "unix", path: "/shop/run/invoices.sock" },
      },
      { as: "legacy http services/legacy undefined", upstream: { kind: "tcp", host: "127.0.0.1", port: 8080 } },
      { as: "six http services/six undefined", upstream: { kind: "tcp", host: "::1", port: 80 } },
      { as: "ledger mcp mcp/ledger undefined", upstream: { kind: "mtls", host: "::1", port: 8443 } },
    ]);
  });

  it("has the rest", () => {
    expect(config).toMatchObject({
      projectDirectory: "/shop",
      policiesDirectory: "/shop/rules",
      lifetimes: { x509Seconds: 300, jwtSeconds: 60, caSeconds: 172_800 },
      reload: "auto",
      keys: "memory",
    });
  });
});

describe("what is not written", () => {
  it("has the lifetimes of D24, keys on disk, policies/", () => {
    expect(parse("trustDomain: shop.local")).toMatchObject({
      identities: [],
      services: [],
      policiesDirectory: "/shop/policies",
      lifetimes: { x509Seconds: 600, jwtSeconds: 300, caSeconds: 86_400 },
      keys: "disk",
    });
  });

  it.each([
    ["an identity with launch", "launch: [a]", "confirm"],
    ["no launch", "uid: 1", "auto"],
    ["launch in full form", "launch: { command: [a] }", "confirm"],
  ])("reloads by %s", (_, entry, reload) => {
    expect(parse(`trustDomain: a\nidentities: { x: { ${entry} } }`).reload).toBe(reload);
  });

  it("agentid ci without a file: ci.local, nothing registered, nothing kept", () => {
    expect(builtInConfig("/shop")).toMatchObject({
      trustDomain: { name: "ci.local" },
      file: undefined,
      identities: [],
      services: [],
      keys: "memory",
      reload: "auto",
    });
  });
});

describe("loading from the disk", () => {
  it("finds the nearest folder above, and none where there is none", async () => {
    const outer = await project({ "agentid.yaml": "trustDomain: outer" });
    await mkdir(join(outer, "a/b"), { recursive: true });
    expect(findProject(join(outer, "a/b"))).toBe(outer);
    await writeFile(join(outer, "a/agentid.yaml"), "trustDomain: inner");
    expect(findProject(join(outer, "a/b"))).toBe(join(outer, "a"));
    expect(findProject(await project())).toBeUndefined();
  });

  it("knows the file, the folder and the digest of the bytes", async () => {
    const directory = await project({ "agentid.yaml": "trustDomain: shop.local\n" });
    const { stdout } = await promisify(execFile)("sha256sum", [join(directory, "agentid.yaml")]);
    expect(await loadConfig(join(directory, "agentid.yaml"))).toMatchObject({
      projectDirectory: directory,
      file: join(directory, "agentid.yaml"),
      digest: stdout.slice(0, 64),
    });
  });

  it.each([
    ["a missing file", "config-unreadable", async (file: string) => file],
    ["a folder", "config-invalid", (file: string) => mkdir(file)],
    ["a named pipe nobody writes to", "config-invalid", (file: string) => promisify(execFile)("mkfifo", [file])],
    ["more than 4 MiB", "config-invalid", (file: string) => writeFile(file, `trustDomain: a\n${"#".repeat(4 << 20)}`)],
    [
      "bytes that are not UTF-8",
      "config-invalid",
      (file: string) => writeFile(file, Buffer.from("trustDomain: a\xff", "latin1")),
    ],
  ])("refuses %s", async (_, code, make) => {
    const file = join(await project(), "agentid.yaml");
    await make(file);
    const thrown = await loadConfig(file).catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(ConfigError);
    expect(codeOf(thrown)).toBe(code);
  });

  it("says what to do where there is no file", async () => {
    const file = join(await project(), "agentid.yaml");
    await expect(loadConfig(file)).rejects.toMatchObject({ hint: "agentid init writes one" });
  });

  it("refuses a file that every user can change", async () => {
    const file = join(await project({ "agentid.yaml": "trustDomain: a\n" }), "agentid.yaml");
    await chmod(file, 0o664);
    expect(await loadConfig(file)).toMatchObject({ file });
    await chmod(file, 0o666);
    await expect(loadConfig(file)).rejects.toMatchObject({ code: "config-untrusted" });
  });

  it.skipIf(process.getuid?.() !== 0)(
    "refuses somebody else's file in a folder that is not theirs, as in /tmp",
    async () => {
      const directory = await project({ "agentid.yaml": "trustDomain: a\n" });
      const file = join(directory, "agentid.yaml");
      await chown(file, 65_534, 65_534);
      await expect(loadConfig(file)).rejects.toMatchObject({
        code: "config-untrusted",
        message: expect.stringContaining("uid 65534"),
      });
      await chown(directory, 65_534, 65_534);
      expect(await loadConfig(file)).toMatchObject({ file });
    },
  );

  it.each([
    ["mine", { uid: 1000, mode: 0o644 }, 1000, 1000, true],
    ["root's", { uid: 0, mode: 0o644 }, 0, 1000, true],
    ["another user's", { uid: 1001, mode: 0o644 }, 1000, 1000, false],
    ["another user's in their own folder", { uid: 1001, mode: 0o644 }, 1001, 1000, false],
    ["a user's in their own folder, for root", { uid: 1001, mode: 0o644 }, 1001, 0, true],
    ["a user's in another's folder, for root", { uid: 1001, mode: 0o644 }, 0, 0, false],
    ["mine, writable by everybody", { uid: 1000, mode: 0o666 }, 1000, 1000, false],
  ])("trust: %s", (_, file, folderUid, userId, trusted) => {
    expect(distrustOf(file, { uid: folderUid }, userId) === undefined).toBe(trusted);
  });
});
