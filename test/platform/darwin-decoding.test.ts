import { expect, test } from "vitest";
import {
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
  isEnforcedSignature,
  normalAddress,
  SOCKET_INFO_BYTES,
  UNIQUE_INFO_BYTES,
} from "../../src/platform/darwin-decoding.js";

// Bytes laid out by hand after Apple's headers: no machine of ours runs macOS.

const words = (...values: number[]): Buffer => {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, index) => void bytes.writeUInt32LE(value >>> 0, 4 * index));
  return bytes;
};

test("audit_token_t: effective user and group, process and its version", () => {
  expect(decodeAuditToken(words(501, 502, 20, 501, 20, 4242, 100005, 77))).toEqual({
    uid: 502,
    gid: 20,
    pid: 4242,
    pidVersion: 77,
  });
});

test("struct xucred: the first group is the effective one", () => {
  const bytes = Buffer.concat([words(0, 501, 3, 20, 12, 61), Buffer.alloc(52)]);
  expect(decodeXucred(bytes)).toEqual({ uid: 501, gid: 20, groups: [12, 61] });
});

test("struct proc_bsdinfo", () => {
  const bytes = Buffer.alloc(BSD_INFO_BYTES);
  words(0, 2, 0, 4242, 400, 501, 20, 501, 20, 501, 20, 0).copy(bytes);
  bytes.write("python3.12\0", 48, "latin1");
  bytes.writeBigUInt64LE(1_795_000_000n, 120);
  bytes.writeBigUInt64LE(250_000n, 128);
  expect(decodeBsdInfo(bytes)).toEqual({
    zombie: false,
    parentPid: 400,
    uid: 501,
    gid: 20,
    name: "python3.12",
    startTime: 1_795_000_000_250_000n,
  });
  bytes.writeUInt32LE(5, 4);
  bytes.write("python3.12-with-a-long-name\0", 64, "latin1");
  expect(decodeBsdInfo(bytes)).toMatchObject({ zombie: true, name: "python3.12-with-a-long-name" });
});

test("struct proc_uniqidentifierinfo: another version is another generation", () => {
  const bytes = Buffer.alloc(UNIQUE_INFO_BYTES, 7);
  bytes.writeInt32LE(5, 32);
  const before = decodeExecGeneration(bytes);
  bytes.writeInt32LE(6, 32);
  expect([before, decodeExecGeneration(bytes)]).toEqual([`${"07".repeat(16)}:5`, `${"07".repeat(16)}:6`]);
});

test("the version of a process is the one that its audit token names", () => {
  const bytes = Buffer.alloc(UNIQUE_INFO_BYTES);
  bytes.writeInt32LE(77, 32);
  const { pidVersion } = decodeAuditToken(words(501, 502, 20, 501, 20, 4242, 100005, 77));
  expect(decodePidVersion(bytes)).toBe(pidVersion);
});

test("csops: a signature counts while it is valid and no debugger was let in", () => {
  expect(isEnforcedSignature(words(0x22000305))).toBe(true);
  expect(isEnforcedSignature(words(0x22000304))).toBe(false);
  expect(isEnforcedSignature(words(0x32000305))).toBe(false);
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
  const bytes = Buffer.alloc(SOCKET_INFO_BYTES);
  bytes.writeInt32LE(2, 256);
  bytes.writeUInt16BE(443, 264);
  bytes.writeUInt16BE(50_000, 268);
  bytes.writeUInt8(1, 288);
  bytes.set([127, 0, 0, 1], 308);
  bytes.set([127, 0, 0, 2], 324);
  expect(decodeTcpSocket(bytes)).toEqual({
    server: { address: "127.0.0.1", port: 443 },
    client: { address: "127.0.0.2", port: 50_000 },
  });
  bytes.fill(0, 288, 328);
  bytes.writeUInt8(2, 288);
  bytes.writeUInt8(1, 311);
  bytes.writeUInt8(1, 327);
  expect(decodeTcpSocket(bytes)?.client.address).toBe(normalAddress("::1"));
  bytes.writeInt32LE(3, 256);
  expect(decodeTcpSocket(bytes)).toBeUndefined();
});

test("struct proc_fdinfo[]: only sockets", () => {
  expect(decodeSocketDescriptors(words(0, 1, 7, 2, 9, 2))).toEqual([7, 9]);
});

test("KERN_PROCARGS2: as many arguments as counted, whatever the environment says", () => {
  const bytes = Buffer.concat([words(3), Buffer.from("/usr/bin/python3\0\0\0\0python3\0\0x y\0HOME=/\0")]);
  expect(decodeProcessArguments(bytes)).toEqual(["python3", "", "x y"]);
  expect(decodeProcessArguments(Buffer.alloc(0))).toEqual([]);
});

test("addresses are compared in one form", () => {
  expect(normalAddress("::ffff:127.0.0.1")).toBe("127.0.0.1");
  expect(normalAddress("fe80::1%en0")).toBe("fe80:0:0:0:0:0:0:1");
  expect(normalAddress("::")).toBe("0:0:0:0:0:0:0:0");
});
