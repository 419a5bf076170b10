import { basename } from "node:path";
import { Flags } from "@oclif/core";
import { CodedError } from "../coded-error.js";
import { initProject, templateNames } from "../config/init-project.js";
import { AgentidCommand } from "./base-command.js";

export default class Init extends AgentidCommand {
  static override summary = "Write agentid.yaml, policies and an example into this folder";
  static override flags = {
    template: Flags.string({ default: "minimal", options: [...templateNames], summary: "what to start from" }),
    yes: Flags.boolean({ summary: "overwrite files that exist" }),
    "trust-domain": Flags.string({ summary: "name of the trust domain (default: the folder's name with .local)" }),
  };
  static override examples = ["<%= config.bin %> init --template mcp-server"];

  async run(): Promise<unknown> {
    const { flags } = await this.parse(Init);
    const directory = flags.project ?? process.cwd();
    const result = await initProject(directory, flags.template, {
      ...(flags["trust-domain"] === undefined ? {} : { trustDomain: flags["trust-domain"] }),
      overwrite: flags.yes,
    });
    if (result.conflicts.length > 0) {
      throw new CodedError(
        "file-exists",
        `${basename(directory)} already has ${result.conflicts.join(", ")}; nothing was written`,
        {
          hint: "agentid init --yes overwrites",
        },
      );
    }
    this.log(`wrote ${result.written.join(", ")}\nnext: agentid dev`);
    return result;
  }
}
