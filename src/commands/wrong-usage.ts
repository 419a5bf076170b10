import { CodedError, messageOf } from "../coded-error.js";
import { nearest } from "../config/nearest.js";

/** What is asked of the command framework's `Config`: which commands there are, by ids as `policy:check`. */
export interface CommandTable {
  readonly commandIDs: readonly string[];
  findCommand(id: string): CommandShape | undefined;
}

interface CommandShape {
  readonly args?: Readonly<Record<string, unknown>>;
  readonly strict?: boolean | undefined;
  readonly flags?: Readonly<Record<string, unknown>>;
}

/**
 * What is wrong with the words before the first flag: no command, a misspelt one, or a word too many. Undefined where they name a command or a topic,
 * whose own business the rest is.
 */
export function wrongCommand(argv: readonly string[], table: CommandTable): CodedError | undefined {
  const end = argv.findIndex((arg) => arg.startsWith("-"));
  const [first, ...others] = end < 0 ? argv : argv.slice(0, end);
  if (first === undefined) return wrongFirstFlag(argv);
  const words = [...first.split(":"), ...others];
  const known = table.commandIDs.map((id) => id.split(":"));
  const depth = words.findIndex((_, index) => !known.some((id) => startsWith(id, words.slice(0, index + 1))));
  if (depth < 0) return undefined;
  const [group, word, rest] = [words.slice(0, depth), words[depth] ?? "", words.slice(depth + 1)];
  const command = table.findCommand(group.join(":"));
  if (command !== undefined) return tooMany(group, word, command);
  return new CodedError("wrong-usage", `there is no command ${JSON.stringify([...group, word].join(" "))}${meant()}`, {
    hint: `${["agentid", ...group].join(" ")} --help lists the commands`,
  });

  function meant(): string {
    const choices = [...new Set(known.filter((id) => startsWith(id, group)).map((id) => id[depth] ?? ""))];
    const near = nearest(word, choices);
    if (near !== undefined) {
      const whole = [...group, near, ...rest];
      return `; did you mean ${JSON.stringify((wrongCommand(whole, table) === undefined ? whole : [...group, near]).join(" "))}?`;
    }
    // `agentid check` where `policy check` is meant.
    const elsewhere = known
      .filter((id) => id.length > 1 && id.at(-1) === word)
      .map((id) => JSON.stringify(id.join(" ")));
    return elsewhere.length === 0 ? "" : `; did you mean ${elsewhere.join(" or ")}?`;
  }
}

function startsWith(id: readonly string[], words: readonly string[]): boolean {
  return words.every((word, index) => id[index] === word);
}

function tooMany(
  command: readonly string[],
  word: string,
  { args = {}, strict }: CommandShape,
): CodedError | undefined {
  if (strict === false || Object.keys(args).length > 0) return undefined;
  return wrongUsage(command, `${command.join(" ")} takes no argument, and got ${JSON.stringify(word)}`);
}

/** Flags of all commands stand behind the command. */
function wrongFirstFlag([flag]: readonly string[]): CodedError | undefined {
  if (flag === undefined || ["--help", "-h", "--version"].includes(flag)) return undefined;
  return new CodedError("wrong-usage", `${flag} stands where a command is expected`, {
    hint: `agentid COMMAND ${flag}; agentid --help lists the commands`,
  });
}

/**
 * What the framework's parser throws (flags that do not exist, missing arguments, values that cannot be read), as an error of ours. `id` is the command's,
 * as `policy:check`.
 */
export function wrongArguments(thrown: unknown, id: string, table: CommandTable): CodedError {
  const command = id.split(":");
  const flags = Object.keys(table.findCommand(id)?.flags ?? {}).map((name) => `--${name}`);
  const [missing] = missingArguments(thrown);
  if (missing !== undefined) return wrongUsage(command, `${command.join(" ")} needs ${missing}`);
  const [unknown] = unknownFlags(thrown);
  if (unknown === undefined) return wrongUsage(command, parserMessage(thrown));
  const near = nearest(unknown, flags);
  const meant = near === undefined ? "" : `; did you mean ${JSON.stringify(near)}?`;
  return wrongUsage(command, `${command.join(" ")} has no flag ${JSON.stringify(unknown)}${meant}`);
}

function wrongUsage(command: readonly string[], message: string): CodedError {
  return new CodedError("wrong-usage", message, { hint: `agentid ${command.join(" ")} --help shows what it takes` });
}

function unknownFlags(thrown: unknown): readonly string[] {
  if (!(thrown instanceof Error) || !("flags" in thrown) || !Array.isArray(thrown.flags)) return [];
  return thrown.flags.filter((flag) => typeof flag === "string");
}

function missingArguments(thrown: unknown): readonly string[] {
  if (!(thrown instanceof Error) || !("args" in thrown) || !Array.isArray(thrown.args)) return [];
  const missing = thrown.args.filter(
    (arg): arg is { name: string; description?: string } => typeof arg?.name === "string",
  );
  return missing.map(({ name, description = "" }) => `${name.toUpperCase()}${description && `: ${description}`}`);
}

/** Without the parser's own hint at the end; in one line where it sets a reason below. */
function parserMessage(thrown: unknown): string {
  const message = messageOf(thrown).replace(/\nSee more help with --help$/, "");
  return message.replace(/^Parsing (--\S+) ?\n\t/, "$1: ").trim();
}
