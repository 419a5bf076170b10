import { statSync } from "node:fs";
import { beginDigestOfOwnExecutable } from "../daemon/before-loading.js";
import { printFailure } from "./failure.js";
import type { ForegroundOptions } from "./foreground.js";

/**
 * `agentid dev` without the command framework, which alone would take a good part of the start: programs wait for this command, people for the others.
 * `args` is the command line after `dev`. False if there is more in it than the flags of `dev` as they are documented: help, wrong usage, abbreviations.
 * The framework then does it all.
 */
export async function devDirectly(args: readonly string[]): Promise<boolean> {
  const options = parse(args);
  if (options === undefined) return false;
  beginDigestOfOwnExecutable();
  try {
    const { runInForeground } = await import("./foreground.js");
    await runInForeground(options);
  } catch (thrown) {
    if (process.env.DEBUG) throw thrown;
    printFailure(thrown, options.json);
  }
  return true;
}

const SWITCHES = ["plain", "json", "detached", "ephemeral"] as const;

function parse(args: readonly string[]): ForegroundOptions | undefined {
  const given = new Set<string>();
  let project: string | undefined;
  for (let index = 0; index < args.length; index++) {
    const arg = args[index] ?? "";
    if (arg === "--project") {
      if (project !== undefined) return undefined;
      project = args[++index] ?? "";
      if (!isDirectory(project)) return undefined;
    } else given.add(arg);
  }
  const switches = SWITCHES.map((name) => [name, given.delete(`--${name}`)] as const);
  if (given.size > 0) return undefined;
  return { project, ...(Object.fromEntries(switches) as Record<(typeof SWITCHES)[number], boolean>) };
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
