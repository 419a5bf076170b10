/** A block of commands in a page, and what it promises to print. */
export interface ConsoleBlock {
  /** Name of the folder it runs in; blocks with one name share it. */
  readonly folder: string;
  /** Template that the folder starts from. */
  readonly template: string | undefined;
  /** The command stays while the blocks after it run. */
  readonly stays: boolean;
  /** An event of the running trust domain to wait for before it runs. */
  readonly after: string | undefined;
  readonly steps: readonly ConsoleStep[];
  /** Line of the page. */
  readonly line: number;
}

export interface ConsoleStep {
  readonly command: string;
  /** Lines promised; `…` stands for anything, and alone on a line for any lines. */
  readonly output: readonly string[];
}

const BLOCK =
  /<!-- run in (?<folder>[\w-]+)(?:, from (?<template>[\w-]+))?(?<stays>, stays)?(?:, after (?<after>\w+))? -->\n```console\n(?<body>[\s\S]*?)```/g;

/** Every marked block of a Markdown page, in order. Throws when a `console` block is not marked: all of them are run. */
export function consoleBlocks(markdown: string): readonly ConsoleBlock[] {
  const found = [...markdown.matchAll(BLOCK)];
  const all = markdown.match(/^```console$/gm)?.length ?? 0;
  if (found.length !== all) throw new Error(`${all} console blocks, but ${found.length} are marked with how they run`);
  return found.map(({ groups = {}, index }) => ({
    folder: groups.folder ?? "",
    template: groups.template,
    stays: groups.stays !== undefined,
    after: groups.after,
    steps: stepsOf(groups.body ?? ""),
    line: markdown.slice(0, index).split("\n").length + 1,
  }));
}

function stepsOf(body: string): ConsoleStep[] {
  const steps: { command: string; output: string[] }[] = [];
  for (const line of body.trimEnd().split("\n")) {
    if (line.startsWith("$ ")) steps.push({ command: line.slice(2), output: [] });
    else if (steps.length === 0) throw new Error(`output before the first command: ${line}`);
    else steps.at(-1)?.output.push(line);
  }
  return steps;
}

/** The promised lines as an expression over the whole output. */
export function promiseOf(output: readonly string[]): RegExp {
  const lines = output.map((line) =>
    line === "…"
      ? "(?:.*\\n)*?"
      : `${line
          .split("…")
          .map((piece) => piece.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"))
          .join(".*")}\\n`,
  );
  return new RegExp(`^${lines.join("")}$`);
}

/**
 * The decision ids of a page are those of the day it was written. Where output promises `decision rd81v…`, the id that came instead takes its place in all
 * that follows.
 */
export class DecisionIds {
  readonly #came = new Map<string, string>();

  /** `text` with the ids that came. */
  in(text: string): string {
    return [...this.#came].reduce((replaced, [written, came]) => replaced.replaceAll(written, came), text);
  }

  /** Promised lines whose ids are not known yet match any id. */
  loosened(output: readonly string[]): readonly string[] {
    return output.map((line) => this.in(line).replaceAll(/(?<=[Dd]ecision )[0-9a-z]+…/g, "…"));
  }

  learn(promised: readonly string[], output: string): void {
    const came = [...output.matchAll(/[Dd]ecision ([0-9a-z]+)/g)].map(([, id = ""]) => id);
    const written = [...promised.join("\n").matchAll(/[Dd]ecision ([0-9a-z]+)…/g)].map(([, id = ""]) => id);
    for (const [index, id] of written.entries()) this.#came.set(id, came[index]?.slice(0, id.length) ?? id);
  }
}
