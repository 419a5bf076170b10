import koffi from "koffi";
import { CodedError } from "../coded-error.js";

/** The symbols of the C library that Node itself is linked with; works with glibc, musl and macOS' libSystem. */
export const libc = koffi.load(null);

/** The errno of the last call made through koffi on this thread. */
export function lastErrno(): number {
  return koffi.errno();
}

export const ERRNO = koffi.os.errno;

/** `ENOENT` for 2, `errno 2` for what has no name here. */
export function errnoName(errno: number): string {
  return Object.entries(ERRNO).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`;
}

/** A system call failed in a way that its caller cannot answer for. Code `system-call-failed`. */
export class SystemCallError extends CodedError<"system-call-failed"> {
  override readonly name = "SystemCallError";
  readonly errno: number;

  constructor(call: string, errno: number) {
    super("system-call-failed", `${call}: ${errnoName(errno)}`);
    this.errno = errno;
  }
}
