import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:net";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { giveTo, ordinaryUser, type RunningDev, runtimeBase, startDev } from "./agentid.js";
import { type Attempt, canSandbox, inside, makeSandboxedProject, outside, type Prober } from "./sandboxed.js";

// Each launch starts two Nodes, and most tests several.
vi.setConfig({ testTimeout: 90_000 });

/*
 * For every way out: the attempt by the sandboxed agent fails, and the very same attempt by the very same program of the same user outside succeeds.
 */
describe.skipIf(!canSandbox)("ways out of the sandbox", () => {
  const unixSocket = join("run", "stock.sock");
  const { project, home, secrets } = makeSandboxedProject({ services: `  stock: { http: { unix: ${unixSocket} } }` });
  const closers: (() => unknown)[] = [];
  let dev: RunningDev;
  let agent: Prober;
  let free: Prober;

  beforeAll(async () => {
    mkdirSync(join(project, "run"));
    await listening(join(project, unixSocket));
    giveTo(join(project, "run"));
    copyFileSync(join(import.meta.dirname, "../attestation/programs/told.py"), join(project, "src", "told.py"));
    chmodSync(join(project, "src", "told.py"), 0o644);
    dev = await startDev(project, [], { HOME: home });
    agent = await inside({ project, home });
    free = await outside({ project, home, env: dev.env });
  });
  afterAll(async () => {
    await agent?.end();
    await free?.end();
    await dev?.stop();
    for (const close of closers) close();
  });

  /** A server that accepts at a path (or, with a leading zero byte, an abstract name), for everybody. */
  async function listening(path: string): Promise<Server> {
    const server = createServer((socket) => socket.end());
    if (!path.startsWith("\0")) mkdirSync(dirname(path), { recursive: true, mode: 0o777 });
    server.listen(path);
    await once(server, "listening");
    if (!path.startsWith("\0")) chmodSync(path, 0o777);
    closers.push(() => server.close());
    return server;
  }

  async function onlyOutside(code: string, refusal: RegExp): Promise<{ inside: Attempt; outside: Attempt }> {
    const results = { inside: await agent.attempt(code), outside: await free.attempt(code) };
    expect(results.outside, "outside").toMatchObject({ ok: true });
    expect(results.inside, "inside").toMatchObject({ ok: false });
    expect(results.inside.error).toMatch(refusal);
    return results;
  }

  it("has the identity: its call is allowed and the service learns who called; a child of it has none", async () => {
    const call = `import os, urllib.request\nvalue = urllib.request.urlopen(os.environ["AGENTID_URL_INVOICES"] + "/v1/x", timeout=10).read().decode()`;
    expect(await agent.attempt(call)).toMatchObject({
      ok: true,
      value: expect.stringContaining("URI=spiffe://shop.local/agents/prober"),
    });
    const byChild = `import subprocess, sys\nvalue = subprocess.run([sys.executable, "-c", ${JSON.stringify(call)}], capture_output=True, text=True).stderr`;
    expect(await agent.attempt(byChild)).toMatchObject({ ok: true, value: expect.stringContaining("HTTP Error 403") });
    expect(await free.attempt(call)).toMatchObject({ ok: false, error: expect.stringContaining("403") });
    const other = `import os, urllib.request\nvalue = urllib.request.urlopen(urllib.request.Request(os.environ["AGENTID_URL_INVOICES"] + "/v1/x", method="DELETE"), timeout=10).status`;
    expect(await agent.attempt(other)).toMatchObject({ ok: false, error: expect.stringContaining("403") });
  });

  it("reads no secret: keys of the trust domain, of ssh, of clouds, keyrings, .env", async () => {
    const keys = join(project, ".agentid", "keys");
    await onlyOutside(`import os\nvalue = os.listdir(${JSON.stringify(keys)})`, /FileNotFoundError/);
    for (const path of [...secrets, join(project, ".env"), join(project, ".agentid", ".gitignore")]) {
      await onlyOutside(`value = open(${JSON.stringify(path)}).read()`, /FileNotFoundError/);
    }
    await onlyOutside(`value = open("/proc/${dev.pid}/cmdline").read()`, /FileNotFoundError/);
  });

  it("changes neither configuration nor policies nor lock, nor anything that is not named; what is named it does", async () => {
    const elsewhere = join(runtimeBase(), "elsewhere");
    writeFileSync(elsewhere, "");
    chmodSync(elsewhere, 0o666);
    for (const name of ["agentid.yaml", "agentid.lock", "policies/shop.yaml", "agents/prober.py", "src/code.py"]) {
      await onlyOutside(`open(${JSON.stringify(join(project, name))}, "a").close()`, /Read-only file system/);
    }
    await onlyOutside(`open("policies/more.yaml.part", "w").close()`, /Read-only file system/);
    await onlyOutside(`open("new-in-the-project", "w").close()`, /Read-only file system/);
    // The temporary folder inside is another one: the write goes nowhere.
    const append = (text: string) => `open(${JSON.stringify(elsewhere)}, "a").write("${text}")`;
    await agent.attempt(append("inside"));
    await free.attempt(append("outside"));
    expect(readFileSync(elsewhere, "utf8")).toBe("outside");
    for (const way of [
      `os.rename("agentid.yaml", "out/y"); os.rename("out/y", "agentid.yaml")`,
      `os.chmod("agentid.yaml", 0o644)`,
    ]) {
      await onlyOutside(`import os\n${way}`, /Read-only file system|busy|cross-device/);
    }
    expect(await agent.attempt(`open("out/result", "w").write("done")`)).toMatchObject({ ok: true });
    expect(readFileSync(join(project, "out", "result"), "utf8")).toBe("done");
  });

  it("stays so when an editor replaces what is protected: a cover would be gone with the file that it covered", async () => {
    for (const name of ["agentid.yaml", "agentid.lock"]) {
      const path = join(project, name);
      writeFileSync(`${path}.new`, readFileSync(path));
      giveTo(`${path}.new`);
      renameSync(`${path}.new`, path);
      await onlyOutside(`open(${JSON.stringify(path)}, "a").close()`, /Read-only file system/);
    }
    const late = join(project, ".env.local");
    writeFileSync(late, "late");
    giveTo(late);
    await onlyOutside(`value = open(${JSON.stringify(late)}).read()`, /FileNotFoundError/);
  });

  it("gets nowhere by links that it plants, or that stand in the project", async () => {
    const [key = ""] = secrets;
    expect(await agent.attempt(`import os\nos.symlink(${JSON.stringify(key)}, "out/link")`)).toMatchObject({
      ok: true,
    });
    await onlyOutside(`value = open("out/link").read()`, /FileNotFoundError/);
    symlinkSync(dirname(key), join(project, "src", "keys"));
    await onlyOutside(`value = open("src/keys/id_ed25519").read()`, /FileNotFoundError/);
  });

  it("connects to no socket of the machine or the session, by path or abstract; nor to a service's own, nor to control", async () => {
    const base = runtimeBase();
    const paths = [
      "tmux-65534/default",
      ".X11-unix/X7",
      "docker.sock",
      "run/user/bus",
      "ssh-XXXX/agent.1",
      "run/user/wayland-0",
    ];
    for (const name of paths) await listening(join(base, name));
    await listening("\0agentid-test/.X11-unix/X7");
    const connect = (address: string) =>
      `import socket\nconnection = socket.socket(socket.AF_UNIX)\nconnection.settimeout(5)\nconnection.connect(${address})\nconnection.close()`;
    const control = dev.ready.control.replace("unix://", "");
    const service = join(dirname(control), "s", "invoices.sock");
    for (const path of [...paths.map((name) => join(base, name)), join(project, unixSocket), control, service]) {
      await onlyOutside(connect(JSON.stringify(path)), /FileNotFoundError/);
    }
    await onlyOutside(connect(String.raw`"\0agentid-test/.X11-unix/X7"`), /ConnectionRefused/);
    expect(await agent.attempt(connect(`"/run/agentid/workload.sock"`))).toMatchObject({ ok: true });
    expect(await agent.attempt(connect(`"/run/agentid/door.sock"`))).toMatchObject({ ok: false });
  });

  it("reaches no port but the relay's: not a service's own, not over UDP, not the network outside", async () => {
    const tcp = createServer((socket) => socket.end());
    tcp.listen(0, "127.0.0.1");
    await once(tcp, "listening");
    closers.push(() => tcp.close());
    const udp = createSocket("udp4", (message, from) => udp.send(message, from.port, from.address));
    udp.bind(0, "127.0.0.1");
    await once(udp, "listening");
    closers.push(() => udp.close());
    const address = tcp.address();
    const port = typeof address === "object" ? address?.port : 0;
    const inbound = dev.ready.services.invoices?.mtls.split(":")[1];
    const connect = (to: unknown) => `import socket\nsocket.create_connection(("127.0.0.1", ${to}), 5).close()`;
    await onlyOutside(connect(port), /ConnectionRefused/);
    // Its own network's, where the relay listens.
    expect(await agent.attempt(connect(inbound))).toMatchObject({ ok: true });
    await onlyOutside(
      `import socket\nechoed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nechoed.settimeout(5)\nechoed.connect(("127.0.0.1", ${udp.address().port}))\nechoed.send(b"x")\nvalue = echoed.recv(9).decode()`,
      /ConnectionRefused/,
    );
    const interfaces = await agent.attempt("import socket\nvalue = [name for _, name in socket.if_nameindex()]");
    expect(interfaces).toEqual({ ok: true, value: ["lo"] });
    expect(await agent.attempt(`import socket\nsocket.create_connection(("192.0.2.1", 80), 5)`)).toMatchObject({
      ok: false,
      error: expect.stringMatching(/unreachable/),
    });
    expect(await agent.attempt("import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)")).toMatchObject({
      ok: false,
    });
    expect(await agent.attempt("import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)")).toMatchObject({
      ok: false,
      error: expect.stringContaining("Address family not supported"),
    });
  });

  it("has no VSOCK, which knows no network namespace and leads to the host of a virtual machine", async () => {
    const code = "import socket\nsocket.socket(40, socket.SOCK_STREAM).close()";
    expect(await agent.attempt(code)).toMatchObject({
      ok: false,
      error: expect.stringContaining("Address family not supported"),
    });
    if (!(await free.attempt(code)).ok) process.stderr.write("SKIPPED: no VSOCK here to compare with\n");
  });

  it("sees, signals and traces no process outside, and traces none inside", async () => {
    const sleeper = spawn("/bin/sleep", ["600"], { ...ordinaryUser, stdio: "ignore" });
    closers.push(() => sleeper.kill("SIGKILL"));
    await once(sleeper, "spawn");
    const { pid } = sleeper;
    await onlyOutside(`import os\nos.kill(${pid}, 0)`, /ProcessLookupError/);
    await onlyOutside(`value = open("/proc/${pid}/environ").read()`, /FileNotFoundError/);
    const trace = (target: string) =>
      `import ctypes, os, subprocess, time\nlibc = ctypes.CDLL(None, use_errno=True)\nchild = subprocess.Popen(["/bin/sleep", "600"])\ntry:\n  if libc.ptrace(16, ${target}, 0, 0) != 0: raise OSError(ctypes.get_errno(), "ptrace")\n  os.waitpid(${target}, 0x40000000) if ${target} == child.pid else None\n  libc.ptrace(17, ${target}, 0, 0)\nfinally:\n  child.kill()\n  child.wait()`;
    await onlyOutside(trace("child.pid"), /\[Errno 1\] ptrace/);
    expect(await agent.attempt(trace(String(pid)))).toMatchObject({ ok: false });
    const read = (number: number) =>
      `import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nif libc.syscall(${number}, os.getpid(), 0, 0, 0, 0, 0) < 0: raise OSError(ctypes.get_errno(), "process_vm_readv")`;
    await onlyOutside(read(process.arch === "x64" ? 310 : 270), /\[Errno 1\]/);
    expect(await agent.attempt("import os\nvalue = [name for name in os.listdir('/proc') if name.isdigit()]")).toEqual({
      ok: true,
      value: ["1", "2"],
    });
  });

  it("makes no namespace, mounts nothing, gains no right, and takes no way around the filter", async () => {
    await onlyOutside(
      `import subprocess\nsubprocess.run(["unshare", "-U", "true"], check=True, capture_output=True)`,
      /CalledProcessError/,
    );
    const errnoOf = (call: string) =>
      `import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.${call}\nvalue = ctypes.get_errno()`;
    const CLONE_NEWUSER = 0x1000_0000;
    const refused: readonly [call: string, outside: number][] = [
      [`unshare(${CLONE_NEWUSER} | 0x10000)`, 22], // EINVAL: a thread of a process cannot
      ["setns(0, 0)", 22],
      [`syscall(${process.arch === "x64" ? 56 : 220}, ${CLONE_NEWUSER} | 0x10000 | 0x800, 0, 0, 0, 0)`, 22],
      ["syscall(425, 0, 0)", 14], // io_uring_setup: EFAULT or EINVAL
    ];
    for (const [call] of refused) {
      const [here, there] = [await agent.attempt(errnoOf(call)), await free.attempt(errnoOf(call))];
      expect(here.value, call).toBe(1);
      expect(there.value, call).not.toBe(1);
    }
    expect((await agent.attempt(errnoOf("syscall(435, 0, 0)"))).value).toBe(38); // clone3: ENOSYS, so that the C library takes clone
    const status = await agent.attempt(`value = open("/proc/self/status").read()`);
    expect(status.value).toMatch(/CapEff:\t0+\n/);
    expect(status.value).toMatch(/CapBnd:\t0+\n/);
    expect(status.value).toMatch(/NoNewPrivs:\t1\n/);
    expect(status.value).toMatch(/Seccomp:\t2\n/);
  });

  it("names no other file as its executable, as a process with rights in a user namespace of its own may", async () => {
    const forge = `import subprocess, sys\nvalue = subprocess.run([sys.executable, "src/told.py"], input="unshare 10000000\\nforge /bin/true\\n", capture_output=True, text=True).stdout.split("\\n")[:2]`;
    const another = await outside({ project, home });
    closers.push(() => another.end());
    expect(await another.attempt(forge)).toEqual({ ok: true, value: ["done", realpathSync("/bin/true")] });
    expect(await agent.attempt(forge)).toEqual({
      ok: true,
      value: ["Operation not permitted", "Operation not permitted"],
    });
  });

  it("types nothing into the terminal", async () => {
    // Not even where there is none: the filter answers before the terminal does (ENOTTY outside).
    const typed = `import fcntl\nfcntl.ioctl(0, 0x5412, b"x")`;
    expect(await free.attempt(typed)).toMatchObject({ ok: false, error: expect.stringContaining("Errno 25") });
    expect(await agent.attempt(typed)).toMatchObject({ ok: false, error: expect.stringContaining("Errno 1]") });
    // The upper half of the request is not looked at by the kernel either.
    const wide = `import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.ioctl(0, ctypes.c_ulong(0x500005412), b"x")\nvalue = ctypes.get_errno()`;
    expect((await agent.attempt(wide)).value).toBe(1);
    expect((await free.attempt(wide)).value).toBe(25);
  });
});
