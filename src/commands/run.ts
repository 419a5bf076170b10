import { Command } from "@oclif/core";
import { EXIT } from "./base-command.js";

/** For `--help` and completion. `bin/agentid.js` takes `run` before oclif is loaded, so that nothing of Node clings to the launched process. */
export default class Run extends Command {
  static override summary = "Launch a process as an identity: ask, then become the command";
  static override usage = "run NAME [--instance INSTANCE|auto] [--sandbox] -- CMD...";
  static override description =
    `Granted only if NAME's entry in agentid.yaml has exactly this command and agentid.lock the digests of its files. The process keeps its PID, its terminal, its pipes and its limits; there is no wrapper. With --instance the identity is NAME/INSTANCE, where the entry has instances. With --sandbox its only way out is the relay: no other network, no sockets, no credentials, nothing writable but what its entry names; agentid then stays as its parent and hands signals and the exit code on. Exit code ${EXIT.denied} when refused, 127 when the command is not found.`;
  static override examples = [
    "<%= config.bin %> run billing -- python agents/billing.py",
    "<%= config.bin %> run billing --instance auto -- python agents/billing.py",
    "<%= config.bin %> run billing --sandbox -- python agents/billing.py",
  ];
  static override strict = false;

  async run(): Promise<void> {
    const { run } = await import("../client/run.js");
    await run(this.argv);
  }
}
