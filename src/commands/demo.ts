import { fileURLToPath } from "node:url";
import { Flags } from "@oclif/core";
import { CodedError } from "../coded-error.js";
import { AgentidCommand, EXIT } from "./base-command.js";

export default class Demo extends AgentidCommand {
  static override summary = "Play the demonstration: real agents, a real relay, real denials, in under a minute";
  static override flags = {
    plain: Flags.boolean({ summary: "no colour" }),
    fast: Flags.boolean({ summary: "no pauses for reading" }),
  };

  async run(): Promise<unknown> {
    const { flags } = await this.parse(Demo);
    const { demonstrate } = await import("../demo/demonstration.js");
    const stop = new AbortController();
    for (const signal of ["SIGINT", "SIGTERM"] as const)
      process.once(signal, () => stop.abort(new CodedError("interrupted", `stopped by ${signal}`)));
    const tty = process.stdout.isTTY === true;
    const result = await demonstrate({
      packageDirectory: fileURLToPath(new URL("../..", import.meta.url)),
      write: (text) => (this.jsonEnabled() ? undefined : process.stdout.write(text)),
      colour: tty && !flags.plain && !process.env.NO_COLOR,
      pauseMs: flags.fast || !tty ? 0 : 2500,
      signal: stop.signal,
    });
    if (!result.scenes.every(({ shown }) => shown)) process.exitCode = EXIT.failed;
    return result;
  }
}
