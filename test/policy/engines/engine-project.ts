import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
import { parseConfig } from "../../../src/config/load.js";
import type { Clock } from "../../../src/platform/clock.js";
import type { AccessRequest, Decision, DecisionPoint } from "../../../src/policy/access-request.js";
import { httpAccessRequest, mcpAccessRequest } from "../../../src/policy/access-request-of.js";
import { createDecisionPoint } from "../../../src/policy/decision-point.js";
import { type LoadedEngines, loadEngines } from "../../../src/policy/engines/load-engines.js";
import { policyNamesOf } from "../../../src/policy/policy-names.js";
import { policySetOf } from "../../../src/policy/policy-set.js";
import { problemLine } from "../../../src/policy/yaml-file.js";

export const id = (name: string) => `spiffe://shop.local/${name}`;

export interface EngineProject {
  /** Files of the project by their path. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
  /** As `policy.engines` has them. */
  readonly engines?: readonly object[];
  readonly rulesScope?: readonly (string | { type: string })[];
  /** Rule files; by default everything is allowed, so that the engines decide. */
  readonly rules?: string;
  readonly entities?: string;
  readonly now?: Date;
  readonly environment?: NodeJS.ProcessEnv;
}

export const EVERYTHING = `rules:
  - { name: everything, allow: { from: "**", to: "**" } }
`;

const WEDNESDAY_NOON = new Date("2025-01-15T12:00:00Z");

/** The shop with these engines, loaded as a project is: from its files. */
export async function loadProject(project: EngineProject): Promise<{
  readonly directory: string;
  readonly problems: readonly string[];
  readonly loaded: LoadedEngines | undefined;
  readonly set: NonNullable<ReturnType<typeof policySetOf>["set"]>;
  readonly clock: Clock & { time: number };
}> {
  const directory = mkdtempSync(join(tmpdir(), "agentid-engines-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  for (const [path, content] of Object.entries(project.files ?? {})) {
    mkdirSync(dirname(join(directory, path)), { recursive: true });
    writeFileSync(join(directory, path), content);
  }
  const config = parseConfig(
    JSON.stringify({
      trustDomain: "shop.local",
      identities: { "agents/billing": { user: "dev" }, "agents/planner": { uid: 1 } },
      services: {
        payments: { mcp: { unix: "run/payments.sock" } },
        invoices: { http: { unix: "run/invoices.sock" } },
      },
      policy: {
        ...(project.rulesScope && { rules: { scope: project.rulesScope } }),
        engines: project.engines ?? [],
      },
    }),
    { projectDirectory: directory, file: join(directory, "agentid.yaml"), digest: "" },
  );
  const { set, problems: wrong } = policySetOf(
    [{ file: "policies/rules.yaml", bytes: Buffer.from(project.rules ?? EVERYTHING) }],
    policyNamesOf(config),
    project.entities,
  );
  if (set === undefined) throw new Error(wrong.map(problemLine).join("\n"));
  const { loaded, problems } = await loadEngines(config.policy, set, {
    projectDirectory: directory,
    cacheDirectory: join(directory, ".agentid", "rego"),
    environment: project.environment ?? {},
  });
  let time = (project.now ?? WEDNESDAY_NOON).getTime();
  const clock = {
    now: () => time,
    after: () => () => {},
    get time() {
      return time;
    },
    set time(next: number) {
      time = next;
    },
  };
  return { directory, problems: problems.map(problemLine), loaded, set, clock };
}

export interface TestedDecisions extends DecisionPoint {
  at(time: string): void;
  judge(request: AccessRequest): Promise<Decision>;
}

/** A decision point over the shop with these engines; throws what is wrong with their files. */
export async function decisionsOf(project: EngineProject): Promise<TestedDecisions> {
  const { loaded, problems, set, clock } = await loadProject(project);
  if (loaded === undefined) throw new Error(problems.join("\n"));
  const engines = loaded.engines.map((engine) => engine.open({ clock }));
  const point = createDecisionPoint(set, { clock, random: randomBytes, engines, rules: loaded.rules });
  return {
    ...point,
    at(time) {
      clock.time = Date.parse(time);
    },
    judge: async (request) => await point.decide(request),
  };
}

/** A tool call of billing at payments. */
export function call(tool: string, args: Record<string, unknown> = {}, caller = "agents/billing"): AccessRequest {
  return mcpAccessRequest({ caller: id(caller), service: id("mcp/payments"), method: "tools/call", tool, args });
}

export function message(method: string, caller = "agents/billing"): AccessRequest {
  return mcpAccessRequest({ caller: id(caller), service: id("mcp/payments"), method });
}

export function http(method: string, path: string, more: Record<string, unknown> = {}, caller = "agents/billing") {
  const request = httpAccessRequest({ caller: id(caller), service: id("services/invoices"), method, path });
  return { ...request, context: { ...request.context, ...more } };
}

export function record(action: string, resource: string, subject: AccessRequest["subject"]): AccessRequest {
  return { subject, action: { name: action }, resource: { type: "record", id: resource } };
}
