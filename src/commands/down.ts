import { AgentidCommand } from "./base-command.js";
import { runningDaemon } from "./running-daemon.js";

export default class Down extends AgentidCommand {
  static override summary = "Stop the running trust domain";

  async run(): Promise<void> {
    const { flags } = await this.parse(Down);
    const client = runningDaemon(flags.project);
    const events = client.events({});
    await client.call("shutdown", {});
    // The stream ends when the daemon has let go of everything; then a new one can start.
    for await (const _ of events);
  }
}
