import { AgentidCommand, EXIT } from "./base-command.js";
import {
  checkDaemon,
  checkEnvironment,
  checkKeychain,
  checkNode,
  checkProject,
  checkSandbox,
  type Finding,
} from "./doctor-checks.js";
import { runningDaemon } from "./running-daemon.js";

const WORDS = { ok: "ok     ", warning: "warning", failed: "failed " } as const;

export default class Doctor extends AgentidCommand {
  static override summary =
    "Look at what agentid needs here: configuration, daemon, keychain, sandbox, ways around the relay";

  async run(): Promise<{ findings: readonly Finding[] }> {
    const { flags } = await this.parse(Doctor);
    const all = [
      checkNode(process.versions.node),
      ...(await checkProject(flags.project)),
      ...(await checkDaemon(() => runningDaemon(flags.project), process.env)),
      await checkKeychain(),
      checkSandbox(),
      checkEnvironment(process.env),
    ];
    // What the files say is also what the daemon says of them.
    const findings = all.filter(({ message }, index) => all.findIndex((one) => one.message === message) === index);
    for (const { state, message, hint } of findings) {
      this.log(`${WORDS[state]}  ${message.replaceAll("\n", "\n         ")}`);
      if (hint !== undefined) this.log(`         ${hint.replaceAll("\n", "\n         ")}`);
    }
    if (findings.some(({ state }) => state === "failed")) process.exitCode = EXIT.failed;
    return { findings };
  }
}
