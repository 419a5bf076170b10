import { expect, test } from "vitest";
import {
  findSocket,
  hexEndpoint,
  mountAt,
  parseCommandLine,
  parseStat,
  parseStatus,
} from "../../src/platform/linux-proc-text.js";

const TAIL =
  "S 41 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 5 6 7 8 9 140700 11 12 13 14 15 16 17 0 0 17 0 0 0 0 0 0 19 20 21 140800 23 24 25 0";

test("a command name with brackets and spaces does not shift the fields", () => {
  const stat = parseStat(`42 (a) S 1 (b) ${TAIL}`);
  expect(stat).toEqual({
    comm: "a) S 1 (b",
    state: "S",
    parentPid: 41,
    startTime: 987654n,
    execGeneration: "140700:140800",
  });
});

test("zeros instead of addresses mean that the kernel refuses the exec generation", () => {
  expect(parseStat(`42 (a) ${TAIL.replace("140700", "0").replace("140800", "0")}`).execGeneration).toBeUndefined();
});

test("an execve that is under way has no exec generation yet", () => {
  const under = TAIL.replace(" 7 8 9 140700", " 7 0 9 140700");
  expect(parseStat(`42 (a) ${under}`).execGeneration).toBeUndefined();
});

test("effective user and group, and all supplementary groups", () => {
  const text =
    "Name:\tx\nUid:\t1000\t1001\t1002\t1003\nGid:\t2000\t2001\t2002\t2003\nFDSize:\t64\nGroups:\t4 24 27 \nNStgid:\t1\n";
  expect(parseStatus(text)).toEqual({ uid: 1001, gid: 2001, supplementaryGids: [4, 24, 27] });
  expect(parseStatus(text.replace("4 24 27 ", "")).supplementaryGids).toEqual([]);
});

test("a status that says nothing of users and groups is nobody's, and one that breaks off ends there", () => {
  expect(parseStatus("Name:\tUid:\n")).toEqual({ uid: -1, gid: -1, supplementaryGids: [] });
  expect(parseStatus("Name:\tx\nUid:\t1\t4294967294")).toEqual({ uid: 4_294_967_294, gid: -1, supplementaryGids: [] });
});

test("arguments may be empty", () => {
  expect(parseCommandLine(Buffer.from("a\0\0b\0"))).toEqual(["a", "", "b"]);
  expect(parseCommandLine(Buffer.alloc(0))).toEqual([]);
});

test.each([
  ["127.0.0.1", 8080, 4, "0100007F:1F90"],
  ["::1", 80, 6, "00000000000000000000000001000000:0050"],
  ["::ffff:127.0.0.1", 80, 6, "0000000000000000FFFF00000100007F:0050"],
  ["127.0.0.1", 80, 6, "0000000000000000FFFF00000100007F:0050"],
  ["fe80::1%eth0", 1, 6, "000080FE000000000000000001000000:0001"],
] as const)("%s port %i in family %i is %s", (address, port, family, hex) => {
  expect(hexEndpoint(address, port, family)).toBe(hex);
});

test("the socket table's row, only where both ends fit and somebody still holds it", () => {
  const table =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
    "   0: 0100007F:1F90 0100007F:A000 01 00000000:00000000 00:00000000 00000000  1000        0 111 1 0 20 4 30 10 -1\n" +
    "   1: 0100007F:A000 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 222 1 0 20 4 30 10 -1\n" +
    "   2: 0100007F:A001 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20 4 30 10 -1\n";
  expect(findSocket(table, "0100007F:A000", "0100007F:1F90")).toEqual({ uid: 1001, inode: "222" });
  expect(findSocket(table, "0100007F:A001", "0100007F:1F90")).toBeUndefined();
  expect(findSocket(table, "0100007F:A002", "0100007F:1F90")).toBeUndefined();
});

const MOUNTS = `22 1 0:20 / / ro,nosuid - tmpfs tmpfs rw
23 22 254:0 /home/u/shop /home/u/shop ro,nosuid - ext4 /dev/vda rw
24 23 254:0 /home/u/shop/out /home/u/shop/out rw,nosuid - ext4 /dev/vda rw
25 22 254:0 /x /with\\040space\\134 ro - ext4 /dev/vda rw
26 24 0:21 / /home/u/shop/out ro - tmpfs tmpfs rw
`;

test("the mount of a path is the deepest above it, and of two in one place the later", () => {
  expect(mountAt(MOUNTS, "/home/u/shop/agentid.yaml")).toEqual({ at: "/home/u/shop", readOnly: true });
  expect(mountAt(MOUNTS, "/home/u/shop/out/x")).toEqual({ at: "/home/u/shop/out", readOnly: true });
  expect(mountAt(MOUNTS.replace(/^26.*\n/m, ""), "/home/u/shop/out/x")).toEqual({
    at: "/home/u/shop/out",
    readOnly: false,
  });
  expect(mountAt(MOUNTS, "/home/u/shopping")).toEqual({ at: "/", readOnly: true });
  expect(mountAt(MOUNTS, "/with space\\/y")).toEqual({ at: "/with space\\", readOnly: true });
  expect(mountAt("", "/")).toBeUndefined();
});
