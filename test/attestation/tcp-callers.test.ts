import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { createCallerAttestor } from "../../src/attestation/attestor.js";
import type { Caller, Nobody } from "../../src/attestation/caller.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { createLaunchRegistry, type LaunchRegistry } from "../../src/attestation/launches.js";
import { linux } from "../../src/platform/linux.js";
import {
  atEnd,
  cleanUp,
  descriptorOf,
  isRoot,
  listen,
  obeying,
  PYTHON,
  start,
  startTold,
  TOLD,
  temporaryFolder,
  until,
} from "./processes.js";

afterEach(cleanUp);

const digests = executableDigests();

function parts() {
  const launches = createLaunchRegistry({ platform: linux, digests });
  atEnd(() => launches.close());
  return { launches, attestor: createCallerAttestor({ platform: linux, launches, digests }) };
}

function endpointsOf(socket: Socket) {
  return {
    client: { address: socket.remoteAddress ?? "", port: socket.remotePort ?? 0 },
    server: { address: socket.localAddress ?? "", port: socket.localPort ?? 0 },
    accepted: descriptorOf(socket),
  };
}

function held<Answer extends Caller | Nobody>(answer: Answer): Answer {
  if (!("nobody" in answer)) atEnd(() => answer.close());
  return answer;
}

const pidOf = (answer: Caller | Nobody): number | string => ("nobody" in answer ? answer.reason : answer.facts.pid);

describe.runIf(process.platform === "linux")("the owner of a TCP connection", () => {
  test("is found when an IPv6 socket speaks IPv4, as Java's do", async () => {
    const { attestor } = parts();
    for (const host of ["127.0.0.1", "::"]) {
      const listening = await listen({ host, port: 0 });
      const client = startTold();
      await client.does(`tcp 6 ::ffff:127.0.0.1 ${listening.port}`);
      const answer = held(await attestor.ofTcpConnection(endpointsOf(await listening.accepted())));
      expect(pidOf(answer)).toBe(client.pid);
    }
  });

  test("is found when it is Java", async () => {
    const java = ["/usr/lib/jvm/temurin-25-jdk-amd64/bin/java", "/usr/bin/java"].find(existsSync);
    const program = join(temporaryFolder(), "Client.java");
    writeFileSync(
      program,
      `public class Client { public static void main(String[] a) throws Exception {
         var s = new java.net.Socket("127.0.0.1", Integer.parseInt(a[0])); System.out.println("connected"); s.getInputStream().read(); } }`,
    );
    if (
      java === undefined ||
      spawnSync(java, ["--list-modules"], { encoding: "utf8" }).stdout.match(/jdk.compiler/) === null
    ) {
      process.stderr.write("SKIPPED: no JDK here to start a Java client with\n");
      return;
    }
    const listening = await listen({ host: "127.0.0.1", port: 0 });
    const client = start(java, [program, String(listening.port)]);
    await client.line();
    const answer = held(await parts().attestor.ofTcpConnection(endpointsOf(await listening.accepted())));
    expect(answer).toMatchObject({ facts: { pid: client.pid, exePath: realpathSync(java) } });
  }, 30_000);

  test("is nobody for a connection that was reset, also when another process has one between the same ends by now", async () => {
    const { attestor } = parts();
    const listening = await listen({ host: "127.0.0.1", port: 0 });
    const first = startTold();
    await first.does(`tcp 4 127.0.0.1 ${listening.port}`);
    const before = await listening.accepted();
    const endpoints = endpointsOf(before);
    expect(pidOf(held(await attestor.ofTcpConnection(endpoints)))).toBe(first.pid);
    await first.does("send asked-by-the-first");
    await first.does("close"); // with a reset: the port is free at once
    const second = startTold();
    expect(await second.does(`tcp 4 127.0.0.1 ${listening.port} ${endpoints.client.port}`)).toBe("done");
    const after = endpointsOf(await listening.accepted());
    expect(after.client).toEqual(endpoints.client);
    expect(pidOf(held(await attestor.ofTcpConnection(after)))).toBe(second.pid);
    // What the first had sent can still be read; it is not the second's.
    expect(pidOf(await attestor.ofTcpConnection(endpoints))).toContain("not in the kernel's socket table");
  });

  test("is never another process, however quickly the port changes hands while it is looked for", async () => {
    const { attestor } = parts();
    const listening = await listen({ host: "127.0.0.1", port: 0 });
    const tellers = [startTold(), startTold()] as const;
    const [one, other] = tellers;
    await one.does(`tcp 4 127.0.0.1 ${listening.port}`);
    let current = await listening.accepted();
    const port = current.remotePort;
    let holder = one;
    for (let round = 0; round < 60; round += 1) {
      const next = holder === one ? other : one;
      const endpoints = endpointsOf(current);
      const asking = attestor.ofTcpConnection(endpoints);
      // The port changes hands at another moment of the search in each round.
      for (let turn = 0; turn < round % 6; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      await holder.does("close");
      expect(await next.does(`tcp 4 127.0.0.1 ${listening.port} ${port}`)).toBe("done");
      const answer = held(await asking);
      if (!("nobody" in answer)) expect(answer.facts.pid).toBe(holder.pid);
      current = await listening.accepted();
      // The control: between the changes the holder is found.
      expect(pidOf(held(await attestor.ofTcpConnection(endpointsOf(current))))).toBe(next.pid);
      holder = next;
    }
  }, 60_000);

  test.runIf(isRoot)("is unknown for a connection of another network namespace", async () => {
    const [port, source] = [45_123, 45_124];
    const inside = obeying(start("unshare", ["-n", "sh", "-c", `ip link set lo up && exec ${PYTHON} ${TOLD}`]));
    expect(await inside.does(`listen ${port} ${source}`)).toBe("done");
    const ends = { client: { address: "127.0.0.1", port: source }, server: { address: "127.0.0.1", port } };
    expect(readFileSync(`/proc/${inside.pid}/net/tcp`, "latin1")).toMatch(/ 0100007F:B044 0100007F:B043 01 /);
    expect(await linux.ownerOfTcpConnection(ends, [])).toMatchObject({ kind: "unknown" });
    // It cannot reach our loopback either; the control: the same program without a namespace of its own.
    const listening = await listen({ host: "127.0.0.1", port: 0 });
    expect(await inside.does(`tcp 4 127.0.0.1 ${listening.port}`)).toContain("failed");
    const here = startTold();
    expect(await here.does(`tcp 4 127.0.0.1 ${listening.port}`)).toBe("done");
    expect(pidOf(held(await parts().attestor.ofTcpConnection(endpointsOf(await listening.accepted()))))).toBe(here.pid);
  });

  test("is nobody once a second process holds the connection, and a process that has it alone again is found", async () => {
    const folder = temporaryFolder();
    const { attestor } = parts();
    const listening = await listen({ host: "127.0.0.1", port: 0 });
    const [opener, receiver] = [startTold(), startTold()];
    await opener.does(`tcp 4 127.0.0.1 ${listening.port}`);
    const endpoints = endpointsOf(await listening.accepted());
    expect(pidOf(held(await attestor.ofTcpConnection(endpoints)))).toBe(opener.pid);
    await receiver.does(`take ${folder}/hand`);
    await opener.does(`give ${folder}/hand`);
    await receiver.line();
    const shared = await attestor.ofTcpConnection(endpoints);
    expect(shared).toMatchObject({ nobody: true, reason: expect.stringContaining("several") });
    for (const { pid } of [opener, receiver]) expect(pidOf(shared)).toContain(String(pid));
    await opener.does("close");
    expect(pidOf(held(await attestor.ofTcpConnection(endpoints)))).toBe(receiver.pid);
  });
});

describe.runIf(process.platform === "linux")("a launched process", () => {
  /** Launches programs/told.py as an identity through a shell that may prepare something first. */
  async function launched(launches: LaunchRegistry, before = "") {
    const exePath = realpathSync(PYTHON);
    const exeSha256 = (await digests.digestOf(await openedExecutable(exePath))) ?? "";
    const process = obeying(start("sh", ["-c", `${before} read go; exec ${PYTHON} ${TOLD}`]));
    await until(() => linux.openProcess({ pid: process.pid }).commandLine()[0] === "sh", "the shell runs");
    const handle = linux.openProcess({ pid: process.pid });
    const { startTime, execGeneration } = handle.status();
    handle.close();
    launches.begin({
      launcher: { pid: process.pid, startTime, execGeneration },
      name: "agents/billing",
      instance: undefined,
      launchedBy: [],
      descendants: false,
      expected: { exePath, exeSha256, argv: [PYTHON, TOLD], workingDirectory: globalThis.process.cwd(), files: [] },
    });
    process.tell("go");
    await until(() => launches.runningPids("agents/billing").includes(process.pid), "the launch runs");
    return { ...process, startTime };
  }

  async function openedExecutable(path: string) {
    const { open } = await import("node:fs/promises");
    const file = await open(path, "r");
    atEnd(() => file.close());
    return { fd: file.fd, timesShowWrites: true };
  }

  test("is found while it alone holds the connection, and is nobody once a child has it too", async () => {
    const { launches, attestor } = parts();
    const agent = await launched(launches);
    const listening = await listen({ host: "127.0.0.1", port: 0 });
    await agent.does(`tcp 4 127.0.0.1 ${listening.port}`);
    const endpoints = endpointsOf(await listening.accepted());
    const answer = held(await attestor.ofTcpConnection(endpoints));
    expect(answer).toMatchObject({ launch: { name: "agents/billing" }, facts: { pid: agent.pid } });
    // Its child has the connection too: then it proves nothing.
    await agent.does("child");
    expect(await attestor.ofTcpConnection(endpoints)).toMatchObject({
      nobody: true,
      reason: expect.stringContaining("several"),
    });
  });

  test("is nobody once an orphan of its own making has the connection too", async () => {
    const { launches, attestor } = parts();
    const agent = await launched(launches);
    const listening = await listen({ host: "127.0.0.1", port: 0 });
    await agent.does(`tcp 4 127.0.0.1 ${listening.port}`);
    const endpoints = endpointsOf(await listening.accepted());
    expect(held(await attestor.ofTcpConnection(endpoints))).toMatchObject({ launch: { name: "agents/billing" } });
    const orphan = Number(await agent.does("orphan"));
    atEnd(() => void process.kill(orphan, "SIGKILL"));
    await until(() => linux.ancestors(orphan).every(({ pid }) => pid !== agent.pid), "adoption");
    const shared = await attestor.ofTcpConnection(endpoints);
    expect(shared).toMatchObject({ nobody: true, reason: expect.stringContaining("several") });
    for (const pid of [agent.pid, orphan]) expect(pidOf(shared)).toContain(String(pid));
    // The connection that it makes afterwards is its own again.
    await agent.does(`tcp 4 127.0.0.1 ${listening.port}`);
    const own = endpointsOf(await listening.accepted());
    expect(held(await attestor.ofTcpConnection(own))).toMatchObject({ launch: { name: "agents/billing" } });
  });

  test("is nobody once it has handed its connection on, until one of the two lets go", async () => {
    const folder = temporaryFolder();
    const { launches, attestor } = parts();
    const agent = await launched(launches);
    const receiver = startTold();
    const listening = await listen({ host: "127.0.0.1", port: 0 });
    await agent.does(`tcp 4 127.0.0.1 ${listening.port}`);
    const endpoints = endpointsOf(await listening.accepted());
    await receiver.does(`take ${folder}/hand`);
    await agent.does(`give ${folder}/hand`);
    await receiver.line();
    expect(await attestor.ofTcpConnection(endpoints)).toMatchObject({
      nobody: true,
      reason: expect.stringContaining("several"),
    });
    // Once it has let go, the connection is the receiver's, who has no launch.
    await agent.does("close");
    expect(held(await attestor.ofTcpConnection(endpoints))).toMatchObject({
      launch: undefined,
      facts: { pid: receiver.pid },
    });
  });

  test("is nobody while a thread elsewhere keeps the connection in a descriptor table of its own", async () => {
    const folder = temporaryFolder();
    const { launches, attestor } = parts();
    const agent = await launched(launches);
    const receiver = startTold();
    const listening = await listen({ host: "127.0.0.1", port: 0 });
    await agent.does(`tcp 4 127.0.0.1 ${listening.port}`);
    const endpoints = endpointsOf(await listening.accepted());
    await receiver.does(`take ${folder}/hand`);
    await agent.does(`give ${folder}/hand`);
    await receiver.line();
    await receiver.does("apart");
    await receiver.does("close"); // by the table that /proc/PID/fd shows
    const shared = await attestor.ofTcpConnection(endpoints);
    expect(shared).toMatchObject({ nobody: true, reason: expect.stringContaining("several") });
    for (const { pid } of [agent, receiver]) expect(pidOf(shared)).toContain(String(pid));
    // The control: without that thread the agent has it alone.
    process.kill(receiver.pid, "SIGKILL");
    await until(() => !/^\d+ \(.*\) [^Z]/.test(statOf(receiver.pid)), "the receiver has ended");
    expect(held(await attestor.ofTcpConnection(endpoints))).toMatchObject({ launch: { name: "agents/billing" } });
  });

  test("is nobody although the other holder has it far above its other descriptors", async () => {
    const folder = temporaryFolder();
    const { launches, attestor } = parts();
    const agent = await launched(launches);
    const receiver = startTold();
    const listening = await listen({ host: "127.0.0.1", port: 0 });
    await agent.does(`tcp 4 127.0.0.1 ${listening.port}`);
    const endpoints = endpointsOf(await listening.accepted());
    await receiver.does(`take ${folder}/hand`);
    await agent.does(`give ${folder}/hand`);
    await receiver.line();
    for (const fd of [30, 900]) {
      await receiver.does(`high ${fd}`);
      expect(await attestor.ofTcpConnection(endpoints)).toMatchObject({
        nobody: true,
        reason: expect.stringContaining("several"),
      });
    }
    await receiver.does("close");
    expect(held(await attestor.ofTcpConnection(endpoints))).toMatchObject({ launch: { name: "agents/billing" } });
  });

  test("does not answer for a socket that it was given before its program began", async () => {
    const { launches, attestor } = parts();
    const listening = await listen({ host: "127.0.0.1", port: 0 });
    // The liar makes a socket, starts the agent with it, and connects it itself when the agent has its identity.
    const exePath = realpathSync(PYTHON);
    const liar = startTold();
    await liar.does("make");
    const agentPid = Number(
      await liar.does(`spawn /bin/sh -c kill\${IFS}-STOP\${IFS}$$;exec\${IFS}${PYTHON}\${IFS}${TOLD}`),
    );
    await until(() => /\(sh\) T/.test(statOf(agentPid)), "the launcher waits");
    const handle = linux.openProcess({ pid: agentPid });
    const { startTime, execGeneration } = handle.status();
    handle.close();
    launches.begin({
      launcher: { pid: agentPid, startTime, execGeneration },
      name: "agents/billing",
      instance: undefined,
      launchedBy: [],
      descendants: false,
      expected: {
        exePath,
        exeSha256: (await digests.digestOf(await openedExecutable(exePath))) ?? "",
        argv: [PYTHON, TOLD],
        workingDirectory: globalThis.process.cwd(),
        files: [],
      },
    });
    process.kill(agentPid, "SIGCONT");
    atEnd(() => {
      process.kill(agentPid, "SIGKILL");
    });
    await until(() => launches.runningPids("agents/billing").includes(agentPid), "the launch runs");
    await liar.does(`join ${listening.port}`);
    const endpoints = endpointsOf(await listening.accepted());
    expect(await attestor.ofTcpConnection(endpoints)).toMatchObject({
      nobody: true,
      reason: expect.stringContaining("several"),
    });
    // The control: without the liar's descriptor it is the agent's.
    await liar.does("close");
    expect(held(await attestor.ofTcpConnection(endpoints))).toMatchObject({ launch: { name: "agents/billing" } });
  });
});

function statOf(pid: number): string {
  const { stdout } = spawnSync("cat", [`/proc/${pid}/stat`], { encoding: "utf8" });
  return stdout;
}
