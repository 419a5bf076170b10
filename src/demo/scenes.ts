import { cpSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { appendFile, copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { verifyAuditLog } from "../audit/verify.js";
import type { ControlClient } from "../client/control-client.js";
import type { AgentidEvent } from "../control-api/events.js";
import type { AttestationReport } from "../control-api/routes.js";
import { type AgentProcess, startAgent } from "./agent-process.js";
import type { Narrator } from "./narrator.js";

/** Everything on the stage. Agents are started by the first scene and stay for all others. */
export interface Stage {
  readonly narrator: Narrator;
  readonly client: ControlClient;
  readonly project: string;
  /** Environment that tells a plain program where the relay listens; no secret in it. */
  readonly environment: NodeJS.ProcessEnv;
  /** `agentid run billing -- python3 agents/billing.py`, as argv. */
  readonly billingCommand: readonly string[];
  readonly plannerCommand: readonly string[];
  readonly events: readonly AgentidEvent[];
  untilEvent(wanted: (event: AgentidEvent) => boolean): Promise<AgentidEvent>;
  readonly agents: Map<string, AgentProcess>;
}

/** One step of the demonstration; true only if it showed what it says. */
export interface Scene {
  readonly title: string;
  readonly before: string;
  readonly after: string;
  play(stage: Stage): Promise<readonly [claim: string, holds: boolean][]>;
}

export const scenes: readonly Scene[] = [
  {
    title: "Birth",
    before:
      "Two agents start. Nobody types a secret: the kernel says which user and which binary they are, and how they were launched.",
    after: "An identity follows from what a process is, and goes when it ends.",
    async play(stage) {
      const billing = startAgent({ argv: stage.billingCommand, cwd: stage.project, env: stage.environment });
      const planner = startAgent({ argv: stage.plannerCommand, cwd: stage.project, env: stage.environment });
      stage.agents.set("billing", billing).set("planner", planner);
      await stage.untilEvent(
        ({ event, ...rest }) => event === "process" && "change" in rest && rest.change === "launched",
      );
      const reports: AttestationReport[] = [];
      for (const { pid } of [billing, planner]) {
        const report = await stage.client.call("attest", { pid });
        const sha256 =
          report.facts.find(({ name }) => name === "sha256")?.value ??
          report.selectors.find((s) => s.startsWith("unix:sha256:")) ??
          "";
        for (const { spiffeId, evidence } of report.identities) {
          stage.narrator.seen(
            `pid ${pid}  →  ${spiffeId}  (evidence: ${evidence}; sha256 ${sha256.replace("unix:sha256:", "").slice(0, 12)}…)`,
          );
        }
        reports.push(report);
      }
      const first = (index: number) => reports[index]?.identities[0];
      return [
        [
          "billing has its identity from its launch",
          first(0)?.name === "agents/billing" && first(0)?.evidence === "launch",
        ],
        [
          "planner has its identity from user and binary hash",
          first(1)?.name === "agents/planner" && first(1)?.evidence === "kernel",
        ],
      ];
    },
  },
  {
    title: "Allowed",
    before:
      "The planner calls the invoice service over plain HTTP on loopback. The relay finds out from the kernel who calls and speaks mutual TLS for it.",
    after: "The agent knows nothing of TLS; the service learns, verified, who called.",
    async play(stage) {
      const answer = await agent(stage, "planner").ask({ do: "http", method: "GET", path: "/v1/invoices/1017" });
      const caller = String(answer.caller);
      stage.narrator.seen(`GET /v1/invoices/1017  →  ${String(answer.status)}  ${answer.text ?? ""}`);
      stage.narrator.seen(`the service was told: ${caller}`);
      return [
        ["the call went through", answer.status === 200],
        ["the service learned the caller", caller.includes("URI=spiffe://demo.local/agents/planner")],
      ];
    },
  },
  {
    title: "Denied by default",
    before: "The planner tries what no rule mentions: DELETE.",
    after: "Nothing is forbidden here by name. What no rule allows does not happen.",
    async play(stage) {
      const answer = await agent(stage, "planner").ask({ do: "http", method: "DELETE", path: "/v1/invoices/1017" });
      const decision = lastDecision(stage, "DENY");
      stage.narrator.seen(`DELETE /v1/invoices/1017  →  ${String(answer.status)}  ${answer.text ?? ""}`);
      const explanation = await stage.client.call("explain", { decision });
      stage.narrator.seen(`agentid explain ${decision.slice(0, 5)}`);
      for (const { rule, at, detail } of explanation.considered) stage.narrator.seen(`  ✗ ${at}  ${rule}  ${detail}`);
      return [
        ["the call was refused with its reason", answer.status === 403],
        ["the decision can be explained", explanation.verdict === "DENY" && explanation.considered.length > 0],
      ];
    },
  },
  {
    title: "One tool, two agents",
    before: "Both agents ask the MCP server for a refund of 900.",
    after: "Same server, same tool, same user: the identity makes the difference.",
    async play(stage) {
      const task = { do: "tool", tool: "issue_refund", arguments: { invoice: 1017, amount: 900 } };
      const billing = await agent(stage, "billing").ask(task);
      const planner = await agent(stage, "planner").ask(task);
      stage.narrator.seen(`billing  issue_refund 900  →  ${billing.text ?? ""}`);
      stage.narrator.seen(`planner  issue_refund 900  →  ${planner.text ?? ""}`);
      return [
        ["billing may", billing.ok === true],
        ["planner may not", planner.ok === false && verdictOf(stage, "agents/planner", "issue_refund") === "DENY"],
      ];
    },
  },
  {
    title: "The hijack",
    before: "A poisoned invoice tells the billing agent to refund 9000 to a stranger. The model obeys.",
    after: "The model was fooled. The policy cannot be talked to.",
    async play(stage) {
      const answer = await agent(stage, "billing").ask({ do: "obey", invoice: 1018 });
      stage.narrator.seen(`the invoice says: ${String(answer.read)}`);
      stage.narrator.seen(`billing  issue_refund 9000  →  ${answer.text ?? ""}`);
      const paid = callsOf(stage, "agents/billing", "issue_refund").filter(
        (call) => call.verdict === "ALLOW" && call.summary.includes("9000"),
      );
      return [
        ["the agent obeyed the attacker", answer.obeyed === true],
        [
          "the refund did not happen, and the reason names the amount",
          answer.ok === false && paid.length === 0 && String(answer.text).includes("9000"),
        ],
      ];
    },
  },
  {
    title: "Fixing it",
    before:
      "A refund of 4200 is refused. The finance lead raises the limit in policies/shop.yaml; nothing is restarted.",
    after: "Policies are files: reviewed, versioned, in effect when saved.",
    async play(stage) {
      const task = { do: "tool", tool: "issue_refund", arguments: { invoice: 1017, amount: 4200 } };
      const before = await agent(stage, "billing").ask(task);
      stage.narrator.seen(`issue_refund 4200  →  ${before.text ?? ""}`);
      const file = join(stage.project, "policies", "shop.yaml");
      const policy = await readFile(file, "utf8");
      const seen = stage.events.length;
      await writeFile(file, policy.replace("args.amount <= 1000", "args.amount <= 5000"));
      const reload = await stage.untilEvent(
        (event) => event.event === "reload" && event.outcome === "applied" && stage.events.indexOf(event) >= seen,
      );
      if (reload.event === "reload") {
        for (const change of reload.changes) stage.narrator.seen(`${reload.widened ? "WIDENED  " : ""}${change}`);
      }
      const after = await agent(stage, "billing").ask(task);
      stage.narrator.seen(`issue_refund 4200  →  ${after.text ?? ""}`);
      return [
        ["refused before", before.ok === false],
        ["shown as a widening", reload.event === "reload" && reload.widened],
        ["allowed after, by the same process", after.ok === true],
      ];
    },
  },
  {
    title: "The impostor",
    before: "Same user, same command line, but another binary: a copy of the planner's with one byte more.",
    after: "What a process says of itself counts for nothing.",
    async play(stage) {
      const [command = "", ...args] = stage.plannerCommand;
      const copy = join(stage.project, "impostor");
      await copyFile(command, copy);
      await appendFile(copy, "\n");
      const impostor = startAgent({
        argv: [copy, ...args],
        argv0: command,
        cwd: stage.project,
        env: stage.environment,
      });
      stage.agents.set("impostor", impostor);
      const task = { do: "http", method: "GET", path: "/v1/invoices/1017" };
      const refused = await impostor.ask(task);
      stage.narrator.seen(`impostor  GET /v1/invoices/1017  →  ${String(refused.status)}  ${refused.text ?? ""}`);
      const report = await stage.client.call("attest", { pid: impostor.pid });
      const missed = report.missed.find(({ name }) => name === "agents/planner");
      stage.narrator.seen(`agents/planner does not follow: ${missed?.detail ?? ""}`);
      const real = await agent(stage, "planner").ask(task);
      stage.narrator.seen(`planner   GET /v1/invoices/1017  →  ${String(real.status)}`);
      await impostor.end();
      return [
        ["the impostor got no identity and no answer", refused.status === 403 && report.identities.length === 0],
        ["the hash of its binary gave it away", missed?.failed.startsWith("unix:sha256:") === true],
        ["the real planner still works", real.status === 200],
      ];
    },
  },
  {
    title: "The clock",
    before: "The planner follows a feed. Its certificate is replaced while the connection runs.",
    after: "Certificates live minutes; connections do not notice.",
    async play(stage) {
      const planner = agent(stage, "planner");
      planner.tell({ do: "follow" });
      await planner.untilFeed(3);
      const seen = stage.events.length;
      await stage.client.call("rotate", { name: "agents/planner" });
      const rotated = await stage.untilEvent(
        (event) =>
          event.event === "identity" &&
          event.name === "agents/planner" &&
          event.change === "rotated" &&
          stage.events.indexOf(event) >= seen,
      );
      const atRotation = planner.feed.length;
      await planner.untilFeed(atRotation + 3);
      const unbroken = planner.feed.every((number, index) => number === index + 1);
      if (rotated.event === "identity") {
        stage.narrator.seen(
          `new certificate ${rotated.serial?.slice(0, 12) ?? ""}…, valid until ${rotated.notAfter ?? ""}`,
        );
      }
      stage.narrator.seen(`feed: ${planner.feed.join(" ")}`);
      const call = await planner.ask({ do: "http", method: "GET", path: "/v1/invoices/1018" });
      return [
        ["the certificate was replaced", rotated.event === "identity"],
        ["the feed has no gap", unbroken],
        ["the next call goes through", call.status === 200],
      ];
    },
  },
  {
    title: "The record",
    before:
      "Every issue, decision and reload above is in the record, each entry chained to all before it. One bit is flipped in a copy.",
    after:
      "Whoever holds an earlier head of the chain can tell. (Who owns the machine can rewrite it all: give heads away.)",
    async play(stage) {
      const log = join(stage.project, ".agentid", "audit");
      const honest = join(stage.project, "record");
      cpSync(log, honest, { recursive: true });
      const good = await verifyAuditLog(honest);
      stage.narrator.seen(`verified ${good.entries} entries, ${good.problems.length} problems`);
      const victim = Math.floor(good.entries / 2);
      flipBit(honest, victim);
      const bad = await verifyAuditLog(honest);
      const first = bad.problems[0];
      stage.narrator.seen(
        `after one flipped bit: entry ${first?.sequence ?? "?"}: ${first?.problem ?? "nothing noticed"}`,
      );
      return [
        ["the record verifies", good.entries > 10 && good.problems.length === 0],
        [`the altered entry is named (${victim})`, first?.sequence === victim],
      ];
    },
  },
];

function agent(stage: Stage, name: string): AgentProcess {
  const found = stage.agents.get(name);
  if (!found) throw new Error(`scene order: ${name} is not on the stage`);
  return found;
}

type CallEvent = Extract<AgentidEvent, { event: "call" }>;

function callsOf(stage: Stage, caller: string, target: string): readonly CallEvent[] {
  return stage.events.filter(
    (event): event is CallEvent => event.event === "call" && event.caller === caller && event.target === target,
  );
}

function verdictOf(stage: Stage, caller: string, target: string): string | undefined {
  return callsOf(stage, caller, target).at(-1)?.verdict;
}

function lastDecision(stage: Stage, verdict: "ALLOW" | "DENY"): string {
  const last = stage.events.findLast((event) => event.event === "call" && event.verdict === verdict);
  return last?.event === "call" ? last.decision : "";
}

/** Flips the lowest bit of one character inside entry number `sequence` of the first log file. */
function flipBit(folder: string, sequence: number): void {
  const [name = ""] = readdirSync(folder)
    .filter((each) => each.endsWith(".ndjson") && statSync(join(folder, each)).size > 0)
    .sort();
  const bytes = readFileSync(join(folder, name));
  let start = 0;
  for (let line = 0; line < sequence; line += 1) start = bytes.indexOf(0x0a, start) + 1;
  // A digit inside the entry's time: the line stays JSON, only its meaning changes.
  const digit = bytes.indexOf('"time":"', start) + '"time":"'.length + 3;
  bytes[digit] = (bytes[digit] ?? 0) ^ 1;
  writeFileSync(join(folder, name), bytes);
}
