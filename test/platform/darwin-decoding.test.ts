import { expect, test } from "vitest";
import {
  AUDIT_TOKEN_BYTES,
  BSD_INFO_BYTES,
  decodeAuditToken,
  decodeBsdInfo,
  decodeExecGeneration,
  decodePidVersion,
  decodeProcessArguments,
  decodeSigningText,
  decodeSocketDescriptors,
  decodeTcpSocket,
  decodeXucred,
  FD_INFO_BYTES,
  isEnforcedSignature,
  KERNEL_NUMBERS,
  normalAddress,
  SOCKET_INFO_BYTES,
  UNIQUE_INFO_BYTES,
  XUCRED_BYTES,
} from "../../src/platform/darwin-decoding.js";
import vectors from "./darwin-vectors.json" with { type: "json" };

/*
 * No machine of ours runs macOS. `vectors` are structures with known fields that a compiler laid out for it (clang, x86_64 and arm64: the same) from
 * Apple's headers of xnu-11417.101.15, by programs/darwin-vectors.c. What a kernel itself answered is said to be so, with its source.
 */
const vector = (name: Exclude<keyof typeof vectors, keyof typeof KERNEL_NUMBERS>): Buffer =>
  Buffer.from(vectors[name], "hex");

test("the numbers of the system calls are those of the headers", () => {
  const numbers = Object.fromEntries(Object.entries(vectors).filter(([, value]) => typeof value === "number"));
  expect(KERNEL_NUMBERS).toEqual(numbers);
});

test("the structures have the headers' sizes", () => {
  expect({
    auditToken: AUDIT_TOKEN_BYTES,
    xucred: XUCRED_BYTES,
    bsdInfo: BSD_INFO_BYTES,
    uniqueInfo: UNIQUE_INFO_BYTES,
    socketInfo: SOCKET_INFO_BYTES,
    fdInfo: FD_INFO_BYTES,
  }).toEqual({
    auditToken: vector("audit_token").length,
    xucred: vector("xucred").length,
    bsdInfo: vector("bsd_info").length,
    uniqueInfo: vector("unique_info").length,
    socketInfo: vector("socket_v4").length,
    fdInfo: vector("descriptors").length / 4,
  });
});

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};

test("audit_token_t: effective user and group, process and its version", () => {
  expect(decodeAuditToken(vector("audit_token"))).toEqual({ uid: 502, gid: 20, pid: 4242, pidVersion: 77 });
});

test("struct xucred: the first group is the effective one", () => {
  expect(decodeXucred(vector("xucred"))).toEqual({ uid: 501, gid: 20, groups: [12, 61] });
});

test("struct proc_bsdinfo", () => {
  expect(decodeBsdInfo(vector("bsd_info"))).toEqual({
    zombie: false,
    parentPid: 400,
    uid: 501,
    gid: 20,
    name: "python3.12",
    startTime: 1_795_000_000_250_000n,
  });
  expect(decodeBsdInfo(vector("bsd_info_zombie"))).toMatchObject({ zombie: true, name: "python3.12-with-a-long-name" });
});

test("struct proc_uniqidentifierinfo: another version is another generation", () => {
  const bytes = vector("unique_info");
  const uuid = `${"07".repeat(15)}08`;
  expect(decodeExecGeneration(bytes)).toBe(`${uuid}:77`);
  bytes.writeInt32LE(78, 32);
  expect(decodeExecGeneration(bytes)).toBe(`${uuid}:78`);
});

test("the version of a process is the one that its audit token names", () => {
  expect(decodePidVersion(vector("unique_info"))).toBe(decodeAuditToken(vector("audit_token")).pidVersion);
});

test("csops: a signature counts while it is valid and no debugger was let in", () => {
  expect(isEnforcedSignature(u32(0x22000305))).toBe(true);
  expect(isEnforcedSignature(u32(0x22000304))).toBe(false);
  expect(isEnforcedSignature(u32(0x32000305))).toBe(false);
});

test("csops: identifier and team, with their length in network order", () => {
  const blob = (text: string, length = text.length + 9): Buffer => {
    const bytes = Buffer.alloc(64, 0x41);
    bytes.writeUInt32LE(0, 0);
    bytes.writeUInt32BE(length, 4);
    bytes.write(`${text}\0`, 8, "latin1");
    return bytes;
  };
  expect(decodeSigningText(blob("org.python.python"))).toBe("org.python.python");
  expect(decodeSigningText(blob("9JA89QQLNQ"))).toBe("9JA89QQLNQ");
  // Cut off, empty, or nothing: there is none.
  expect(decodeSigningText(blob("9JA89QQLNQ", 4096))).toBeUndefined();
  expect(decodeSigningText(blob(""))).toBeUndefined();
  expect(decodeSigningText(Buffer.alloc(8))).toBeUndefined();
});

test("struct socket_fdinfo of an IPv4 and an IPv6 connection, and of no TCP socket", () => {
  expect(decodeTcpSocket(vector("socket_v4"))).toEqual({
    server: { address: "127.0.0.1", port: 443 },
    client: { address: "127.0.0.2", port: 50_000 },
  });
  expect(decodeTcpSocket(vector("socket_v6"))).toEqual({
    server: { address: normalAddress("::1"), port: 8443 },
    client: { address: normalAddress("fe80::2"), port: 50_001 },
  });
  expect(decodeTcpSocket(vector("socket_unix"))).toBeUndefined();
});

test("struct proc_fdinfo[]: only sockets", () => {
  expect(decodeSocketDescriptors(vector("descriptors"))).toEqual([7, 9]);
});

test("KERN_PROCARGS2: as many arguments as counted, whatever the environment says", () => {
  const answer = (count: number, path: string, ...words: readonly string[]): Buffer => {
    const padded = Buffer.alloc(8 * Math.ceil((path.length + 1) / 8));
    padded.write(path);
    return Buffer.concat([u32(count), padded, Buffer.from(words.map((word) => `${word}\0`).join(""))]);
  };
  for (let length = 1; length <= 16; length += 1) {
    const path = "/".padEnd(length, "p");
    for (const argv of [["python3", "", "x y"], ["", "x"], ["", "", "x"], [""], ["x", ""]]) {
      expect(decodeProcessArguments(answer(argv.length, path, ...argv, "HOME=/")), path).toEqual(argv);
    }
  }
  // More than is there, or cut off: none rather than others.
  expect(decodeProcessArguments(answer(3, "/bin/sh", "sh", "x"))).toEqual([]);
  expect(decodeProcessArguments(answer(2, "/bin/sh", "sh", "x").subarray(0, -1))).toEqual([]);
  expect(decodeProcessArguments(answer(-1, "/bin/sh", "sh"))).toEqual([]);
  expect(decodeProcessArguments(Buffer.alloc(0))).toEqual([]);
});

test("addresses are compared in one form", () => {
  expect(normalAddress("::ffff:127.0.0.1")).toBe("127.0.0.1");
  expect(normalAddress("fe80::1%en0")).toBe("fe80:0:0:0:0:0:0:1");
  expect(normalAddress("::")).toBe("0:0:0:0:0:0:0:0");
});
