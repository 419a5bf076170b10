import { writeSync } from "node:fs";
import { lastErrno, libc, SystemCallError } from "./libc.js";

const MFD_CLOEXEC = 1;

const memfdCreate = libc.func("int memfd_create(const char *, unsigned int)");

/** A descriptor, read from its beginning, of a file without a name that holds `content`. Linux only. Throws SystemCallError. */
export function anonymousFile(name: string, content: Uint8Array): number {
  const fd = memfdCreate(name, MFD_CLOEXEC) as number;
  if (fd < 0) throw new SystemCallError("memfd_create", lastErrno());
  // By position: the descriptor's own stays at the beginning.
  for (let written = 0; written < content.length; ) {
    written += writeSync(fd, content, written, content.length - written, written);
  }
  return fd;
}
