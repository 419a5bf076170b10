import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, existsSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
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
  cleanUp,
  descriptorOf,
  isRoot,
  listen,
  NOBODY,
  obeying,
  PYTHON,
  SOMEBODY,
  start,
  startTold,
  TOLD,
  temporaryFolder,
} from "./processes.js";

/*
 * Facts are read through handles that cannot come to mean another process (D5). Each liar here is a real process that does what would fool somebody who
 * reads by number or by path; beside it stands the same question about an honest one.
 */

afterEach(cleanUp);

const digests = executableDigests();
const sha256 = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");
const GONE = expect.objectContaining({ code: "process-gone" });
const CHANGED = expect.objectContaining({ code: "process-changed" });
const CLONE_NEWUSER = "10000000";

function attestor() {
  const launches = createLaunchRegistry({ platform: linux, digests });
  atEnd(() => launches.close());
  return createCallerAttestor({ platform: linux, launches, digests });
}

async function attested(socket: Socket): Promise<Caller> {
  const caller = await attestor().ofUnixSocket(descriptorOf(socket));
  atEnd(() => caller.close());
  return caller;
}

/** A socket that every user may connect to. */
async function openToAll(): Promise<Accepting> {
  const folder = temporaryFolder();
  chmodSync(folder, 0o755);
  const listening = await listen({ path: join(folder, "s") });
  chmodSync(listening.address, 0o777);
  return listening;
}

describe.runIf(process.platform === "linux")("a number that is used again", () => {
  test.runIf(isRoot)("names another process, and neither the connection nor the handle follow it there", async () => {
    const listening = await openToAll();
    const first = startTold();
    await first.does(`connect ${listening.address}`);
    const socket = await listening.accepted();
    const caller = await attested(socket);
    const handle = linux.openProcess({ pid: first.pid });
    atEnd(() => handle.close());
    caller.recheck();
    expect(handle.status().parentPid).toBe(process.pid);

    first.process.kill("SIGKILL");
    await first.exited();
    const maker = startTold();
    expect(await maker.does(`as ${first.pid}`)).toBe(String(first.pid));
    // The control: the number does name a living process, of the same user and the same program.
    const second = await attestor().ofPid(first.pid);
    atEnd(() => second.close());
    expect(second.facts).toMatchObject({ pid: first.pid, uid: caller.facts.uid, exeSha256: caller.facts.exeSha256 });

    expect(() => caller.recheck()).toThrow(GONE);
    expect(handle.isAlive()).toBe(false);
    expect(() => handle.status()).toThrow(GONE);
    expect(() => handle.openExecutable()).toThrow(GONE);
    await expect(attested(socket)).rejects.toEqual(GONE);
  });
});

describe.runIf(process.platform === "linux")("an executable", () => {
  test("that is deleted while it runs has its digest and no path", async () => {
    const copy = join(temporaryFolder(), "sleeping");
    copyFileSync("/bin/sleep", copy);
    const sleeper = start(copy, ["60"]);
    const before = await attestor().ofPid(sleeper.pid);
    expect(before.facts).toMatchObject({ exePath: copy, exeSha256: sha256("/bin/sleep") });
    rmSync(copy);
    before.recheck();
    before.close();
    const after = await attestor().ofPid(sleeper.pid);
    expect(after.facts).toMatchObject({ exePath: undefined, exeSha256: sha256("/bin/sleep") });
    expect(after.facts.missing.exePath).toContain("(deleted)");
    // Another file under the old name is not what runs, and a file that is really called so is not either.
    copyFileSync("/bin/cat", copy);
    copyFileSync("/bin/cat", `${copy} (deleted)`);
    const replaced = await attestor().ofPid(sleeper.pid);
    expect(replaced.facts).toMatchObject({ exePath: undefined, exeSha256: sha256("/bin/sleep") });
    after.close();
    replaced.close();
  });

  test.runIf(isRoot)("has the path that it has here, whatever the process's own mount namespace calls it", async () => {
    const folder = temporaryFolder();
    copyFileSync("/bin/sleep", join(folder, "evil"));
    const [from, to] = [join(folder, "evil"), "/bin/cat"];
    const script = `mount --bind ${from} ${realpathSync(to)} && echo ready && exec ${to} 60`;
    const liar = start("unshare", ["-m", "sh", "-c", script]);
    await liar.line();
    const liarFacts = await expect
      .poll(async () => {
        const caller = await attestor().ofPid(liar.pid);
        caller.close();
        return caller.facts;
      })
      .toMatchObject({ exeSha256: sha256("/bin/sleep") })
      .then(async () => {
        const caller = await attestor().ofPid(liar.pid);
        caller.close();
        return caller.facts;
      });
    expect(liarFacts.exePath).toBeUndefined();
    expect(liarFacts.missing.exePath).toContain("mount namespace");
    const honest = await attestor().ofPid(start("/bin/cat", []).pid);
    atEnd(() => honest.close());
    expect(honest.facts.exePath).toBe(realpathSync("/bin/cat"));
  });

  test("that is too large is absent, and says so", async () => {
    const small = executableDigests({ largestBytes: 10_000 });
    const launches = createLaunchRegistry({ platform: linux, digests: small });
    atEnd(() => launches.close());
    const { pid } = start("sleep", ["60"]);
    const caller = await createCallerAttestor({ platform: linux, launches, digests: small }).ofPid(pid);
    atEnd(() => caller.close());
    expect(caller.facts.exePath).toMatch(/sleep$/);
    expect(caller.facts.exeSha256).toBeUndefined();
    expect(caller.facts.missing.exeSha256).toContain("more than 1 MB are not hashed");
    expect(selectorsOf(caller.facts).some((selector) => selector.startsWith("unix:sha256"))).toBe(false);
  });
});

describe.runIf(process.platform === "linux")("a connection that is handed to another process", () => {
  test("keeps speaking for the process that opened it, and ends with that process's program", async () => {
    const folder = temporaryFolder();
    const listening = await listen({ path: join(folder, "s") });
    const opener = startTold();
    const receiver = startTold();
    await opener.does(`connect ${listening.address}`);
    const socket = await listening.accepted();
    expect(await receiver.does(`take ${folder}/hand`)).toBe("waiting");
    expect(await opener.does(`give ${folder}/hand`)).toBe("done");
    expect(await receiver.line()).toBe("done");
    await opener.does("close");
    // The receiver alone holds it now, and speaks.
    const said = new Promise<string>((resolve) => socket.once("data", (bytes) => resolve(bytes.toString())));
    socket.resume();
    expect(await receiver.does("send hello")).toBe("done");
    expect(await said).toBe("hello");
    const caller = await attested(socket);
    expect(caller.facts.pid).toBe(opener.pid);
    caller.recheck();
    opener.tell("exec /bin/cat");
    await expect.poll(() => thrown(() => caller.recheck())).toEqual(CHANGED);
    opener.process.kill("SIGKILL");
    await opener.exited();
    expect(() => caller.recheck()).toThrow(GONE);
    await expect(attested(socket)).rejects.toEqual(GONE);
  });
});

function thrown(action: () => void): unknown {
  try {
    action();
    return undefined;
  } catch (error) {
    return error;
  }
}

describe.runIf(process.platform === "linux" && isRoot)("another user namespace", () => {
  test("makes nobody root: the user is the one outside", async () => {
    const listening = await openToAll();
    const inside = obeying(
      start("unshare", ["-U", "--map-root-user", PYTHON, TOLD], { uid: NOBODY, gid: NOBODY, cwd: "/" }),
    );
    await inside.does(`connect ${listening.address}`);
    const caller = await attested(await listening.accepted());
    expect(caller.facts).toMatchObject({ pid: inside.pid, uid: NOBODY, gid: NOBODY, user: "nobody" });
    expect(selectorsOf(caller.facts)).not.toContain("unix:uid:0");
    caller.recheck();
  });

  test("lets a process name any file as its executable: such a one has neither path nor digest", async () => {
    const listening = await openToAll();
    const honest = startTold(NOBODY);
    // The control: outside such a namespace the kernel refuses the lie, and the facts are there.
    expect(await honest.does("forge /bin/sleep")).toBe("Operation not permitted");
    await honest.does(`connect ${listening.address}`);
    const truth = await attested(await listening.accepted());
    expect(truth.facts).toMatchObject({ exePath: realpathSync(PYTHON), exeSha256: sha256(PYTHON) });

    const liar = startTold(NOBODY);
    expect(await liar.does(`unshare ${CLONE_NEWUSER}`)).toBe("done");
    expect(await liar.does("forge /bin/sleep")).toBe(realpathSync("/bin/sleep"));
    await liar.does(`connect ${listening.address}`);
    const lie = await attested(await listening.accepted());
    expect(lie.facts).toMatchObject({ pid: liar.pid, uid: NOBODY, exePath: undefined, exeSha256: undefined });
    expect(lie.facts.missing.exeSha256).toContain("user namespace");
    expect(selectorsOf(lie.facts).filter((selector) => /^unix:(path|sha256)/.test(selector))).toEqual([]);
  });
});

describe.runIf(process.platform === "linux" && isRoot)("another PID namespace", () => {
  test("below ours changes nothing: the caller has our number for it", async () => {
    const listening = await openToAll();
    const inside = obeying(start("unshare", ["-p", "-f", "--kill-child", PYTHON, TOLD]));
    await inside.does(`connect ${listening.address}`);
    expect(await inside.does("pid")).toBe("1");
    const caller = await attested(await listening.accepted());
    expect(caller.facts.pid).toBeGreaterThan(inside.pid);
    expect(caller.facts).toMatchObject({ exePath: realpathSync(PYTHON), evidence: "kernel" });
    caller.recheck();
    inside.process.kill("SIGKILL");
    await inside.exited();
  });

  test("above ours, or beside it, is not visible: nobody, and never the process that has the same number here", async () => {
    const folder = temporaryFolder();
    const program = join(folder, "inner.mjs");
    writeFileSync(program, INNER);
    const hooks = new URL("../source-hooks.ts", import.meta.url).href;
    const root = new URL("../../", import.meta.url).href;
    const inner = start("unshare", [
      "-p",
      "-f",
      "--kill-child",
      "--mount-proc",
      process.execPath,
      program,
      hooks,
      root,
      folder,
    ]);
    const { path, port } = JSON.parse(await inner.line());
    const outside = startTold();
    await outside.does(`connect ${path}`);
    expect(JSON.parse(await inner.line())).toMatchObject({ unix: { code: "peer-unknown" } });
    await outside.does(`tcp 4 127.0.0.1 ${port}`);
    expect(JSON.parse(await inner.line())).toMatchObject({ tcp: { nobody: true, uid: 0 } });
    // The control: a process of the inner namespace.
    inner.tell("itself");
    const own = JSON.parse(await inner.line());
    expect(own.unix).toMatchObject({ exe: process.execPath });
    inner.tell("exit");
    await inner.exited();
  });
});

/** A daemon's attestor inside a PID namespace. */
const INNER = `
  const [hooks, root, folder] = process.argv.slice(2);
  await import(hooks);
  const { createCallerAttestor } = await import(root + "src/attestation/attestor.ts");
  const { executableDigests } = await import(root + "src/attestation/hash-cache.ts");
  const { createLaunchRegistry } = await import(root + "src/attestation/launches.ts");
  const { linux: platform } = await import(root + "src/platform/linux.ts");
  const { connect, createServer } = await import("node:net");
  const { once } = await import("node:events");
  const digests = executableDigests();
  const attestor = createCallerAttestor({ platform, digests, launches: createLaunchRegistry({ platform, digests }) });
  const say = (what) => console.log(JSON.stringify(what));
  const unix = createServer({ pauseOnConnect: true }, async (socket) => {
    try {
      const caller = await attestor.ofUnixSocket(socket._handle.fd);
      say({ unix: { pid: caller.facts.pid, exe: caller.facts.exePath } });
    } catch (error) {
      say({ unix: { code: error.code, message: error.message } });
    }
  }).listen(folder + "/inner");
  const tcp = createServer({ pauseOnConnect: true }, async (socket) => {
    const { localAddress, localPort, remoteAddress, remotePort } = socket;
    const client = { address: remoteAddress, port: remotePort };
    const server = { address: localAddress, port: localPort };
    say({ tcp: await attestor.ofTcpConnection({ client, server, accepted: socket._handle.fd }) });
  }).listen(0, "127.0.0.1");
  await Promise.all([once(unix, "listening"), once(tcp, "listening")]);
  say({ path: folder + "/inner", port: tcp.address().port });
  process.stdin.on("data", (line) => {
    if (String(line).trim() === "exit") process.exit(0);
    connect(folder + "/inner");
  });
`;

describe.runIf(process.platform === "linux" && isRoot)("a daemon of an ordinary user", () => {
  test("sees of another user's process who it is, not what it runs; and of its own everything", async () => {
    const folder = temporaryFolder();
    chmodSync(folder, 0o777);
    const program = join(folder, "inner.mjs");
    writeFileSync(program, INNER);
    const hooks = new URL("../source-hooks.ts", import.meta.url).href;
    const root = new URL("../../", import.meta.url).href;
    const options = { uid: SOMEBODY, gid: SOMEBODY, cwd: "/" };
    if (spawnSync(process.execPath, ["-e", ""], options).status !== 0) {
      process.stderr.write("SKIPPED: another user may not run this Node\n");
      return;
    }
    const daemon = start(process.execPath, [program, hooks, root, folder], options);
    const { path, port } = JSON.parse(await daemon.line());
    chmodSync(path, 0o777);
    const other = startTold(NOBODY);
    await other.does(`connect ${path}`);
    expect(JSON.parse(await daemon.line())).toEqual({ unix: { pid: other.pid } });
    await other.does(`tcp 4 127.0.0.1 ${port}`);
    expect(JSON.parse(await daemon.line())).toMatchObject({
      tcp: { nobody: true, uid: NOBODY, reason: expect.stringContaining(`belongs to user ${NOBODY}`) },
    });
    const own = startTold(SOMEBODY);
    await own.does(`connect ${path}`);
    expect(JSON.parse(await daemon.line())).toEqual({ unix: { pid: own.pid, exe: realpathSync(PYTHON) } });
    await own.does(`tcp 4 127.0.0.1 ${port}`);
    expect(JSON.parse(await daemon.line())).toMatchObject({ tcp: {} });
    expect(existsSync(path)).toBe(true);
  });
});
