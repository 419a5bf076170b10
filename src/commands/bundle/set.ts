import { readFileSync } from "node:fs";
import { Args } from "@oclif/core";
import { CodedError, messageOf } from "../../coded-error.js";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class BundleSet extends AgentidCommand {
  static override summary = "Trust another trust domain: its workloads may call as far as rules name their SPIFFE IDs";
  static override args = {
    "trust-domain": Args.string({ description: "its name", required: true }),
    file: Args.string({ description: "SPIFFE bundle or PEM certificates; - reads standard input", required: true }),
  };

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(BundleSet);
    const document = readDocument(args.file);
    return await runningDaemon(flags.project).call("setBundle", { trustDomain: args["trust-domain"], document });
  }
}

function readDocument(file: string): string {
  try {
    return readFileSync(file === "-" ? 0 : file, "utf8");
  } catch (cause) {
    throw new CodedError("bundle-unreadable", `cannot read ${file}: ${messageOf(cause)}`, { cause });
  }
}
