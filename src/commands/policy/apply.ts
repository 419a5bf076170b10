import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { Args, Flags } from "@oclif/core";
import { CodedError } from "../../coded-error.js";
import type { Config } from "../../config/config.js";
import type { Explanation, PolicyProposal } from "../../control-api/explanation-routes.js";
import { withRule, withRuleKey } from "../../policy/edit-rules.js";
import type { PolicySet } from "../../policy/policy-set.js";
import { AgentidCommand } from "../base-command.js";
import { confirm } from "../confirm.js";
import { offlineProject } from "../offline-project.js";
import { changeLines, changeOf, type FileChange, writeChange } from "../rule-files.js";
import { runningDaemon } from "../running-daemon.js";

export default class PolicyApply extends AgentidCommand {
  static override summary = "Write the rule that would allow a call which was denied";
  static override description =
    "Shows the change of the rule file and asks before it writes. With `reload: confirm` a running daemon then shows it as WIDENED and waits for agentid reload accept.";
  static override args = {
    decision: Args.string({ required: true, description: "decision id, or any unique beginning of it" }),
    number: Args.integer({ default: 1, min: 1, description: "which of the proposals of agentid explain" }),
  };
  static override flags = {
    file: Flags.string({ summary: "rule file for a new rule: policies/payments.yaml", helpValue: "FILE" }),
    yes: Flags.boolean({ char: "y", summary: "do not ask" }),
    "dry-run": Flags.boolean({ summary: "show the change only" }),
  };
  static override examples = [
    "<%= config.bin %> <%= command.id %> 7f3k2",
    "<%= config.bin %> <%= command.id %> 7f3k2 2",
  ];

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(PolicyApply);
    const explanation = await runningDaemon(flags.project).call("explain", { decision: args.decision });
    const proposal = chosen(explanation, args.number);
    const { config, policies } = await offlineProject(flags.project);
    const change = await changeFor(proposal, explanation, config, policies, flags.file);
    for (const line of changeLines(change)) this.log(line);
    const { file, difference } = change;
    const done = { file, ...difference, written: !flags["dry-run"] };
    if (flags["dry-run"]) return done;
    if (!flags.yes) await confirm(`Write it to ${file}?`);
    writeChange(change);
    return done;
  }
}

function chosen({ decision, verdict, proposals }: Explanation, number: number): PolicyProposal {
  const proposal = proposals[number - 1];
  if (proposal !== undefined) return proposal;
  if (proposals.length > 0) {
    throw new CodedError(
      "bad-request",
      `there ${proposals.length === 1 ? "is one proposal" : `are ${proposals.length} proposals`}, and no number ${number}`,
      {
        hint: `agentid explain ${decision.slice(0, 8)} lists them`,
      },
    );
  }
  const why = verdict === "ALLOW" ? "it was allowed" : "no rule that allows would help: agentid explain says why";
  throw new CodedError("no-proposal", `there is nothing to apply: ${why}`);
}

async function changeFor(
  { change }: PolicyProposal,
  { service }: Explanation,
  config: Config,
  policies: PolicySet,
  named: string | undefined,
): Promise<FileChange> {
  if (change.kind === "when") {
    return await changeOf(config, policies, change.file, (text) => withRuleKey(text, change.rule, "when", change.when));
  }
  const rule = { ...change.rule, name: freeName(change.rule.name, policies) };
  const file = named ?? fileFor(service, config, policies);
  return await changeOf(config, policies, file, (text) => withRule(text, rule, change.comment));
}

/** The file of the service, where there is one; else that of the first rule; else a new one. */
function fileFor(service: string, { policiesDirectory }: Config, { rules }: PolicySet): string {
  const folder = basename(policiesDirectory);
  if (existsSync(join(policiesDirectory, `${service}.yaml`))) return `${folder}/${service}.yaml`;
  return rules[0]?.at.replace(/:\d+$/, "") ?? `${folder}/${service}.yaml`;
}

function freeName(name: string, { rules }: PolicySet): string {
  const taken = new Set(rules.map((rule) => rule.name));
  if (!taken.has(name)) return name;
  for (let number = 2; ; number += 1) {
    const next = `${name.slice(0, 90)}-${number}`;
    if (!taken.has(next)) return next;
  }
}
