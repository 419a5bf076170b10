import { Args } from "@oclif/core";
import { CodedError } from "../../coded-error.js";
import { AgentidCommand } from "../base-command.js";
import { readInput } from "../input-file.js";
import { readWithoutEcho } from "../read-without-echo.js";
import { runningDaemon } from "../running-daemon.js";

export default class SecretSet extends AgentidCommand {
  static override summary = "Put a secret that egress needs into the keychain: asked for, or read from standard input";
  static override args = { name: Args.string({ required: true, description: "secret" }) };
  // What is too much may be the secret: it is not repeated.
  static override strict = false;
  static override examples = ["<%= config.bin %> secret set openai", "<%= config.bin %> secret set openai < key.txt"];

  async run(): Promise<unknown> {
    const { args, flags, argv } = await this.parse(SecretSet);
    if (argv.length > 1) {
      throw new CodedError(
        "secret-as-argument",
        "a secret is no argument: everybody on this machine can read it there",
        {
          hint: `agentid secret set ${args.name}   asks for it; what was just given should be replaced where it was issued`,
        },
      );
    }
    const daemon = runningDaemon(flags.project);
    const value = process.stdin.isTTY
      ? await readWithoutEcho(`${args.name}: `)
      : (await readInput("-")).toString("utf8");
    const set = await daemon.call("setSecret", { name: args.name, value });
    this.log(`set       ${set.name}   ${set.source}`);
    return set;
  }
}
