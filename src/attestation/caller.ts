import type { NetworkView, TcpEndpoints } from "../platform/platform.js";
import type { GrantedLaunch } from "./launched-process.js";
import type { ProcessFacts } from "./process-facts.js";

/** The launch behind a process. `launch`: it is the launched program itself; `parent`: it descends from it, by a chain of parents read twice. */
export interface CallerLaunch extends GrantedLaunch {
  readonly evidence: "launch" | "parent";
  /** The launched process. */
  readonly pid: number;
}

/** A process at the other end of a connection, attested, and held by handles until `close`. */
export interface Caller {
  /** As of the last recheck: a cgroup that was left, and a parent that has gone, are facts no more. */
  readonly facts: ProcessFacts;
  /** The verified launch that this process is, or descends from, at this moment; undefined for every other process. */
  readonly launch: CallerLaunch | undefined;
  /** It runs inside the sandbox of a launch: then no identity follows but by that launch. */
  readonly sandboxed?: boolean;
  /**
   * Must be called before every issue and every message of a stream: the process is alive and has executed nothing else since it was attested.
   * Cheap (no hashing). Throws CodedError `process-gone` or `process-changed`.
   */
  recheck(): void;
  /** Releases pidfd and /proc handle. Idempotent. */
  close(): void;
}

/** Nobody that we can name holds the other end; `reason` says why, for people. */
export interface Nobody {
  readonly nobody: true;
  readonly uid: number | undefined;
  readonly pid: number | undefined;
  readonly reason: string;
}

/** Turns connections into callers. Hashing happens off the event loop. */
export interface CallerAttestor {
  /** The peer of an accepted Unix-socket connection. Reads the kernel's word synchronously, at once. Throws CodedError. */
  ofUnixSocket(fd: number): Promise<Caller>;
  /** The process that holds the client end of a loopback TCP connection, in our own network namespace or in `network`. Never throws. */
  ofTcpConnection(endpoints: TcpEndpoints, network?: NetworkView): Promise<Caller | Nobody>;
  /** The user who holds the client end of a loopback TCP connection; undefined where the kernel does not say at once. Proves no identity. */
  userOfTcpConnection?(endpoints: TcpEndpoints): number | undefined;
  /** Any process by number, for `agentid attest PID`. Throws CodedError `process-gone`. */
  ofPid(pid: number): Promise<Caller>;
}
