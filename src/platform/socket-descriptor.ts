import type { Socket } from "node:net";
import { CodedError } from "../coded-error.js";

/** The descriptor of an accepted connection. Node has no public name for it; koffi needs it (D4). */
export function descriptorOf(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, "_handle");
  const fd: unknown = typeof handle === "object" && handle !== null ? Reflect.get(handle, "fd") : undefined;
  if (typeof fd !== "number" || fd < 0) throw new CodedError("peer-unknown", "the connection has no descriptor");
  return fd;
}
