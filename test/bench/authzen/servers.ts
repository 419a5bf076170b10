import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { createX509Source } from "../../../src/client/spiffe/index.js";
import type { Status } from "../../../src/control-api/routes.js";
import { encodePem } from "../../../src/spiffe/pem.js";
import { pinned } from "./cores.js";
import { type Contender, requestTo } from "./load.js";

const CERBOS = "@cerbos/cerbos-linux-x64@0.55.0";
const root = join(import.meta.dirname, "..", "..", "..");

type Tls = NonNullable<Contender["tls"]>;

/** How Cerbos listens and what it writes of its decisions. */
export interface CerbosSetup {
  readonly name: string;
  readonly door: "tcp" | "tls" | "unix";
  /** Each decision and each access, into a file: what it calls the audit log. */
  readonly audit: boolean;
}

export interface RunningCerbos extends Contender {
  /** Bytes of the audit log. */
  recorded(): number;
  stop(): Promise<void>;
}

/** Cerbos with one rule. `credentials` are those of its TLS door, whose clients show a certificate that it verifies. */
export async function startCerbos(
  binary: string,
  folder: string,
  { name, door, audit }: CerbosSetup,
  credentials: Tls,
): Promise<RunningCerbos> {
  const policies = join(folder, "policies");
  mkdirSync(policies, { recursive: true });
  writeFileSync(
    join(policies, "record.yaml"),
    'apiVersion: api.cerbos.dev/v1\nresourcePolicy:\n  resource: record\n  version: default\n  rules:\n    - { actions: [read], effect: EFFECT_ALLOW, roles: ["*"] }\n',
  );
  const files = { cert: "certificate.pem", key: "key.pem", caCert: "authorities.pem" };
  const tls = Object.fromEntries(Object.entries(files).map(([key, file]) => [key, join(folder, file)]));
  writeFileSync(join(folder, files.cert), credentials.certificate);
  writeFileSync(join(folder, files.key), credentials.key);
  writeFileSync(join(folder, files.caCert), credentials.authorities);
  const log = join(folder, "audit.log");
  const address = door === "unix" ? join(folder, "http.sock") : `127.0.0.1:${await freePort()}`;
  const config = {
    server: {
      httpListenAddr: door === "unix" ? `unix:${address}` : address,
      grpcListenAddr: `unix:${join(folder, "grpc.sock")}`,
      ...(door === "tls" && { tls }),
    },
    telemetry: { disabled: true },
    storage: { driver: "disk", disk: { directory: policies, watchForChanges: false } },
    ...(audit && {
      audit: {
        enabled: true,
        accessLogsEnabled: true,
        decisionLogsEnabled: true,
        backend: "file",
        file: { path: log },
      },
    }),
  };
  const file = join(folder, "cerbos.yaml");
  writeFileSync(file, JSON.stringify(config));
  const [command = binary, ...args] = pinned("server", [binary, "server", "--config", file, "--log-level=error"]);
  const child = spawn(command, args, {
    stdio: ["ignore", "ignore", "inherit"],
    env: { ...process.env, CERBOS_NO_TELEMETRY: "1" },
  });
  await answers(() => (door === "unix" ? connect(address) : connect(Number(address.split(":")[1]), "127.0.0.1")));
  // Cerbos wants roles of its subjects.
  const subject = { type: "user", id: "alice", properties: { "cerbos.roles": ["user"] } };
  const body = { subject, action: { name: "read" }, resource: { type: "record", id: "record-1" } };
  return {
    name,
    pid: child.pid ?? 0,
    network: door === "unix" ? "unix" : "tcp",
    address,
    ...(door === "tls" && { tls: credentials }),
    request: requestTo(door === "unix" ? "localhost" : address, body),
    recorded: () => (existsSync(log) ? statSync(log).size : 0),
    stop: () => ended(child),
  };
}

/** From npm, once, into `cache`; undefined where there is no registry, or no binary for this machine. */
export function downloadCerbos(cache: string): string | undefined {
  const binary = join(cache, "package", "cerbos-linux-x64");
  try {
    if (!existsSync(binary)) {
      mkdirSync(cache, { recursive: true });
      const packed = execFileSync("npm", ["pack", "--silent", CERBOS], { cwd: cache, encoding: "utf8" }).trim();
      execFileSync("tar", ["xzf", packed], { cwd: cache });
      chmodSync(binary, 0o755);
    }
    execFileSync(binary, ["--version"], { stdio: "ignore" });
    return binary;
  } catch (thrown) {
    process.stdout.write(`authzen  without Cerbos, no ratio: ${String(thrown).slice(0, 200)}\n`);
    return undefined;
  }
}

export interface RunningAgentid {
  readonly doors: readonly [tls: Contender, socket: Contender];
  readonly credentials: Tls;
  /** Entries of the record. */
  recorded(): number;
  stop(): void;
}

/** The daemon with one rule and both doors; programs of `generator` may ask. */
export async function startAgentid(project: string, generator: string): Promise<RunningAgentid> {
  const port = await freePort();
  mkdirSync(join(project, "policies"), { recursive: true });
  writeFileSync(
    join(project, "agentid.yaml"),
    `trustDomain: bench.local\nidentities:\n  gateway: { exe: ${process.execPath} }\n  generator: { exe: ${generator} }\nauthzen: { listen: "127.0.0.1:${port}", clients: [gateway, generator] }\n`,
  );
  writeFileSync(
    join(project, "policies", "records.yaml"),
    "rules:\n  - { name: reads, allow: { subject: { type: user }, action: read, resource: { type: record } } }\n",
  );
  writeFileSync(
    join(project, "entities.yaml"),
    "entities:\n  - { type: user, id: alice }\n  - { type: record, id: record-1 }\n",
  );
  const command = (...words: string[]) => {
    const [file = "", ...args] = pinned("server", [process.execPath, join(root, "bin", "agentid.js"), ...words]);
    return execFileSync(file, [...args, "--json", "--project", project], { encoding: "utf8" });
  };
  command("up");
  const { workloadApi, authzen, pid } = JSON.parse(command("status")) as Status;
  const source = await createX509Source({ socketPath: workloadApi });
  const { certificates, privateKey } = source.svid();
  const pem = (ders: readonly Uint8Array[]) => ders.map((der) => encodePem("CERTIFICATE", Buffer.from(der))).join("");
  const credentials: Tls = {
    certificate: pem(certificates),
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    authorities: pem(source.bundleFor("bench.local") ?? []),
  };
  source.close();
  const subject = { type: "user", id: "alice", properties: { roles: ["user"] } };
  const body = { subject, action: { name: "read" }, resource: { type: "record", id: "record-1" } };
  const address = `127.0.0.1:${port}`;
  return {
    doors: [
      {
        ...{ name: "agentid, TLS", pid, network: "tcp", address, tls: credentials },
        request: requestTo(address, body),
      },
      {
        ...{ name: "agentid, socket", pid, network: "unix", address: authzen.socket.replace(/^unix:\/\//, "") },
        request: requestTo("localhost", body),
      },
    ],
    credentials,
    recorded: () => (JSON.parse(command("audit", "verify")) as { entries: number }).entries,
    stop: () => void command("down"),
  };
}

async function answers(open: () => Socket): Promise<void> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    try {
      await new Promise<void>((resolve, reject) => {
        const socket = open()
          .once("error", reject)
          .once("connect", () => {
            socket.destroy();
            resolve();
          });
      });
      return;
    } catch (thrown) {
      if (Date.now() > deadline) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}

function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.once("exit", () => resolve());
    child.kill("SIGTERM");
  });
}
