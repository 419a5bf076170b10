import { describe, expect, it } from "vitest";
import { agentid, bin, makeProject, run } from "./agentid.js";

const project = makeProject({ "agentid.yaml": "trustDomain: shop.local\n" });

/** What is typed, and what is said of it. */
const SLIPS: readonly (readonly [line: string, said: string, hint: string])[] = [
  ["dve", 'there is no command "dve"; did you mean "dev"?', "agentid --help"],
  ["dve --help", 'there is no command "dve"; did you mean "dev"?', "agentid --help"],
  ["help dve", 'there is no command "dve"; did you mean "dev"?', "agentid --help"],
  ["zzzzzzz", 'there is no command "zzzzzzz"', "agentid --help"],
  ["policy chekc", 'there is no command "policy chekc"; did you mean "policy check"?', "agentid policy --help"],
  ["polcy check", 'there is no command "polcy"; did you mean "policy check"?', "agentid --help"],
  ["polcy", 'there is no command "polcy"; did you mean "policy"?', "agentid --help"],
  ["pin", 'there is no command "pin"; did you mean "entry pin" or "mcp pin"?', "agentid --help"],
  ["status extra", 'status takes no argument, and got "extra"', "agentid status --help"],
  ["status --jsno", 'status has no flag "--jsno"; did you mean "--json"?', "agentid status --help"],
  ["policy check --bogus", 'policy check has no flag "--bogus"', "agentid policy check --help"],
  ["attest", "attest needs PID: process id", "agentid attest --help"],
  ["attest abc", "Expected an integer but received: abc", "agentid attest --help"],
  ["policy check --project /nowhere", "--project: No directory found at /nowhere", "agentid policy check --help"],
  ["ci --bogus -- true", 'ci has no flag "--bogus"', "agentid ci --help"],
  ["ci true", "true stands before --", "agentid ci -- true"],
  ["-x", "-x stands where a command is expected", "agentid COMMAND -x"],
];

describe("wrong usage", () => {
  it.each(SLIPS)("%s", async (line, said, hint) => {
    const typed = line.split(" ");
    const { code, stdout, stderr } = await agentid(typed, { cwd: project });
    expect({ code, stdout, stderr: stderr.split("\n") }).toEqual({
      code: 2,
      stdout: "",
      stderr: [`agentid: ${said}`, expect.stringContaining(hint), ""],
    });
    const [words, behind] = [typed.slice(0, typed.indexOf("--") >>> 0), typed.slice(typed.indexOf("--") >>> 0)];
    const json = await agentid([...words, "--json", ...behind], { cwd: project });
    expect(json).toMatchObject({ code: 2, stderr: "" });
    expect(JSON.parse(json.stdout)).toEqual({
      error: { code: "wrong-usage", message: said, hint: expect.stringContaining(hint) },
    });
  });

  it("a reader that has gone ends a command without a word", async () => {
    const piped = `"${process.execPath}" "${bin}" help | true; echo "\${PIPESTATUS[0]}"`;
    expect(await run("bash", ["-c", piped], { cwd: project })).toEqual({
      code: 0,
      signal: null,
      stdout: "0\n",
      stderr: "",
    });
  });

  it.each([["policy check"], ["help policy check"], ["policy"], ["-h"], ["policy check -h"], ["--version"], [""]])(
    "is not: %s",
    async (line) => {
      const right = await agentid(line === "" ? [] : line.split(" "), { cwd: project });
      expect(right).toMatchObject({ code: 0, stderr: "" });
      expect(right.stdout).not.toBe("");
    },
  );
});
