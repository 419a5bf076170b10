import { fileURLToPath } from "node:url";
import { flush, handle, run as runCommand } from "@oclif/core";
import Attest from "./attest.js";
import AuditShow from "./audit/show.js";
import AuditVerify from "./audit/verify.js";
import Calls from "./calls.js";
import Ci from "./ci.js";
import Dashboard from "./dashboard.js";
import Demo from "./demo.js";
import Dev from "./dev.js";
import Down from "./down.js";
import EntryPin from "./entry/pin.js";
import Explain from "./explain.js";
import Init from "./init.js";
import Logs from "./logs.js";
import PolicyCheck from "./policy/check.js";
import PolicyTest from "./policy/test.js";
import ReloadAccept from "./reload/accept.js";
import ReloadRefuse from "./reload/refuse.js";
import Rotate from "./rotate.js";
import Run from "./run.js";
import Status from "./status.js";
import Up from "./up.js";

/** oclif reads the commands from here (package.json, `oclif.commands`). */
export const COMMANDS = {
  init: Init,
  dev: Dev,
  up: Up,
  down: Down,
  status: Status,
  dashboard: Dashboard,
  run: Run,
  ci: Ci,
  demo: Demo,
  attest: Attest,
  explain: Explain,
  calls: Calls,
  logs: Logs,
  rotate: Rotate,
  "entry:pin": EntryPin,
  "reload:accept": ReloadAccept,
  "reload:refuse": ReloadRefuse,
  "policy:check": PolicyCheck,
  "policy:test": PolicyTest,
  "audit:show": AuditShow,
  "audit:verify": AuditVerify,
};

/** Runs one command line. Errors are printed; the exit code is in `process.exitCode` or set by oclif. */
export async function main(argv: readonly string[]): Promise<void> {
  try {
    await runCommand([...argv], fileURLToPath(import.meta.url));
    await flush();
  } catch (thrown) {
    await handle(thrown as Error);
  }
}
