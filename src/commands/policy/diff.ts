import { join } from "node:path";
import { Args, Flags } from "@oclif/core";
import type { AuditEntry } from "../../audit/audit-log.js";
import { readEntries } from "../../audit/read-entries.js";
import { displayText } from "../../control-api/display-text.js";
import { diffPolicySets } from "../../policy/policy-diff.js";
import { type Replay, replay } from "../../policy/replay.js";
import { AgentidCommand } from "../base-command.js";
import { offlineProject, projectDirectory } from "../offline-project.js";
import { policySetAt } from "../policy-source.js";

export default class PolicyDiff extends AgentidCommand {
  static override summary = "What changes from one set of policies to another, and which recorded calls would change";
  static override description =
    "OLD and NEW are folders of rule files or revisions of git; NEW is the project's policies folder where it is left out. The replay asks each recorded decision again under both sets, at the time when it was made, without counting for limits; the record keeps a digest of the arguments and those values that a condition used, so some decisions cannot be replayed, and are named.";
  static override args = {
    old: Args.string({ required: true, description: "folder or revision: HEAD" }),
    new: Args.string({ description: "folder or revision" }),
  };
  static override flags = {
    replay: Flags.boolean({ summary: "ask the recorded calls again under both" }),
    record: Flags.string({
      summary: "the record's folder (default: .agentid/audit of the project)",
      helpValue: "FOLDER",
    }),
  };
  static override examples = [
    "<%= config.bin %> <%= command.id %> HEAD",
    "<%= config.bin %> <%= command.id %> policies/ policies.new/ --replay",
  ];

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(PolicyDiff);
    const { config, policies } = await offlineProject(flags.project);
    const old = await policySetAt(args.old, config, policies.names);
    const next = args.new === undefined ? policies : await policySetAt(args.new, config, policies.names);
    const difference = diffPolicySets(old, next);
    for (const change of difference.changes) this.log(change);
    this.log(difference.widened ? "WIDENS" : difference.changes.length === 0 ? "no rule differs" : "does not widen");
    if (!flags.replay) return difference;
    const directory = flags.record ?? join(projectDirectory(flags.project), ".agentid", "audit");
    const replayed = await replay(await entriesIn(directory), old, next);
    for (const line of replayLines(replayed)) this.log(line);
    return { ...difference, replay: replayed };
  }
}

async function entriesIn(directory: string): Promise<readonly AuditEntry[]> {
  const entries: AuditEntry[] = [];
  for (;;) {
    const page = await readEntries(directory, (entries.at(-1)?.sequence ?? -1) + 1, 10_000);
    if (page.length === 0) return entries;
    entries.push(...page);
  }
}

function replayLines({ replayed, changed, notReplayable }: Replay): readonly string[] {
  const word = ({ allowed, rule }: { allowed: boolean; rule: string }) => `${allowed ? "ALLOW" : "DENY"} by ${rule}`;
  const why = new Map<string, number>();
  for (const each of notReplayable) why.set(each.why, (why.get(each.why) ?? 0) + 1);
  return [
    "",
    ...changed.map(
      ({ time, call, before, after, decision }) =>
        `${time}  ${displayText(call, 160)}  ${word(before)} → ${word(after)}  decision ${decision}`,
    ),
    `${replayed} replayed, ${changed.length} would change, ${notReplayable.length} not replayable`,
    ...[...why].map(([reason, count]) => `  ${count} × not replayable: ${reason}`),
  ];
}
