import { spawnSync } from "node:child_process";
import { fstatSync, mkdirSync, readdirSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { createCallerAttestor } from "../../src/attestation/attestor.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { createLaunchRegistry } from "../../src/attestation/launches.js";
import { loadConfig } from "../../src/config/load.js";
import { createSandboxes, type SandboxedLaunch } from "../../src/daemon/sandboxes.js";
import { linux } from "../../src/platform/linux.js";
import type { Platform } from "../../src/platform/platform.js";
import { INSIDE } from "../../src/sandbox/view.js";
import { atEnd, cleanUp, start, temporaryFolder, until } from "../attestation/processes.js";

afterEach(cleanUp);

const PORT = 4711;
/** Holds its own script open and goes through the door with what it is told. */
const VISITOR = `
const fd = require("node:fs").openSync(process.argv[1]);
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const socket = require("node:net").connect(process.argv[2], () => socket.write(line.replace("HELD", fd) + "\\n"));
  socket.on("error", () => {}).on("close", () => console.log("gone"));
  socket.setEncoding("utf8").on("data", (text) => console.log(text.trim()));
});
`;
const canUnshare = spawnSync("unshare", ["-Urn", "true"]).status === 0;
if (!canUnshare) process.stderr.write("SKIPPED: no namespaces here\n");

/** Everything is real but the walls, which other tests build: here they are believed to stand. */
const walled: Platform = {
  ...linux,
  confinementOf: (pid) => ({
    ...linux.confinementOf(pid),
    apart: new Set(["user", "mnt", "pid", "net", "ipc"]),
    noNewPrivileges: true,
    powerless: true,
    filtered: true,
    sees: () => false,
  }),
};

async function prepared(
  platform: Platform = linux,
  {
    relay,
    refused,
    meanwhile,
  }: Partial<{ relay: readonly number[]; refused: (reason: string) => void; meanwhile: () => Promise<void> }> = {},
) {
  const folder = temporaryFolder();
  const visitor = join(folder, "visitor.js");
  mkdirSync(join(folder, "policies"));
  writeFileSync(visitor, VISITOR);
  const command = JSON.stringify([process.execPath, "visitor.js"]);
  const entry = `{ launch: { command: ${command}, sandbox: {} } }`;
  writeFileSync(join(folder, "agentid.yaml"), `trustDomain: shop.local\nidentities:\n  agents/one: ${entry}\n`);
  const config = await loadConfig(join(folder, "agentid.yaml"));
  const wanted = config.identities[0]?.launch;
  if (wanted === undefined) throw new Error("no launch");
  const digests = executableDigests();
  const launches = createLaunchRegistry({ platform, digests });
  atEnd(() => launches.close());
  const networks = new Set<string>();
  const runtime = join(folder, "runtime");
  mkdirSync(runtime);
  const sandboxes = createSandboxes({
    platform,
    attestor: createCallerAttestor({ platform, launches, digests }),
    launches,
    relay: { ports: () => relay ?? [], listenInside: () => async () => {} },
    networks,
    config: () => config,
    runtimeDirectory: runtime,
    stateDirectory: join(folder, "state"),
    workloadApi: join(folder, "workload"),
    environment: { HOME: folder },
    refusedInside: () => {},
  });
  atEnd(() => sandboxes.close());
  const self = linux.openProcess({ pid: process.pid });
  const { startTime } = self.status();
  self.close();
  const reasons: string[] = [];
  const launch: SandboxedLaunch = {
    asker: { pid: process.pid, startTime },
    granted: { name: "agents/one", instance: undefined, launchedBy: [] },
    descendants: false,
    launch: wanted,
    executable: process.execPath,
    files: [],
    async expected() {
      await meanwhile?.();
      const { argv, workingDirectory } = wanted;
      return { exePath: process.execPath, exeSha256: "0".repeat(64), argv, workingDirectory, files: [] };
    },
    record: () => {},
    refused: refused ?? ((reason) => reasons.push(reason)),
    subagents: undefined,
  };
  const { view } = await sandboxes.prepare(launch);
  const mount = view.mounts.find(({ at }) => at === INSIDE.door);
  const door = mount !== undefined && "source" in mount ? mount.source : "";
  const visit = () => start("unshare", ["-Urn", process.execPath, visitor, door]);
  return { sandboxes, networks, reasons, door, visitor, visit };
}

async function knocking(door: string): Promise<Socket> {
  const socket = connect(door);
  atEnd(() => void socket.destroy());
  socket.on("error", () => {});
  await new Promise((resolve) => socket.once("connect", resolve));
  return socket;
}

async function textOf(socket: Socket): Promise<string> {
  let text = "";
  for await (const chunk of socket.setEncoding("utf8")) text += chunk;
  return text;
}

describe.runIf(process.platform === "linux")("the door of a sandbox", () => {
  it("answers with the refusal also when it cannot be recorded", async () => {
    const { door } = await prepared(linux, {
      refused: () => {
        throw new Error("no space left");
      },
    });
    const socket = await knocking(door);
    socket.write('{"listening":[]}\n');
    expect(JSON.parse(await textOf(socket))).toMatchObject({
      refused: expect.stringMatching(/does not descend.*\(not on record: no space left\)/),
    });
  });

  it("waits for nobody who asks nothing, and for few at a time", async () => {
    const { door, reasons } = await prepared();
    const waiting = await Promise.all([1, 2, 3, 4].map(() => knocking(door)));
    expect(await textOf(await knocking(door))).toBe("");
    expect(waiting.map(({ destroyed }) => destroyed)).toEqual([false, false, false, false]);
    for (const text of await Promise.all(waiting.map(textOf))) expect(text).toContain("nothing was asked in time");
    expect(reasons).toHaveLength(4);
  });

  it("lets go of who waits when it is shut", async () => {
    const { door, sandboxes, reasons } = await prepared();
    const socket = await knocking(door);
    const text = textOf(socket);
    await sandboxes.close();
    expect(await text).toBe("");
    await until(() => reasons.length === 1, "refused");
    expect(reasons[0]).toBe("the connection ended before it asked");
  });
});

describe.runIf(canUnshare)("a sandbox, by its network namespace", () => {
  const nameOfNew = (): string =>
    spawnSync("unshare", ["-Urn", "readlink", "/proc/self/ns/net"], { encoding: "utf8" }).stdout.trim();

  it("keeps its name to itself for as long as that is known as inside", async () => {
    const { networks, visit } = await prepared(walled);
    const agent = visit();
    agent.tell('{"listening":[]}');
    expect(JSON.parse(await agent.line())).toMatchObject({ executable: process.execPath });
    const name = readlinkSync(`/proc/${agent.pid}/ns/net`);
    expect([...networks]).toEqual([name]);
    agent.process.kill("SIGKILL");
    await agent.exited();
    // The kernel does give a name again, once nobody holds it.
    const seen = new Set<string>();
    const again = () => {
      const next = nameOfNew();
      if (seen.has(next)) return true;
      seen.add(next);
      return false;
    };
    for (let round = 0; round < 5; round += 1) await until(again, "a name is given again");
    expect([...seen]).not.toContain(name);
    expect([...networks]).toEqual([name]);
  });

  it("lets one process through", async () => {
    const both = Promise.withResolvers<void>();
    let asking = 0;
    const meanwhile = () => {
      asking += 1;
      if (asking === 2) both.resolve();
      return both.promise;
    };
    const { visit, networks, reasons } = await prepared(walled, { meanwhile });
    const agents = [visit(), visit()];
    for (const agent of agents) agent.tell('{"listening":[]}');
    const lines = await Promise.all(agents.map((agent) => agent.line()));
    expect(lines.sort()).toEqual(["gone", expect.stringContaining("executable")]);
    expect(networks.size).toBe(1);
    expect(reasons).toEqual(["the door of this launch is shut"]);
  });

  it("keeps no descriptor of who is refused", async () => {
    const { visit, visitor, reasons } = await prepared(walled, { relay: [PORT] });
    const held = () => readdirSync("/proc/self/fd").filter((fd) => isOpen(Number(fd), visitor)).length;
    const agent = visit();
    agent.tell(`{"listening":[{"port":${PORT},"descriptors":[HELD,9999]}]}`);
    expect(JSON.parse(await agent.line())).toMatchObject({ refused: expect.stringContaining("pidfd_getfd") });
    expect(await agent.line()).toBe("gone");
    expect(reasons).toHaveLength(1);
    expect(held()).toBe(0);
    // Handed over, it would be there: nobody closes it for who takes the listeners.
    agent.tell(`{"listening":[{"port":${PORT},"descriptors":[HELD]}]}`);
    expect(JSON.parse(await agent.line())).toMatchObject({ executable: process.execPath });
    expect(held()).toBe(1);
  });
});

function isOpen(fd: number, path: string): boolean {
  try {
    return fstatSync(fd).ino === statSync(path).ino;
  } catch {
    return false;
  }
}
