import { Args, Flags } from "@oclif/core";
import { CodedError } from "../../coded-error.js";
import { createDecisionPoint } from "../../policy/decision-point.js";
import { opened } from "../../policy/engines/load-engines.js";
import { readFixtureFile } from "../../policy/fixture-file.js";
import type { PolicySet } from "../../policy/policy-set.js";
import { proposalsFor } from "../../policy/proposals.js";
import { sparedDenial } from "../../policy/spared.js";
import { problemLine, YamlFile } from "../../policy/yaml-file.js";
import { AgentidCommand } from "../base-command.js";
import { considerationLines, proposalHeading, shadowLines } from "../explain.js";
import { offlineProject } from "../offline-project.js";

export default class PolicyExplain extends AgentidCommand {
  static override summary =
    "What the policy files say of a call that nobody has made: the rules considered, and why each does or does not hold";
  static override description = "Needs no running daemon. Of calls that were made, agentid explain DECISION tells.";
  static override args = {
    call: Args.string({
      required: true,
      description: "payments/issue_refund, 'GET invoices /v1/invoices', 'resources/read payments', 'connect orders'",
    }),
  };
  static override flags = {
    as: Flags.string({ summary: "the identity that calls", helpValue: "NAME" }),
    with: Flags.string({ summary: "arguments or query as JSON, or KEY=VALUE", multiple: true, helpValue: "ARGS" }),
    evidence: Flags.string({ options: ["kernel", "launch", "parent", "weak", "certificate"] }),
    "launched-by": Flags.string({ summary: "an agent that launched the caller, nearest first", multiple: true }),
    context: Flags.string({ summary: "more of the context as JSON", helpValue: "JSON" }),
    at: Flags.string({ summary: "when: 2025-01-15T12:00:00Z (default: now)", helpValue: "TIME" }),
  };
  static override examples = [
    "<%= config.bin %> <%= command.id %> payments/issue_refund --as agents/billing --with amount=4200",
  ];

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(PolicyExplain);
    const { policies, engines } = await offlineProject(flags.project);
    const { time, expected } = asked(policies, {
      name: "command line",
      at: flags.at ?? new Date().toISOString(),
      ...(flags.as !== undefined && { as: flags.as }),
      ...(flags.evidence !== undefined && { evidence: flags.evidence }),
      ...(flags["launched-by"] !== undefined && { launchedBy: flags["launched-by"] }),
      ...(flags.context !== undefined && { context: jsonObject("--context", flags.context) }),
      expect: [{ call: args.call, with: givenArguments(flags.with ?? []), allow: true }],
    });
    const clock = { now: () => time, after: () => () => {} };
    const point = createDecisionPoint(policies, {
      clock,
      random: (size) => new Uint8Array(size),
      ...opened(engines, clock),
    });
    const { decision, considered } = await point.explain(expected.request);
    const denial = sparedDenial(decision) ?? decision;
    const proposals = proposalsFor(expected.request, denial, considered, policies, new Date(time));
    this.log(`${decision.allowed ? "ALLOW" : "DENY"}  ${expected.call}   ${new Date(time).toISOString()}`);
    this.log(`  because  ${decision.reason}`);
    for (const { type } of decision.obligations ?? []) {
      this.log(`  requires ${type}: a denial where the enforcement point does not know it, as the relay`);
    }
    for (const line of [...shadowLines(decision.shadow), ...considerationLines(considered)]) this.log(line);
    if (proposals.length > 0) this.log(proposalHeading(decision.allowed));
    proposals.forEach(({ title, widens }, index) => {
      this.log(`           ${index + 1}  ${title}${widens ? "   (WIDENS)" : ""}`);
    });
    const { allowed, rule, at, reason, engine, obligations, shadow = [] } = decision;
    return { allowed, engine, rule, at, reason, obligations, shadow, considered, proposals };
  }
}

/** The command line is read as a fixture is: one reader, one set of messages. JSON is YAML. */
function asked(policies: PolicySet, test: object) {
  const yaml = new YamlFile("command line", JSON.stringify({ tests: [test] }));
  const [read] = readFixtureFile(yaml, policies.names);
  const errors = yaml.problems.filter(({ severity }) => severity === "error");
  const [expected] = read?.expected ?? [];
  if (read === undefined || expected === undefined || errors.length > 0) {
    const [first] = errors.map(({ message, hint }) => (hint === undefined ? message : `${message} (${hint})`));
    throw new CodedError("bad-request", first ?? errors.map(problemLine).join("\n"));
  }
  return { time: read.time, expected };
}

function givenArguments(given: readonly string[]): object {
  return Object.assign(
    {},
    ...given.map((text) => {
      if (text.trimStart().startsWith("{")) return jsonObject("--with", text);
      const equals = text.indexOf("=");
      if (equals < 1) throw new CodedError("bad-request", `--with takes a JSON object or KEY=VALUE, not ${text}`);
      return { [text.slice(0, equals)]: jsonOrText(text.slice(equals + 1)) };
    }),
  );
}

/** `4200` is a number and `true` a boolean, as in JSON; everything else is text. */
function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function jsonObject(flag: string, text: string): object {
  const value = jsonOrText(text);
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new CodedError("bad-request", `${flag} takes a JSON object, not ${text}`);
}
