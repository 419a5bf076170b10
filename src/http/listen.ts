import { createHash } from "node:crypto";
import { type BigIntStats, closeSync, fstatSync } from "node:fs";
import type { Server } from "node:net";
import { CodedError, codeOf } from "../coded-error.js";

const FIRST_PORT = 20_000;
const PORTS = 10_000;

/** The stable loopback port of a service, 20000–29999: the same on every start of the same project. `attempt` counts collisions within the project. */
export function derivedPort(projectDirectory: string, service: string, attempt = 0): number {
  const digest = createHash("sha256").update(`${projectDirectory}\0${service}\0${attempt}`).digest();
  return FIRST_PORT + (digest.readUInt32BE(0) % PORTS);
}

/**
 * Listens on `port` of 127.0.0.1 or ::1, and nowhere else; 0 takes a free port. Returns the port, or undefined where this machine has no
 * ::1. Throws CodedError `port-in-use` or `cannot-listen`, naming the port and `service`.
 */
export function listenOnLoopback(
  server: Server,
  host: "127.0.0.1" | "::1",
  port: number,
  service: string,
): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error) => {
      const code = codeOf(error);
      if (code === "EADDRINUSE") {
        reject(
          new CodedError("port-in-use", `port ${port} of service ${service} is held by another program`, {
            hint: `stop what listens on ${host}:${port}, or set "listen" of ${service} in agentid.yaml to a free port`,
            cause: error,
          }),
        );
      } else if (host === "::1" && (code === "EADDRNOTAVAIL" || code === "EAFNOSUPPORT")) resolve(undefined);
      else
        reject(new CodedError("cannot-listen", `cannot listen on ${host}:${port}: ${error.message}`, { cause: error }));
    };
    server.once("error", failed);
    server.listen({ host, port, ipv6Only: host === "::1", exclusive: true }, () => {
      server.off("error", failed);
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : port);
    });
  });
}

/** Takes `fd` over. Node closes what it cannot listen on, but not what is of no kind that it knows; both are an error of the server. */
export function listenOnDescriptor(server: Server, fd: number): void {
  const before = fstatSync(fd, { bigint: true });
  server.listen({ fd });
  if (server.listening) return;
  const now = statOf(fd);
  // Its number may be another thread's file by now.
  if (now?.ino === before.ino && now.dev === before.dev) closeSync(fd);
}

function statOf(fd: number): BigIntStats | undefined {
  try {
    return fstatSync(fd, { bigint: true });
  } catch {
    return undefined; // closed
  }
}
