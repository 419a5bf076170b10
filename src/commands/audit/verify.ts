import { join } from "node:path";
import { Flags } from "@oclif/core";
import { verifyAuditLog } from "../../audit/verify.js";
import { AgentidCommand, EXIT } from "../base-command.js";
import { projectDirectory } from "../offline-project.js";

export default class AuditVerify extends AgentidCommand {
  static override summary = "Check that no entry of the record was altered, removed or reordered";
  static override description =
    "Works offline. A head that you wrote down earlier (--head) also shows a record that was cut off or written anew.";
  static override flags = {
    directory: Flags.directory({
      summary: "the record's folder (default: .agentid/audit of the project)",
      exists: true,
    }),
    head: Flags.string({ summary: "head (hash of an entry) seen earlier; it must still be in the record" }),
  };

  async run(): Promise<unknown> {
    const { flags } = await this.parse(AuditVerify);
    const directory = flags.directory ?? join(projectDirectory(flags.project), ".agentid", "audit");
    const result = await verifyAuditLog(directory, flags.head === undefined ? {} : { expectedHead: flags.head });
    for (const { sequence, problem } of result.problems) this.log(`entry ${sequence}: ${problem}`);
    this.log(`${result.entries} entries, ${result.problemCount} problems, head ${result.head}`);
    if (result.problems.length > 0) process.exitCode = EXIT.failed;
    return result;
  }
}
