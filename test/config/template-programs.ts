import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer as createHttpServer, type RequestListener } from "node:http";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";

export const templates = fileURLToPath(new URL("../../templates/", import.meta.url));

/** Only what a program needs to start: no proxy, no variable of the machine. */
const environment = { PATH: process.env.PATH };

export interface StartedService {
  /** Base URL of a loopback port that leads to the service's Unix socket. */
  readonly url: string;
  /** Ends it as agentid would; its exit code. */
  stop(): Promise<number | null>;
}

/** Starts a template's service as agentid does: a Unix socket of its own in AGENTID_LISTEN. */
export async function startService(program: string): Promise<StartedService> {
  const directory = await mkdtemp(join(tmpdir(), "agentid-service-"));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const socket = join(directory, "s.sock");
  const service = spawn(process.execPath, [join(templates, program)], {
    env: { ...environment, AGENTID_LISTEN: socket },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(service, "exit");
  onTestFinished(() => {
    service.kill("SIGKILL");
  });
  await Promise.race([once(service.stdout, "data"), ended.then(() => Promise.reject(new Error(`${program} ended`)))]);

  const bridge = createServer((near) => {
    const far = connect(socket);
    near.pipe(far).pipe(near);
    near.on("error", () => far.destroy());
    far.on("error", () => near.destroy());
  });
  bridge.listen(0, "127.0.0.1");
  await once(bridge, "listening");
  onTestFinished(() => {
    bridge.close();
  });
  return {
    url: `http://127.0.0.1:${(bridge.address() as AddressInfo).port}`,
    async stop() {
      service.kill("SIGTERM");
      const [code] = (await ended) as [number | null];
      return code;
    },
  };
}

/** Something that answers in the relay's place. */
export async function answering(listener: RequestListener): Promise<string> {
  const server = createHttpServer(listener);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a template's agent to its end. */
export function runAgent(command: string, program: string, env: Readonly<Record<string, string>>): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(
      command,
      [join(templates, program)],
      { env: { ...environment, ...env }, timeout: 20_000 },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
        resolve({ code, stdout, stderr });
      },
    );
  });
}
