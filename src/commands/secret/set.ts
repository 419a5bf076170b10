import { Args } from "@oclif/core";
import { AgentidCommand } from "../base-command.js";
import { readInput } from "../input-file.js";
import { readWithoutEcho } from "../read-without-echo.js";
import { runningDaemon } from "../running-daemon.js";

export default class SecretSet extends AgentidCommand {
  static override summary = "Put a secret that egress needs into the keychain: asked for, or read from standard input";
  static override args = { name: Args.string({ required: true, description: "secret" }) };
  static override examples = ["<%= config.bin %> secret set openai", "<%= config.bin %> secret set openai < key.txt"];

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(SecretSet);
    const daemon = runningDaemon(flags.project);
    const value = process.stdin.isTTY
      ? await readWithoutEcho(`${args.name}: `)
      : (await readInput("-")).toString("utf8");
    const set = await daemon.call("setSecret", { name: args.name, value });
    this.log(`set       ${set.name}   ${set.source}`);
    return set;
  }
}
