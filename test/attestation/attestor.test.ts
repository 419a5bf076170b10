import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { createCallerAttestor } from "../../src/attestation/attestor.js";
import type { Caller } from "../../src/attestation/caller.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { createLaunchRegistry } from "../../src/attestation/launches.js";
import { selectorsOf } from "../../src/attestation/selectors.js";
import { linux } from "../../src/platform/linux.js";
import {
  type Accepting,
  atEnd,
  CONNECTOR,
  cleanUp,
  descriptorOf,
  listen,
  start,
  type Told,
  temporaryFolder,
} from "./processes.js";

afterEach(cleanUp);

const sha256 = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");
const nodeDigest = sha256(process.execPath);

function attestor() {
  const digests = executableDigests();
  const launches = createLaunchRegistry({ platform: linux, digests });
  atEnd(() => launches.close());
  return createCallerAttestor({ platform: linux, launches, digests });
}

async function connected(listening: Accepting, uid?: number): Promise<{ child: Told; fd: number }> {
  const to = listening.address === "" ? String(listening.port) : listening.address;
  const child = start(process.execPath, ["-e", CONNECTOR, to], uid === undefined ? {} : { uid, gid: uid });
  const socket = await listening.accepted();
  await child.line();
  return { child, fd: descriptorOf(socket) };
}

async function attested(fd: number): Promise<Caller> {
  const caller = await attestor().ofUnixSocket(fd);
  atEnd(() => caller.close());
  return caller;
}

describe.runIf(process.platform === "linux")("a Unix socket's peer", () => {
  test("is known by the kernel's word, in SPIRE's selectors", async () => {
    const { child, fd } = await connected(await listen({ path: join(temporaryFolder(), "s") }));
    const caller = await attested(fd);
    expect(caller.facts).toMatchObject({
      pid: child.pid,
      exePath: process.execPath,
      exeSha256: nodeDigest,
      evidence: "kernel",
    });
    expect(
      ["user", "group", "exePath", "exeSha256", "execGeneration"].filter((fact) => fact in caller.facts.missing),
    ).toEqual([]);
    expect(caller.launch).toBeUndefined();
    expect(selectorsOf(caller.facts)).toEqual(
      expect.arrayContaining([
        `unix:uid:${process.getuid?.()}`,
        `unix:gid:${process.getgid?.()}`,
        `unix:path:${process.execPath}`,
        `unix:sha256:${nodeDigest}`,
      ]),
    );
    caller.recheck();
  });

  test("that executes another program after connecting is not the caller any more", async () => {
    const { child, fd } = await connected(await listen({ path: join(temporaryFolder(), "s") }));
    const caller = await attested(fd);
    caller.recheck();
    child.tell("exec /usr/bin/tail -f /etc/passwd");
    await child.line();
    expect(() => caller.recheck()).toThrow(expect.objectContaining({ code: "process-changed" }));
  });

  test("that executes the same program again is not the caller any more", async () => {
    const { child, fd } = await connected(await listen({ path: join(temporaryFolder(), "s") }));
    const caller = await attested(fd);
    child.tell(`exec ${process.execPath} -e console.log(1);setTimeout(()=>{},60000)`);
    await child.line();
    expect(() => caller.recheck()).toThrow(expect.objectContaining({ code: "process-changed" }));
  });

  test("that has exited is gone", async () => {
    const { child, fd } = await connected(await listen({ path: join(temporaryFolder(), "s") }));
    const caller = await attested(fd);
    child.tell("exit");
    await child.exited();
    expect(() => caller.recheck()).toThrow(expect.objectContaining({ code: "process-gone" }));
    await expect(attested(fd)).rejects.toMatchObject({ code: "process-gone" });
  });

  test.runIf(process.getuid?.() === 0)(
    "of another user has that user's selectors, and loses its connection's word when it changes user",
    async () => {
      const folder = temporaryFolder();
      chmodSync(folder, 0o755);
      const listening = await listen({ path: join(folder, "s") });
      chmodSync(listening.address, 0o777);
      const other = await connected(listening, 65534);
      const caller = await attested(other.fd);
      expect(selectorsOf(caller.facts)).toEqual(
        expect.arrayContaining(["unix:uid:65534", "unix:user:nobody", "unix:gid:65534"]),
      );
      const changing = await connected(listening);
      const before = await attested(changing.fd);
      changing.child.tell("setuid");
      await changing.child.line();
      expect(() => before.recheck()).toThrow(expect.objectContaining({ code: "process-changed" }));
      await expect(attested(changing.fd)).rejects.toMatchObject({ code: "process-changed" });
    },
  );

  test("whose executable was replaced keeps its digest and loses its path", async () => {
    const folder = temporaryFolder();
    const copy = join(folder, "sleeping");
    copyFileSync("/bin/sleep", copy);
    const child = start(copy, ["60"]);
    const before = await attestor().ofPid(child.pid);
    expect(before.facts.exePath).toBe(copy);
    before.close();
    copyFileSync("/bin/sleep", `${copy}.new`);
    renameSync(`${copy}.new`, copy);
    const after = await attestor().ofPid(child.pid);
    atEnd(() => after.close());
    expect(after.facts).toMatchObject({ exePath: undefined, exeSha256: sha256("/bin/sleep") });
    expect(after.facts.missing.exePath).toContain("another file");
  });
});

describe.runIf(process.platform === "linux")("the client end of a TCP connection", () => {
  test("names its process; a shared one names nobody", async () => {
    const listening = await listen({ host: "127.0.0.1", port: 0 });
    const child = start(process.execPath, ["-e", CONNECTOR, String(listening.port)]);
    const socket = await listening.accepted();
    await child.line();
    const endpoints = {
      client: { address: socket.remoteAddress ?? "", port: socket.remotePort ?? 0 },
      server: { address: socket.localAddress ?? "", port: socket.localPort ?? 0 },
    };
    const caller = await attestor().ofTcpConnection(endpoints);
    if ("nobody" in caller) throw new Error(caller.reason);
    atEnd(() => caller.close());
    expect(caller.facts).toMatchObject({ pid: child.pid, exeSha256: nodeDigest });
    child.tell("share");
    await child.line();
    expect(await attestor().ofTcpConnection(endpoints)).toMatchObject({
      nobody: true,
      reason: expect.stringContaining("several"),
    });
    const elsewhere = { client: endpoints.client, server: { ...endpoints.server, port: 1 } };
    expect(await attestor().ofTcpConnection(elsewhere)).toMatchObject({ nobody: true });
  });
});
