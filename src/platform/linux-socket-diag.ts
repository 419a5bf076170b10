import { closeSync } from "node:fs";
import { libc } from "./libc.js";
import { addressBytes, type SocketTableRow } from "./linux-proc-text.js";
import type { TcpEndpoints } from "./platform.js";

/**
 * One socket by its two ends, asked of the kernel over sock_diag(7): microseconds, where reading /proc/net/tcp walks the whole table. Layouts are those of
 * <linux/netlink.h> and <linux/inet_diag.h>.
 */

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const NLMSG_ERROR = 2;
const NLM_F_REQUEST = 1;
const MSG_DONTWAIT = 0x40;
const AF_INET = 2;
const AF_INET6 = 10;
const IPPROTO_TCP = 6;
const HEADER_BYTES = 16;
const REQUEST_BYTES = HEADER_BYTES + 56;
const ANSWER_BYTES = HEADER_BYTES + 72;
const ENOENT = 2;

const socket = libc.func("int socket(int, int, int)");
const send = libc.func("long send(int, const void *, size_t, int)");
const recv = libc.func("long recv(int, void *, size_t, int)");

/** `unavailable` where the kernel or a sandbox does not answer such questions; the caller then reads the table. */
export function socketByEnds({ client, server }: TcpEndpoints, family: 4 | 6): SocketTableRow | "none" | "unavailable" {
  const fd = socket(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_SOCK_DIAG) as number;
  if (fd < 0) return "unavailable";
  try {
    const question = questionFor(client, server, family);
    if (Number(send(fd, question, question.length, 0)) !== question.length) return "unavailable";
    const answer = Buffer.alloc(4096);
    const length = Number(recv(fd, answer, answer.length, MSG_DONTWAIT)); // the kernel has answered before send returned
    return length < HEADER_BYTES + 4 ? "unavailable" : answerIn(answer.subarray(0, length), client.port, server.port);
  } finally {
    closeSync(fd);
  }
}

type End = TcpEndpoints["client"];

function questionFor(own: End, far: End, family: 4 | 6): Buffer {
  const bytes = Buffer.alloc(REQUEST_BYTES);
  bytes.writeUInt32LE(REQUEST_BYTES, 0);
  bytes.writeUInt16LE(SOCK_DIAG_BY_FAMILY, 4);
  bytes.writeUInt16LE(NLM_F_REQUEST, 6);
  bytes.writeUInt8(family === 4 ? AF_INET : AF_INET6, 16);
  bytes.writeUInt8(IPPROTO_TCP, 17);
  bytes.writeUInt32LE(0xffffffff, 20); // in every state
  bytes.writeUInt16BE(own.port, 24);
  bytes.writeUInt16BE(far.port, 26);
  bytes.set(addressBytes(own.address, family), 28);
  bytes.set(addressBytes(far.address, family), 44);
  bytes.fill(0xff, 64, 72); // INET_DIAG_NOCOOKIE
  return bytes;
}

function answerIn(bytes: Buffer, ownPort: number, farPort: number): SocketTableRow | "none" | "unavailable" {
  if (bytes.readUInt16LE(4) === NLMSG_ERROR)
    return bytes.readInt32LE(HEADER_BYTES) === -ENOENT ? "none" : "unavailable";
  if (bytes.length < ANSWER_BYTES) return "unavailable";
  // Without a connection the kernel falls back to a listener on the same port, which has no far end.
  if (bytes.readUInt16BE(HEADER_BYTES + 4) !== ownPort || bytes.readUInt16BE(HEADER_BYTES + 6) !== farPort)
    return "none";
  const inode = bytes.readUInt32LE(HEADER_BYTES + 68);
  return inode === 0 ? "none" : { uid: bytes.readUInt32LE(HEADER_BYTES + 64), inode: String(inode) };
}
