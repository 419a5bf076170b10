import { chmodSync, realpathSync } from "node:fs";
import type { Socket } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { createCallerAttestor } from "../../src/attestation/attestor.js";
import type { Caller } from "../../src/attestation/caller.js";
import { executableDigests } from "../../src/attestation/hash-cache.js";
import { createLaunchRegistry } from "../../src/attestation/launches.js";
import { linux } from "../../src/platform/linux.js";
import {
  atEnd,
  cleanUp,
  descriptorOf,
  listen,
  obeying,
  PYTHON,
  start,
  startTold,
  temporaryFolder,
  until,
} from "../attestation/processes.js";

/* A process that executes another program and hides it. What is not noticed is here as well: it says how far the promise goes. */

afterEach(cleanUp);

const digests = executableDigests();

async function attested(socket: Socket): Promise<Caller> {
  const launches = createLaunchRegistry({ platform: linux, digests });
  atEnd(() => launches.close());
  const caller = await createCallerAttestor({ platform: linux, launches, digests }).ofUnixSocket(descriptorOf(socket));
  atEnd(() => caller.close());
  return caller;
}

async function listening() {
  const folder = temporaryFolder();
  chmodSync(folder, 0o755);
  return listen({ path: join(folder, "s") });
}

/**
 * Connects to argv[1]; told `exec`, executes itself again, and there takes the addresses of the former stack and arguments for its own, which every process
 * may (PR_SET_MM_MAP). With `keep`, another process holds the former memory image for as long as it lives.
 */
const HIDER = `
import ctypes, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def addresses():
    words = open("/proc/self/stat").read().rpartition(")")[2].split()
    # start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end
    fields = [26, 27, 45, 46, 47, None, 28, 48, 49, 50, 51]
    return [int(words[field - 3]) if field else libc_brk() for field in fields]
def libc_brk():
    libc.sbrk.restype = ctypes.c_void_p
    return libc.sbrk(0)
def take(wanted):
    """The kernel wants each address inside a mapping, so the former places are mapped first."""
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    for address in wanted:
        libc.mmap(address & ~4095, 4096, 3, 0x100022, -1, 0)
    now = addresses()
    now[6], now[7] = wanted
    now[8] = wanted[1]
    map = struct.pack("11QQIi", *now, 0, 0, -1)
    libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
    if libc.prctl(35, 14, map, len(map), 0) != 0: print("failed", os.strerror(ctypes.get_errno()), flush=True)
if sys.argv[1] == "again":
    take([int(word) for word in sys.argv[2:4]])
    print("again", flush=True)
    os.read(0, 1)
    os._exit(0)
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
print("connected", flush=True)
word = sys.stdin.readline().strip()
if word == "keep":
    stack = ctypes.create_string_buffer(1 << 16)
    top = (ctypes.addressof(stack) + (1 << 16)) & ~15
    libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    print("kept", libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), top, 0x100 | 17, None), flush=True)
connection.set_inheritable(True)
former = addresses()
os.execv(sys.executable, [sys.executable, "-c", sys.orig_argv[2], "again", str(former[6]), str(former[7])])
`;

async function hider(keep: boolean) {
  const server = await listening();
  const process = obeying(start(PYTHON, ["-c", HIDER, server.address]));
  expect(await process.line()).toBe("connected");
  const caller = await attested(await server.accepted());
  caller.recheck();
  const before = caller.facts.execGeneration;
  process.tell(keep ? "keep" : "exec");
  if (keep) {
    const kept = Number((await process.line()).split(" ")[1]);
    expect(kept).toBeGreaterThan(0);
    atEnd(() => void globalThis.process.kill(kept, "SIGKILL"));
  }
  expect(await process.line()).toBe("again");
  const handle = linux.openProcess({ pid: process.pid });
  atEnd(() => handle.close());
  // The control: the lie is told, and the kernel repeats it.
  expect(handle.status().execGeneration).toBe(before);
  return caller;
}

describe.runIf(process.platform === "linux")("an exec", () => {
  test("is noticed, also when the new program takes the old one's addresses for its own", async () => {
    const caller = await hider(false);
    expect(() => caller.recheck()).toThrow(expect.objectContaining({ code: "process-changed" }));
  });

  test("goes unnoticed when the old memory lives on in another process and the addresses are forged: it could lend its voice as well", async () => {
    const caller = await hider(true);
    caller.recheck();
    expect(caller.facts.exePath).toBe(realpathSync(PYTHON));
  });

  test("before the connection is taken makes it the new program's, also for whoever else holds it", async () => {
    const server = await listening();
    const opener = startTold();
    const holder = startTold();
    await opener.does(`connect ${server.address}`);
    const socket = await server.accepted();
    const hand = join(temporaryFolder(), "hand");
    expect(await holder.does(`take ${hand}`)).toBe("waiting");
    expect(await opener.does(`give ${hand}`)).toBe("done");
    expect(await holder.line()).toBe("done");
    opener.tell("exec /bin/cat");
    await until(() => linux.openProcess({ pid: opener.pid }).commandLine()[0] === "/bin/cat", "it executes");
    const caller = await attested(socket);
    expect(caller.facts).toMatchObject({ pid: opener.pid, exePath: realpathSync("/bin/cat") });
    const said = new Promise<string>((resolve) => socket.once("data", (bytes) => resolve(bytes.toString())));
    socket.resume();
    await holder.does("send hello");
    expect(await said).toBe("hello");
    caller.recheck();
    // The control: one that was taken before the exec ends with it.
    const honest = startTold();
    await honest.does(`connect ${server.address}`);
    const early = await attested(await server.accepted());
    honest.tell("exec /bin/cat");
    await expect.poll(() => thrownBy(() => early.recheck())).toMatchObject({ code: "process-changed" });
  });
});

function thrownBy(action: () => void): unknown {
  try {
    action();
    return undefined;
  } catch (error) {
    return error;
  }
}
