import { CodedError } from "../coded-error.js";
import { AgentidCommand } from "./base-command.js";
import { runningDaemon } from "./running-daemon.js";

const DEADLINE_MS = 15_000;

export default class Down extends AgentidCommand {
  static override summary = "Stop the running trust domain";

  async run(): Promise<void> {
    const { flags } = await this.parse(Down);
    const client = runningDaemon(flags.project);
    const { pid } = await client.call("status", {});
    await client.call("shutdown", {});
    // Its process goes last, after every socket, service and lock: then a new one can start.
    const deadline = Date.now() + DEADLINE_MS;
    while (isRunning(pid)) {
      if (Date.now() > deadline) throw new CodedError("still-running", `process ${pid} has not ended after 15 s`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    // ESRCH: it is gone.
    return false;
  }
}
