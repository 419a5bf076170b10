import { CodedError } from "../coded-error.js";
import type { Platform } from "../platform/platform.js";
import { hostFiles } from "../sandbox/host-files.js";
import type { SandboxPlan } from "../sandbox/plan.js";

const MUST_BE_APART = ["user", "mnt", "pid", "net", "ipc"] as const;

/** The process at the door must come from the process that asked, whatever stands in between. Throws CodedError `launch-refused`. */
export function requireDescent(platform: Platform, pid: number, asker: { pid: number; startTime: bigint }): void {
  const comesFrom = platform
    .ancestors(pid)
    .some((ancestor) => ancestor.pid === asker.pid && ancestor.startTime === asker.startTime);
  if (!comesFrom) throw unconfined(`process ${pid} does not descend from process ${asker.pid}, which asked`);
}

/** The walls, by the kernel's word and not by that of the program that was asked to build them. Throws CodedError `launch-refused`. */
export function requireConfined(platform: Platform, pid: number, { hidden, readOnly, writable }: SandboxPlan): void {
  const confinement = platform.confinementOf(pid);
  const shared = MUST_BE_APART.filter((kind) => !confinement.apart.has(kind));
  if (shared.length > 0) throw unconfined(`it shares the ${shared.join(", ")} namespace with everybody`);
  if (!confinement.powerless) throw unconfined("it has capabilities");
  if (!confinement.noNewPrivileges || !confinement.filtered) throw unconfined("its system calls are not filtered");
  const seen = hidden.find((path) => confinement.sees(path));
  if (seen !== undefined) throw unconfined(`it sees ${seen}`);
  const open = readOnly.find((path) => confinement.sees(path) && !confinement.findsReadOnly(path));
  if (open !== undefined) throw unconfined(`it may write ${open}`);
  // Somebody who may write beside such a folder could have put a link in its place while it was mounted.
  const other = writable.find((path) => hostFiles.real(path) !== path || !confinement.sees(path));
  if (other !== undefined) throw unconfined(`another folder stands at ${other}`);
}

function unconfined(how: string): CodedError {
  return new CodedError("launch-refused", `the process is not in the sandbox of this launch: ${how}`, {
    hint: "agentid run --sandbox makes it",
  });
}
