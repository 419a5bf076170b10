import type { EngineConfig, PolicyConfig } from "../../config/config.js";
import type { Clock } from "../../platform/clock.js";
import type { PolicyEngine } from "../engine.js";
import type { PolicySet } from "../policy-set.js";
import type { PolicyProblem } from "../yaml-file.js";
import { fileProblem, problemOf } from "./engine-files.js";
import type { EngineContext, EngineLoad, LoadedEngine } from "./loaded-engine.js";
import { type RulesScope, readScope, type Scope } from "./scope.js";

/** What judges beside our rules, and what the rules are asked about. */
export interface LoadedEngines {
  readonly engines: readonly LoadedEngine[];
  readonly rules: RulesScope;
}

export type LoadEnginesOptions = Omit<EngineContext, "names" | "entities" | "isAsked">;

/** Our rules about everything. */
export const NO_ENGINES: LoadedEngines = { engines: [], rules: { isAsked: () => true, items: undefined } };

/** Loads all engines of `agentid.yaml`. With an error among the problems they are never applied. Never throws for what is in files. */
export async function loadEngines(
  config: PolicyConfig,
  { names, entities }: PolicySet,
  options: LoadEnginesOptions,
): Promise<{ readonly loaded: LoadedEngines | undefined; readonly problems: readonly PolicyProblem[] }> {
  const problems: PolicyProblem[] = [];
  const scopeOf = (items: PolicyConfig["rulesScope"], shown: string): Scope => {
    const { isAsked, errors, warnings } = readScope(items, names, entities);
    for (const message of errors) problems.push(fileProblem("policy-engine", shown, message));
    for (const message of warnings) problems.push(fileProblem("policy-engine", shown, message, undefined, "warning"));
    return isAsked;
  };
  const rules = { isAsked: scopeOf(config.rulesScope, "policy.rules"), items: config.rulesScope };
  const engines: LoadedEngine[] = [];
  for (const each of config.engines) {
    const isAsked = scopeOf(each.scope, `engine ${each.name}`);
    try {
      const { engine, problems: found } = await loadEngine(each, { ...options, names, entities, isAsked });
      problems.push(...found);
      if (engine !== undefined) engines.push(engine);
    } catch (thrown) {
      problems.push(problemOf(thrown, each.name));
    }
  }
  const failed = problems.some(({ severity }) => severity === "error");
  return { loaded: failed ? undefined : { engines, rules }, problems };
}

/** An engine's code is loaded with the first one of its kind: most projects have none, and a start waits for what is loaded. */
async function loadEngine(config: EngineConfig, context: EngineContext): Promise<EngineLoad> {
  switch (config.kind) {
    case "cedar":
      return await (await import("./cedar-engine.js")).loadCedarEngine(config, context);
    case "rego":
      return await (await import("./rego-engine.js")).loadRegoEngine(config, context);
    case "opa":
      return await (await import("./remote-engines.js")).loadOpaEngine(config, context);
    case "authzen":
      return await (await import("./remote-engines.js")).loadAuthzenEngine(config, context);
  }
}

/** What a decision point over a project is made with, besides its rules. */
export function opened(
  { engines, rules }: LoadedEngines,
  clock: Clock,
): { readonly engines: readonly PolicyEngine[]; readonly rules: RulesScope } {
  return { engines: engines.map((engine) => engine.open({ clock })), rules };
}

/** What changes between the files of engines that are in both; those that come and go are changes of `agentid.yaml`. */
export function compareEngines(
  old: LoadedEngines,
  next: LoadedEngines,
): { readonly widened: boolean; readonly changes: readonly string[] } {
  const before = new Map(old.engines.map((engine) => [engine.name, engine]));
  const changed = next.engines.flatMap((engine) => {
    const was = before.get(engine.name);
    return was === undefined || was.digest === engine.digest ? [] : [{ was, engine }];
  });
  return {
    widened: changed.some(({ was, engine }) => engine.narrows?.(was) !== true),
    changes: changed.map(
      ({ was, engine }) => `~ engine ${engine.name}: ${was.digest.slice(0, 8)} → ${engine.digest.slice(0, 8)}`,
    ),
  };
}
