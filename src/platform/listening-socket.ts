import { closeSync } from "node:fs";
import { lastErrno, libc, SystemCallError } from "./libc.js";

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const BACKLOG = 511;

const socket = libc.func("int socket(int, int, int)");
const setsockopt = libc.func("int setsockopt(int, int, int, void *, uint32_t)");
const bind = libc.func("int bind(int, void *, uint32_t)");
const listen = libc.func("int listen(int, int)");

/**
 * Plain descriptors that listen on `port` of 127.0.0.1 and, where there is one, of ::1; for handing to another process. Linux only.
 * Throws SystemCallError.
 */
export function listenOn(port: number): number[] {
  const v4 = Buffer.alloc(16);
  v4.writeUInt16LE(AF_INET, 0);
  v4.writeUInt16BE(port, 2);
  v4.set([127, 0, 0, 1], 4);
  const v6 = Buffer.alloc(28);
  v6.writeUInt16LE(AF_INET6, 0);
  v6.writeUInt16BE(port, 2);
  v6.writeUInt8(1, 23);
  const first = listening(AF_INET, v4);
  try {
    return [first, listening(AF_INET6, v6)];
  } catch {
    return [first]; // a machine without IPv6
  }
}

function listening(family: number, address: Buffer): number {
  const fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0) as number;
  if (fd < 0) throw new SystemCallError("socket", lastErrno());
  const on = Buffer.from([1, 0, 0, 0]);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, on, 4);
  if (family === AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, on, 4);
  if ((bind(fd, address, address.length) as number) !== 0 || (listen(fd, BACKLOG) as number) !== 0) {
    const errno = lastErrno();
    closeSync(fd);
    throw new SystemCallError("bind", errno);
  }
  return fd;
}
