import { realpathSync } from "node:fs";
import type { Project } from "./project.js";

/** What is in force and perhaps not meant, in words for people. */
export interface ProjectWarning {
  readonly code: "policy-warning" | "exe-is-link" | "around-relay";
  readonly message: string;
}

export function warningsOf({ warnings, config }: Warned): readonly ProjectWarning[] {
  return [
    ...warnings.map((message) => ({ code: "policy-warning" as const, message })),
    ...config.identities.flatMap(({ name, facts }) => {
      const runs = facts.exePath === undefined ? undefined : targetOfLink(facts.exePath);
      if (runs === undefined) return [];
      const message = `${name}: ${facts.exePath} is a link; the kernel names ${runs}, so no process will match`;
      return [{ code: "exe-is-link" as const, message }];
    }),
    // D26: the relay is an enforcement point only where it is the only way.
    ...config.services.flatMap(({ name, upstream }) => {
      if (upstream.kind !== "tcp") return [];
      const message = `service ${name} listens on TCP port ${upstream.port}: anything on this machine can call it around the relay`;
      return [{ code: "around-relay" as const, message }];
    }),
  ];
}

type Warned = Pick<Project, "warnings" | "config">;

/** What of the warnings is over when `next` follows on `before`, and what is new. */
export function changedWarnings(
  before: Warned,
  next: Warned,
): readonly (ProjectWarning & { readonly resolved?: true })[] {
  const [old, now] = [warningsOf(before), warningsOf(next)];
  const among = (others: readonly ProjectWarning[]) => (one: ProjectWarning) =>
    others.some(({ code, message }) => code === one.code && message === one.message);
  const [isOld, isNow] = [among(old), among(now)];
  return [
    ...old.filter((one) => !isNow(one)).map((one) => ({ ...one, resolved: true as const })),
    ...now.filter((one) => !isOld(one)),
  ];
}

/** The file behind a symbolic link, or undefined for a path that is itself or not there. */
function targetOfLink(path: string): string | undefined {
  try {
    const target = realpathSync(path);
    return target === path ? undefined : target;
  } catch {
    // Not there yet: what is not there runs nowhere.
    return undefined;
  }
}
