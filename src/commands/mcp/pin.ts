import { createInterface } from "node:readline/promises";
import { Args, Flags } from "@oclif/core";
import { CodedError } from "../../coded-error.js";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class McpPin extends AgentidCommand {
  static override summary = "Accept what an MCP service says of its tools now: write their digests to agentid.lock";
  static override args = { service: Args.string({ required: true, description: "service" }) };
  static override flags = {
    path: Flags.string({ summary: "where the server speaks MCP", default: "/mcp" }),
    yes: Flags.boolean({ char: "y", summary: "accept without asking" }),
  };
  static override examples = ["<%= config.bin %> mcp pin payments"];

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(McpPin);
    const daemon = runningDaemon(flags.project);
    const asked = { service: args.service, path: flags.path };
    const shown = await daemon.call("pinTools", asked);
    if (shown.changes.length === 0) {
      this.log(`${shown.tools} tools of ${args.service} are as agentid.lock pins them`);
      return shown;
    }
    for (const change of shown.changes) this.log(change);
    if (shown.widened) this.log("WIDENS  a tool is no longer what was pinned");
    for (const { tool, text } of shown.described) this.log(`  ${tool}: ${text}`);
    if (!flags.yes) await this.#ask(args.service);
    const done = await daemon.call("pinTools", { ...asked, accept: shown.digest });
    this.log(`pinned  ${done.tools} tools of ${args.service}`);
    return done;
  }

  async #ask(service: string): Promise<void> {
    const notAccepted = new CodedError("not-accepted", "nothing was pinned", {
      hint: `agentid mcp pin ${service} --yes accepts it`,
    });
    if (!process.stdin.isTTY || this.jsonEnabled()) throw notAccepted;
    const terminal = createInterface({ input: process.stdin, output: process.stderr });
    try {
      const answer = await terminal.question("Pin these? [y/N] ");
      if (!/^y(es)?$/i.test(answer.trim())) throw notAccepted;
    } finally {
      terminal.close();
    }
  }
}
