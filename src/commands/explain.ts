import { Args } from "@oclif/core";
import { destination, displayText } from "../control-api/display-text.js";
import type { Explanation, ShadowReport } from "../control-api/explanation-routes.js";
import { shadowWords } from "../control-api/shadow-words.js";
import type { ConsideredRule } from "../policy/access-request.js";
import { AgentidCommand } from "./base-command.js";
import { runningDaemon } from "./running-daemon.js";

export default class Explain extends AgentidCommand {
  static override summary = "Why a call was allowed or refused, and which rule would allow it";
  static override args = {
    decision: Args.string({ required: true, description: "decision id, or any unique beginning of it" }),
  };
  static override examples = ["<%= config.bin %> explain 7f3k2"];

  async run(): Promise<Explanation> {
    const { args, flags } = await this.parse(Explain);
    const explanation = await runningDaemon(flags.project).call("explain", { decision: args.decision });
    this.log(explanationText(explanation));
    return explanation;
  }
}

/** `1  a rule for … only      agentid policy apply 7f3k2 1`. */
export function proposalLines({ decision, proposals }: Explanation): readonly string[] {
  const titles = proposals.map(({ title, widens }) => `${displayText(title, 120)}${widens ? "   (WIDENS)" : ""}`);
  const width = Math.max(0, ...titles.map(({ length }) => length));
  const id = decision.slice(0, 8);
  return titles.map(
    (title, index) => `           ${index + 1}  ${title.padEnd(width)}   agentid policy apply ${id} ${index + 1}`,
  );
}

function explanationText(explanation: Explanation): string {
  return [
    `${explanation.verdict}  ${explanation.caller} → ${destination(explanation.service, explanation.target)}   ${explanation.time}  decision ${explanation.decision}`,
    `  who      ${displayText(explanation.callerDetail || explanation.caller, 160)}`,
    ...(explanation.evidence === undefined ? [] : [`  proof    ${explanation.evidence}`]),
    ...(explanation.launchedBy === undefined ? [] : [`  launched by ${explanation.launchedBy.join(", launched by ")}`]),
    `  what     ${explanation.action} ${explanation.target}${explanation.arguments ? `, arguments ${displayText(explanation.arguments, 160)}` : ""}`,
    `  because  ${displayText(explanation.reason, 200)}`,
    ...shadowLines(explanation.shadow),
    ...considerationLines(explanation.considered),
    ...(explanation.proposals.length === 0
      ? []
      : [proposalHeading(explanation.verdict === "ALLOW"), ...proposalLines(explanation)]),
  ].join("\n");
}

/** What is allowed now has proposals only where an identity in shadow was let through. */
export function proposalHeading(isAllowed: boolean): string {
  return isAllowed ? "  to allow it when the shadow ends, narrowest first" : "  to allow it, narrowest first";
}

/** A line for each outcome of a shadow, with its reason. */
export function shadowLines(
  shadow: readonly Pick<ShadowReport, "rule" | "effect" | "would" | "differs" | "reason">[] = [],
): readonly string[] {
  return shadow.map((outcome) => `  shadow   ${shadowWords([outcome])}: ${displayText(outcome.reason, 160)}`);
}

/** A line for each rule that was looked at: which holds, and which term of it does not, with the values. */
export function considerationLines(
  considered: Explanation["considered"] | readonly ConsideredRule[],
): readonly string[] {
  const lines = [`  rules    ${considered.length} considered`];
  const width = Math.max(0, ...considered.map(({ rule }) => rule.length));
  const place = Math.max(0, ...considered.map(({ at }) => at.length));
  let about: string | undefined;
  for (const { rule, at, outcome, detail, subject, shadow } of considered) {
    if (subject !== about) lines.push(`         for ${subject}, which launched the caller`);
    about = subject;
    lines.push(
      `           ${outcome === "matched" ? "✓" : "✗"} ${at.padEnd(place)}  ${rule.padEnd(width)}  ${shadow === true ? "in shadow: " : ""}${displayText(detail, 160)}`,
    );
  }
  return lines;
}
