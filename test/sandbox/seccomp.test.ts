import { existsSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Architecture, isFiltered, seccompFilter } from "../../src/sandbox/seccomp.js";

const ALLOWED = "allowed";
const NATIVE: Record<Architecture, number> = { x64: 0xc000003e, arm64: 0xc00000b7 };

/** The kernel's classic BPF machine, as far as a filter of system calls uses it. */
function answerOf(filter: Buffer, call: { arch: number; number: number; args?: readonly bigint[] }): string | number {
  const data = Buffer.alloc(64);
  data.writeUInt32LE(call.number, 0);
  data.writeUInt32LE(call.arch, 4);
  call.args?.forEach((value, index) => {
    data.writeBigUInt64LE(BigInt.asUintN(64, value), 16 + 8 * index);
  });
  let accumulator = 0;
  for (let at = 0; at < filter.length; at += 8) {
    const [code, yes, no, constant] = [
      filter.readUInt16LE(at),
      filter[at + 2] ?? 0,
      filter[at + 3] ?? 0,
      filter.readUInt32LE(at + 4),
    ];
    const jump = (condition: boolean): void => {
      at += 8 * (condition ? yes : no);
    };
    if (code === 0x20) accumulator = data.readUInt32LE(constant);
    else if (code === 0x15) jump(accumulator === constant);
    else if (code === 0x35) jump(accumulator >= constant);
    else if (code === 0x45) jump((accumulator & constant) !== 0);
    else if (code === 0x06) return constant === 0x7fff0000 ? ALLOWED : constant & 0xffff;
    else throw new Error(`instruction ${code.toString(16)}`);
  }
  throw new Error("the filter ends without an answer");
}

describe.each(["x64", "arm64"] as const)("the filter of %s", (architecture) => {
  const filter = seccompFilter(architecture);
  const arch = NATIVE[architecture];
  const call = (number: number, ...args: bigint[]) => answerOf(filter, { arch, number, args });
  const numbers = {
    x64: { clone: 56, ioctl: 16, socket: 41, read: 0, ptrace: 101 },
    arm64: { clone: 220, ioctl: 29, socket: 198, read: 63, ptrace: 117 },
  }[architecture];

  it("answers every call, and lets through what programs live on", () => {
    fc.assert(
      fc.property(
        fc.nat(600),
        fc.array(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), { maxLength: 6 }),
        (number, args) => {
          expect([ALLOWED, 1, 38, 97]).toContain(answerOf(filter, { arch, number, args }));
        },
      ),
      { numRuns: 2_000 },
    );
    expect(call(numbers.read)).toBe(ALLOWED);
    expect(call(numbers.clone, 0x11n)).toBe(ALLOWED);
    expect(call(numbers.clone, 0x3d0f00n)).toBe(ALLOWED); // a thread, as glibc makes it
    expect(call(numbers.ioctl, 0n, 0x5401n)).toBe(ALLOWED);
    for (const family of [1n, 2n, 10n, 16n]) expect(call(numbers.socket, family)).toBe(ALLOWED);
  });

  it("refuses namespaces, typing into the terminal, other families of sockets, tracing, other architectures", () => {
    for (const flag of [0x20000n, 0x2000000n, 0x4000000n, 0x8000000n, 0x10000000n, 0x20000000n, 0x40000000n]) {
      expect(call(numbers.clone, flag | 0x11n)).toBe(1);
    }
    expect(call(435)).toBe(38);
    for (const request of [0x5412n, 0x541cn, 0xffff_ffff_0000_5412n]) expect(call(numbers.ioctl, 0n, request)).toBe(1);
    for (const family of [0n, 3n, 15n, 17n, 29n, 38n, 40n, 44n]) expect(call(numbers.socket, family)).toBe(97);
    expect(call(numbers.ptrace)).toBe(1);
    for (const other of [0x40000003, 0x40000028, 0])
      expect(answerOf(filter, { arch: other, number: numbers.read })).toBe(38);
    if (architecture === "x64") expect(call(0x40000000 + numbers.read)).toBe(38);
  });

  const header = { x64: "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", arm64: "/usr/include/asm-generic/unistd.h" }[
    architecture
  ];
  it.skipIf(!existsSync(header))("has the numbers of the kernel's own header", () => {
    const named = new Map(
      [...readFileSync(header, "utf8").matchAll(/#define __NR(?:3264)?_(\w+)\s+(\d+)/g)].map(([, name, number]) => [
        name,
        Number(number),
      ]),
    );
    for (const name of [
      "unshare",
      "setns",
      "mount",
      "umount2",
      "pivot_root",
      "chroot",
      "ptrace",
      "process_vm_readv",
      "process_vm_writev",
      "bpf",
      "keyctl",
      "userfaultfd",
      "perf_event_open",
      "io_uring_setup",
      "move_mount",
      "fsopen",
      "pidfd_getfd",
    ]) {
      const number = named.get(name);
      expect(number, name).toBeDefined();
      expect(call(number ?? 0), name).toBe(1);
    }
  });
});

it("is there for the architectures that it knows", () => {
  expect(["x64", "arm64", "riscv64", "ia32"].map(isFiltered)).toEqual([true, true, false, false]);
});
