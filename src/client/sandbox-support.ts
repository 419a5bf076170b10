import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { CodedError } from "../coded-error.js";
import { findCommand } from "../platform/command-path.js";
import { probeArguments } from "../sandbox/bubblewrap.js";
import { type Architecture, isFiltered } from "../sandbox/seccomp.js";

/** Not what PATH names first: the walls are made by the system's program where there is one. */
const BUBBLEWRAP = ["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/run/current-system/sw/bin/bwrap"];

/** What makes a sandbox on this machine. */
interface SandboxSupport {
  /** Path of the program. */
  readonly bubblewrap: string;
  readonly architecture: Architecture;
  /** It can also forbid user namespaces inside. */
  readonly disableUserNamespaces: boolean;
}

/** Finds bubblewrap and tries it. Throws CodedError `sandbox-unavailable` where no sandbox can be made, with what would help. */
export function sandboxSupport(): SandboxSupport {
  const bubblewrap = findBubblewrap();
  const disableUserNamespaces = probe(bubblewrap);
  const architecture = process.arch;
  if (!isFiltered(architecture)) {
    throw unavailable(
      `a sandbox on ${architecture} is not supported: there is no filter of its system calls`,
      "x64 and arm64 have one",
    );
  }
  return { bubblewrap, architecture, disableUserNamespaces };
}

function findBubblewrap(): string {
  const known = BUBBLEWRAP.find((path) => existsSync(path));
  if (known !== undefined) return known;
  try {
    return findCommand("bwrap", "/", process.env);
  } catch {
    throw unavailable(
      "a sandbox needs bubblewrap, which is not installed",
      "apt install bubblewrap, dnf install bubblewrap, pacman -S bubblewrap",
    );
  }
}

/** Whether bubblewrap can also forbid user namespaces inside. */
function probe(bubblewrap: string): boolean {
  const run = (disable: boolean) =>
    spawnSync(bubblewrap, probeArguments(disable), { stdio: ["ignore", "ignore", "pipe"] });
  if (run(true).status === 0) return true;
  const { status, stderr } = run(false);
  if (status === 0) return false;
  const why = stderr?.toString().trim();
  throw unavailable(
    `bubblewrap can make no sandbox here: ${why === undefined || why === "" ? `exit code ${status}` : why}`,
    "user namespaces must be allowed: in a container by its seccomp profile, on Ubuntu 24.04 by an AppArmor profile for bwrap\n" +
      "(sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)",
  );
}

function unavailable(message: string, hint: string): CodedError {
  return new CodedError("sandbox-unavailable", message, { hint });
}
