import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { EXIT } from "../../src/commands/base-command.js";
import { openTerminal } from "../dashboard/terminal-session.js";
import { MAY_KNOW } from "../layers.js";
import { agentid, bin, giveTo, makeProject, python, type RunningDev, run, runtimeBase, startDev } from "./agentid.js";
import { type ConsoleBlock, consoleBlocks, DecisionIds, promiseOf } from "./console-block.js";

/** The pages say what is true: their commands are run, their tables compared with the code, their links followed. */

const root = dirname(dirname(bin));
const page = (name: string): string => readFileSync(join(root, name), "utf8");
const readme = page("README.md");
const pages = ["README.md", ...markdownBelow("docs")];

function markdownBelow(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => join(folder, name));
}

describe.each(["README.md", "docs/policies.md"])("%s: its commands, in order", (name) => {
  const shim = mkdtempSync(join(runtimeBase(), "bin-"));
  symlinkSync(bin, join(shim, "agentid"));
  giveTo(shim);
  /** What a newcomer has on the PATH: the system's programs, Node, and agentid as installed. */
  const PATH = [shim, dirname(process.execPath), "/usr/local/bin", "/usr/bin", "/bin"].join(":");
  const folders = new Map<string, string>();
  const ids = new DecisionIds();
  let running: RunningDev | undefined;
  /** Events before the block that was run last: what it has set off comes after them. */
  let seen = 0;
  let lastCode = 0;

  afterAll(async () => {
    await running?.stop();
    rmSync(shim, { recursive: true, force: true });
  });

  async function folderOf({ folder, template }: ConsoleBlock): Promise<string> {
    const known = folders.get(folder);
    if (known !== undefined) return known;
    const made = join(makeProject({}), folder);
    mkdirSync(made);
    giveTo(made);
    folders.set(folder, made);
    if (template !== undefined) {
      expect((await agentid(["init", "--template", template], { cwd: made })).code).toBe(0);
    }
    return made;
  }

  const blocks = consoleBlocks(page(name));

  it("there are some", () => {
    const folders = name === "README.md" ? ["shop", "ci", "empty"] : ["shop"];
    expect(blocks.map(({ folder }) => folder)).toEqual(expect.arrayContaining(folders));
  });

  it.skipIf(python === undefined).each(blocks)(
    "line $line in $folder",
    async (block) => {
      const cwd = await folderOf(block);
      if (block.stays) {
        expect(block.steps.map(({ command }) => command)).toEqual(["agentid dev"]);
        running = await startDev(cwd, [], { PATH });
        return;
      }
      const { after } = block;
      if (after !== undefined) await running?.until(({ event }) => event === after, seen);
      seen = running?.events.length ?? 0;
      for (const { command, output } of block.steps) {
        // One terminal: both outputs in one, and `$?` of the command before.
        const done = await run("sh", ["-c", `exec 2>&1; (exit ${lastCode}); ${ids.in(command)}`], {
          cwd,
          env: { PATH },
        });
        const promised = promiseOf(ids.loosened(output));
        expect(done.stdout, `$ ${command}`).toMatch(promised);
        ids.learn(output, done.stdout);
        lastCode = done.code ?? 1;
      }
    },
    90_000,
  );
});

describe("what is compared", () => {
  it("… stands for anything, and alone on a line for any lines; everything else counts", () => {
    expect("a 1 b\n").toMatch(promiseOf(["a … b"]));
    expect("a\nx\ny\nb\n").toMatch(promiseOf(["a", "…", "b"]));
    expect("a 1 c\n").not.toMatch(promiseOf(["a … b"]));
    expect("a\nb\nmore\n").not.toMatch(promiseOf(["a", "b"]));
    expect("a+b\n").toMatch(promiseOf(["a+b"]));
    expect("anything\n").not.toMatch(promiseOf([]));
  });

  it("an id that came takes the written one's place", () => {
    const ids = new DecisionIds();
    expect("no. Decision 9xyz1aaaa\n").toMatch(promiseOf(ids.loosened(["no. Decision abc12…"])));
    ids.learn(["no. Decision abc12…"], "no. Decision 9xyz1aaaa\n");
    expect(ids.in("agentid explain abc12")).toBe("agentid explain 9xyz1");
  });

  it("an unmarked console block is an error", () => {
    expect(() => consoleBlocks("```console\n$ true\n```\n")).toThrow("marked");
  });
});

describe.skipIf(python === undefined)("README.md: the picture of the dashboard", () => {
  it("is what a terminal of 100 × 30 shows, but for numbers", async () => {
    const picture = /```text\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
    const project = mkdtempSync(join(runtimeBase(), "picture-"));
    // The terminal is that of the tests' own user.
    const shop = { cwd: project, user: { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 } };
    expect((await agentid(["init", "--template", "mcp-server", "--trust-domain", "shop.local"], shop)).code).toBe(0);
    const environment = { TMPDIR: runtimeBase(), XDG_RUNTIME_DIR: "" };
    const terminal = openTerminal([bin, "dev", "--project", project], { columns: 100, rows: 30, environment });
    try {
      await terminal.until("● live");
      const done = await agentid(["run", "billing", "--", "python3", "agents/billing.py"], shop);
      expect(done.stderr).toBe("");
      await terminal.until("Last denial");
      const screen = facts(terminal.text());
      expect(screen).toEqual(expect.arrayContaining(facts(picture)));
      expect(facts(picture).length).toBeGreaterThanOrEqual(10);
    } finally {
      terminal.type("q");
      expect(await terminal.exited).toBe(0);
    }
  }, 60_000);
});

/** Lines of a screen that say something of the shop's calls and of the keys, without what differs from run to run. */
function facts(screen: string): string[] {
  return screen
    .split("\n")
    .filter((line) => /agentid {2}|billing|calls 2|Identities|mcp\/payments|small-refunds/.test(line))
    .map((line) =>
      line
        .replaceAll(/denial \w+ ─+/g, "denial ─")
        .replaceAll(/[█░]+/g, "█")
        .replaceAll(/policy \w{4} /g, "policy ")
        .replaceAll(/[\d.:]+/g, "N")
        .replaceAll(/ +/g, " "),
    )
    .filter((line) => !line.includes("who"));
}

describe("tables and links", () => {
  it("README.md lists every command there is, with its summary", async () => {
    const commands = readdirSync(join(root, "src/commands"), { recursive: true, encoding: "utf8" })
      .map((name) => ({
        name,
        text: name.endsWith(".ts") ? readFileSync(join(root, "src/commands", name), "utf8") : "",
      }))
      .filter(({ text }) => text.includes("export default class"))
      .map(({ name, text }) => ({
        name: name.replace(/\.ts$/, "").replace("/", " "),
        summary: /summary =\s+"([^"]+)"/.exec(text)?.[1],
      }));
    const rows = tableRows(readme, "Command").map(([command = "", summary]) => ({
      name: /^`agentid ((?:[a-z]+(?:-[a-z]+)* ?)+?)(?: (?:[A-Z[]|--).*)?`$/.exec(command)?.[1],
      summary,
    }));
    const sorted = (list: readonly { name: string | undefined }[]) =>
      [...list].sort((a, b) => ((a.name ?? "") < (b.name ?? "") ? -1 : 1));
    expect(sorted(rows)).toEqual(sorted(commands));
  });

  it("README.md lists every exit code", () => {
    const codes = tableRows(readme, "Code").map(([code]) => Number(code));
    expect(codes).toEqual([0, ...Object.values(EXIT)]);
  });

  it("docs/architecture.md draws the layers that the layer test holds", () => {
    const drawn = tableRows(page("docs/architecture.md"), "Layer").map(([layer = "", , knows = ""]) => [
      layer.replaceAll("`", ""),
      knows === "nothing" ? [] : knows.replaceAll("`", "").split(", ").sort(),
    ]);
    expect(Object.fromEntries(drawn)).toEqual(
      Object.fromEntries(Object.entries(MAY_KNOW).map(([layer, knows]) => [layer, [...knows].sort()])),
    );
  });

  it.each(pages)("%s: links lead to files that are there", (name) => {
    const targets = [...page(name).matchAll(/\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)/g)].map(([, target = ""]) => target);
    expect(targets.filter((target) => !existsSync(join(root, dirname(name), target)))).toEqual([]);
  });

  it.each(pages)("%s: names only test files that are there", (name) => {
    const tests = [...page(name).matchAll(/`(test\/[\w/.-]+\.tsx?)`/g)].map(([, file = ""]) => file);
    expect(tests.filter((file) => !existsSync(join(root, file)))).toEqual([]);
  });
});

/** The cells of the Markdown table whose first heading is `heading`. */
function tableRows(markdown: string, heading: string): string[][] {
  const table = new RegExp(`^\\| ${heading} \\|.*\\n\\|[-|]+\\n((?:\\|.*\\n)+)`, "m").exec(markdown)?.[1] ?? "";
  return table
    .trimEnd()
    .split("\n")
    .map((row) =>
      row
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim()),
    );
}
