import { Args, Flags } from "@oclif/core";
import { codeOf } from "../../coded-error.js";
import type { Config } from "../../config/config.js";
import { destination, displayText } from "../../control-api/display-text.js";
import type { ShadowedCalls } from "../../control-api/explanation-routes.js";
import { isSpared } from "../../control-api/shadow-words.js";
import { entryOf } from "../../policy/policy-names.js";
import type { PolicySet } from "../../policy/policy-set.js";
import { AgentidCommand } from "../base-command.js";
import { confirm } from "../confirm.js";
import { offlineProject } from "../offline-project.js";
import { changeLines, writeChange } from "../rule-files.js";
import { runningDaemon } from "../running-daemon.js";
import { shadowChange, targetNamed } from "../shadow-target.js";

export default class PolicyShadow extends AgentidCommand {
  static override summary =
    "What is in shadow and what would change without; put a rule, a file or an identity in shadow";
  static override description =
    "What is in shadow is evaluated and reported, and decides nothing. Without an argument: lists it, with what the running trust domain has seen. With one: shows the change of the file and asks before it writes.";
  static override args = {
    what: Args.string({ description: "a rule, a rule file (policies/payments.yaml), or an identity (agents/billing)" }),
  };
  static override flags = {
    off: Flags.boolean({ default: false, summary: "end the shadow" }),
    yes: Flags.boolean({ char: "y", summary: "do not ask" }),
    "dry-run": Flags.boolean({ summary: "show the change only" }),
  };
  static override examples = [
    "<%= config.bin %> <%= command.id %>",
    "<%= config.bin %> <%= command.id %> nobody-deletes",
    "<%= config.bin %> <%= command.id %> agents/billing --off",
  ];

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(PolicyShadow);
    const { config, policies } = await offlineProject(flags.project);
    if (args.what === undefined) return await this.#list(config, policies, flags.project);
    const target = await targetNamed(args.what, config, policies);
    if (target.isInShadow !== flags.off) {
      this.log(`${args.what} is ${flags.off ? "not" : "already"} in shadow`);
      return { ...target, written: false };
    }
    const change = await shadowChange(target, !flags.off, config, policies);
    for (const line of changeLines(change)) this.log(line);
    const { file, difference } = change;
    const done = { file, ...difference, written: !flags["dry-run"] };
    if (flags["dry-run"]) return done;
    if (!flags.yes) await confirm(`Write it to ${file}?`);
    writeChange(change);
    return done;
  }

  async #list(config: Config, policies: PolicySet, project: string | undefined): Promise<unknown> {
    const inShadow = inShadowNow(config, policies);
    const seen = await seenByDaemon(project);
    const seenOf = (each: InShadow): readonly ShadowedCalls[] =>
      (seen ?? []).filter((calls) => isAbout(calls, each, policies));
    if (inShadow.length === 0) this.log("nothing is in shadow");
    for (const each of inShadow) {
      this.log(`${each.kind === "identity" ? "identity" : each.effect}  ${each.name}   ${each.at}`);
      for (const calls of seenOf(each)) this.log(shadowedLine(calls));
    }
    if (seen === undefined) this.log("no trust domain is running: what would change is not known");
    return inShadow.map((each) => ({ ...each, ...(seen !== undefined && { calls: seenOf(each) }) }));
  }
}

type InShadow =
  | { readonly kind: "rule"; readonly name: string; readonly at: string; readonly effect: string }
  | { readonly kind: "identity"; readonly name: string; readonly at: string };

function inShadowNow({ identities }: Config, { rules }: PolicySet): readonly InShadow[] {
  return [
    ...rules
      .filter(({ shadow }) => shadow)
      .map(({ name, at, effect }): InShadow => ({ kind: "rule", name, at, effect })),
    ...identities
      .filter(({ shadow }) => shadow === true)
      .map(({ name }): InShadow => ({ kind: "identity", name, at: "agentid.yaml" })),
  ];
}

/** What the running trust domain has seen of shadows, or undefined where none runs. */
async function seenByDaemon(project: string | undefined): Promise<readonly ShadowedCalls[] | undefined> {
  try {
    return (await runningDaemon(project).call("denials", {})).shadowed;
  } catch (thrown) {
    if (codeOf(thrown) === "daemon-not-running") return undefined;
    throw thrown;
  }
}

function isAbout({ outcome, latest }: ShadowedCalls, { kind, name }: InShadow, { names }: PolicySet): boolean {
  if (kind === "rule") return !isSpared(outcome) && outcome.rule === name;
  const own = `spiffe://${names.trustDomain.name}/`;
  const who = outcome.subject?.startsWith(own) ? outcome.subject.slice(own.length) : latest.caller;
  return isSpared(outcome) && entryOf(who, names) === name;
}

/** `3 × would be denied by nobody-deletes  agents/billing → invoices//v1/invoices/7   last …`. */
function shadowedLine({ count, outcome, latest }: ShadowedCalls): string {
  const { caller, service, target, time, decision } = latest;
  const call = displayText(`${caller} → ${destination(service, target)}`, 160);
  return `           ${count} × ${WOULD[outcome.would]}  ${call}   last ${time}  decision ${decision}`;
}

const WOULD = { allow: "would be allowed", deny: "would be denied", require: "would need more" } as const;
