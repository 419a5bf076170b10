import { closeSync, openSync, readlinkSync, realpathSync } from "node:fs";
import { isIPv4, type Socket } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { CodedError } from "../../src/coded-error.js";
import { linux } from "../../src/platform/linux.js";
import { withoutIpv4Mapping } from "../../src/platform/linux-proc-text.js";
import { socketByEnds } from "../../src/platform/linux-socket-diag.js";
import { socketInTable } from "../../src/platform/linux-tcp-owner.js";
import {
  atEnd,
  CONNECTOR,
  cleanUp,
  descriptorOf,
  listen,
  start,
  temporaryFolder,
  until,
} from "../attestation/processes.js";

afterEach(cleanUp);

describe.runIf(process.platform === "linux")("a process held by handles", () => {
  test("tells its status, executable, command line and working directory", () => {
    const folder = temporaryFolder();
    const sleeper = start("sleep", ["60"], { cwd: folder });
    const handle = linux.openProcess({ pid: sleeper.pid });
    atEnd(() => handle.close());
    const status = handle.status();
    expect(status).toMatchObject({ parentPid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
    expect(status.execGeneration).toMatch(/^\d+:\d+$/);
    const executable = handle.openExecutable();
    expect(executable?.path).toBe(readlinkSync(`/proc/${sleeper.pid}/exe`));
    if (executable !== undefined) closeSync(executable.fd);
    expect(handle.commandLine()).toEqual(["sleep", "60"]);
    expect(handle.workingDirectory()).toBe(realpathSync(folder));
  });

  test("is gone for ever once it has exited", async () => {
    const sleeper = start("sleep", ["60"]);
    const handle = linux.openProcess({ pid: sleeper.pid });
    atEnd(() => handle.close());
    const program = handle.holdProgram();
    expect([handle.isAlive(), program?.isCurrent()]).toEqual([true, true]);
    sleeper.process.kill("SIGKILL");
    await sleeper.exited();
    expect([handle.isAlive(), program?.isCurrent()]).toEqual([false, false]);
    expect(() => handle.status()).toThrow(CodedError);
    expect(() => linux.openProcess({ pid: sleeper.pid })).toThrow(expect.objectContaining({ code: "process-gone" }));
  });

  test("shows an execve of the very same program in generation and memory image", async () => {
    const shell = start("bash", ["-c", "read; exec bash -c 'echo again; read'"]);
    const handle = linux.openProcess({ pid: shell.pid });
    atEnd(() => handle.close());
    await until(() => handle.commandLine()[2]?.startsWith("read; exec") === true, "the shell runs");
    const program = handle.holdProgram();
    const before = handle.status();
    expect(handle.status()).toEqual(before);
    expect(program?.isCurrent()).toBe(true);
    shell.tell("");
    await shell.line();
    const after = handle.status();
    expect(after.startTime).toBe(before.startTime);
    expect(after.execGeneration).not.toBe(before.execGeneration);
    expect(program?.isCurrent()).toBe(false);
    expect(handle.holdProgram()?.isCurrent()).toBe(true);
  });
});

describe.runIf(process.platform === "linux")("the kernel's word on connections", () => {
  test("a Unix socket's peer comes with a pidfd from the socket itself", async () => {
    const listening = await listen({ path: `${temporaryFolder()}/s` });
    const child = start(process.execPath, ["-e", CONNECTOR, listening.address]);
    const socket = await listening.accepted();
    const peer = linux.peerOfUnixSocket(descriptorOf(socket));
    expect(peer).toMatchObject({
      pid: child.pid,
      uid: process.getuid?.(),
      gid: process.getgid?.(),
      pidfdFromSocket: true,
    });
    linux.openProcess(peer).close();
  });

  test("a peer that has exited is gone, not somebody else", async () => {
    const listening = await listen({ path: `${temporaryFolder()}/s` });
    const child = start(process.execPath, ["-e", CONNECTOR, listening.address]);
    const socket = await listening.accepted();
    child.process.kill("SIGKILL");
    await child.exited();
    expect(() => linux.openProcess(linux.peerOfUnixSocket(descriptorOf(socket)))).toThrow(
      expect.objectContaining({ code: "process-gone" }),
    );
  });

  test("a descriptor that is no Unix socket has no peer", async () => {
    const file = openSync("/dev/null", "r");
    atEnd(() => closeSync(file));
    expect(() => linux.peerOfUnixSocket(file)).toThrow(expect.objectContaining({ code: "peer-unknown" }));
  });

  test.each(["127.0.0.1", "::1", "::ffff:127.0.0.1"])(
    "the process at the other end of a TCP connection to %s",
    async (host) => {
      const listening = await listen({ host: host.startsWith("::") ? "::" : host, port: 0 });
      const child = start(process.execPath, ["-e", CONNECTOR, String(listening.port), host.replace("::ffff:", "")]);
      const socket = await listening.accepted();
      const endpoints = {
        client: { address: socket.remoteAddress ?? "", port: socket.remotePort ?? 0 },
        server: { address: socket.localAddress ?? "", port: socket.localPort ?? 0 },
      };
      expect(await linux.ownerOfTcpConnection(endpoints, [])).toMatchObject({ kind: "process", pid: child.pid });
      await child.line();
      child.tell("share");
      await child.line();
      const held = await linux.ownerOfTcpConnection(endpoints, [process.pid, child.pid]);
      expect(held).toMatchObject({ kind: "held", pid: child.pid });
      expect(held.kind === "held" && (await held.owner)).toMatchObject({ kind: "shared" });
      expect(await linux.ownerOfTcpConnection(endpoints, [process.pid])).toMatchObject({ kind: "shared" });
      // The two ways of asking for the socket agree.
      const plain = {
        client: { ...endpoints.client, address: withoutIpv4Mapping(endpoints.client.address) },
        server: { ...endpoints.server, address: withoutIpv4Mapping(endpoints.server.address) },
      };
      const isV4 = isIPv4(plain.client.address);
      const found = socketByEnds(plain, isV4 ? 4 : 6);
      expect(found).toMatchObject({ uid: process.getuid?.() });
      expect(await socketInTable(plain, isV4)).toEqual(found);
      const swapped = { client: endpoints.client, server: { ...endpoints.server, port: 1 } };
      expect(await linux.ownerOfTcpConnection(swapped, [])).toMatchObject({ kind: "unknown" });
    },
  );

  test("connections asked for at the same time are each told their own process", async () => {
    const listening = await listen({ host: "127.0.0.1", port: 0 });
    const children = [0, 1, 2].map(() => start(process.execPath, ["-e", CONNECTOR, String(listening.port)]));
    const sockets = await Promise.all(children.map(() => listening.accepted()));
    const ask = (socket: Socket) =>
      linux.ownerOfTcpConnection(
        {
          client: { address: socket.remoteAddress ?? "", port: socket.remotePort ?? 0 },
          server: { address: socket.localAddress ?? "", port: socket.localPort ?? 0 },
        },
        [],
      );
    const owners = await Promise.all([...sockets, ...sockets].map(ask));
    const found = owners.map((owner) => (owner.kind === "process" ? owner.pid : 0));
    expect(found.slice(0, 3)).toEqual(found.slice(3));
    expect(new Set(found)).toEqual(new Set(children.map(({ pid }) => pid)));
  });

  test("the chain of parents ends at the first process", () => {
    const chain = linux.ancestors(process.pid);
    expect(chain[0]?.pid).toBe(process.ppid);
    expect(
      chain.every((ancestor, index) => index === 0 || ancestor.startTime <= (chain[index - 1]?.startTime ?? 0n)),
    ).toBe(true);
  });
});
