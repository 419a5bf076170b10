import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, mkdirSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { bin, giveTo, makeProject, ordinaryUser, python, run, startDev } from "./agentid.js";

/**
 * What version managers, virtual environments, runners and first lines make of a launch: which of them become the agent, and which stay
 * and start it as their child. A tool that is not here is skipped, and says so.
 */

const node = process.execPath;
const ASK_PY = `#!/usr/bin/env python3
import os, urllib.request, urllib.error
try:
    with urllib.request.urlopen(os.environ["AGENTID_URL_INVOICES"] + "/v1/x", timeout=10) as response:
        print(response.status, response.read().decode(), flush=True)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode(), flush=True)
`;
const ASK_JS = `#!/usr/bin/env node
fetch(process.env.AGENTID_URL_INVOICES + "/v1/x").then(async (r) => console.log(r.status, await r.text()));
`;
const SERVICE = `const { createServer } = require("node:http");
createServer((request, response) => response.end(request.headers["x-forwarded-client-cert"])).listen(process.env.AGENTID_LISTEN);
`;

interface Setting {
  readonly project: string;
  /** Folders that come first on the PATH. */
  readonly path?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** One way to start a Python or Node program. */
interface Way {
  readonly what: string;
  /** Who becomes or starts the program: `itself` needs nothing, `child` needs `children: true`, for which a `hasty child` may be started too early. */
  readonly program: "itself" | "child" | "hasty child" | "nobody";
  readonly command: readonly string[];
  /** Undefined where the tool is missing. */
  set(project: string): Omit<Setting, "project"> | undefined;
}

const found = (name: string): string | undefined => {
  const path = spawnSync("sh", ["-c", `command -v ${name}`])
    .stdout.toString()
    .trim();
  return path === "" ? undefined : realpathSync(path);
};
/** Runs a command in the project as the ordinary user; throws what it says. */
function make(project: string, command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): void {
  const done = spawnSync(command, args, {
    cwd: project,
    env: { PATH: process.env.PATH, HOME: project, ...env },
    ...ordinaryUser,
  });
  if (done.status !== 0) throw new Error(`${command} ${args.join(" ")}: ${done.stderr}${done.stdout}`);
}
const link = (from: string, to: string): void => {
  mkdirSync(dirname(to), { recursive: true });
  symlinkSync(from, to);
};
/** A tool where the ordinary user can run it, alone in a folder. */
function tool(project: string, name: string): string | undefined {
  const path = found(name);
  if (path === undefined) return undefined;
  const copy = join(project, "tools", name);
  mkdirSync(dirname(copy), { recursive: true });
  cpSync(path, copy);
  giveTo(join(project, "tools"));
  return dirname(copy);
}

const ways: readonly Way[] = [
  { what: "a script with a first line", program: "itself", command: ["./agents/ask.py"], set: () => ({}) },
  {
    what: "a virtual environment's python",
    program: "itself",
    command: [".venv/bin/python", "agents/ask.py"],
    set(project) {
      make(project, realpathSync(python ?? ""), ["-m", "venv", "--without-pip", ".venv"]);
      return {};
    },
  },
  {
    what: "a pyenv shim",
    program: "itself",
    command: ["python", "agents/ask.py"],
    set(project) {
      const pyenv = found("pyenv");
      if (pyenv === undefined) return undefined;
      const root = join(project, "pyenv");
      for (const part of ["bin", "libexec"])
        cpSync(join(dirname(dirname(pyenv)), part), join(root, part), { recursive: true, verbatimSymlinks: true });
      const real = realpathSync(python ?? "");
      for (const name of ["python", "python3"]) link(real, join(root, "versions", "3.0.0", "bin", name));
      giveTo(root);
      const env = { PYENV_ROOT: root, PYENV_VERSION: "3.0.0" };
      make(project, join(root, "bin", "pyenv"), ["rehash"], env);
      return { path: [join(root, "shims"), join(root, "bin")], env };
    },
  },
  {
    what: "uv run",
    program: "hasty child",
    command: ["uv", "run", "--no-project", "--offline", "--python", realpathSync(python ?? node), "agents/ask.py"],
    set(project) {
      const folder = tool(project, "uv");
      return folder === undefined ? undefined : { path: [folder] };
    },
  },
  {
    what: "the python of an environment that uv made",
    program: "itself",
    command: [".venv/bin/python", "agents/ask.py"],
    set(project) {
      const folder = tool(project, "uv");
      if (folder === undefined) return undefined;
      make(project, join(folder, "uv"), ["venv", "--offline", "--python", realpathSync(python ?? ""), ".venv"]);
      return {};
    },
  },
  {
    what: "npx",
    program: "child",
    command: ["npx", "--no", "ask"],
    set(project) {
      if (found("npx") === undefined) return undefined;
      writeFileSync(join(project, "package.json"), '{ "name": "p", "private": true }');
      link("../../agents/ask.mjs", join(project, "node_modules", ".bin", "ask"));
      giveTo(join(project, "node_modules"));
      return {};
    },
  },
  {
    what: "the program behind npx",
    program: "itself",
    command: ["node_modules/.bin/ask"],
    set(project) {
      link("../../agents/ask.mjs", join(project, "node_modules", ".bin", "ask"));
      giveTo(join(project, "node_modules"));
      return {};
    },
  },
  {
    what: "node after nvm use",
    program: "itself",
    command: ["node", "agents/ask.mjs"],
    set(project) {
      const script = join(process.env.NVM_DIR ?? "", "nvm.sh");
      if (process.env.NVM_DIR === undefined || !existsSync(script)) return undefined;
      const root = join(project, "nvm");
      for (const part of ["nvm.sh", "nvm-exec"]) cpSync(join(process.env.NVM_DIR, part), join(root, part));
      link(realpathSync(node), join(root, "versions", "node", process.version, "bin", "node"));
      giveTo(root);
      const used = spawnSync("bash", ["-c", `. nvm/nvm.sh && nvm use ${process.version} >&2 && command -v node`], {
        cwd: project,
        env: { PATH: "/usr/bin:/bin", HOME: project, NVM_DIR: root },
        ...ordinaryUser,
      });
      const path = used.stdout.toString().trim();
      if (!path.startsWith(root)) throw new Error(`nvm use: ${used.stderr}`);
      return { path: [dirname(path)] };
    },
  },
  {
    what: "nvm-exec",
    program: "nobody",
    command: ["nvm/nvm-exec", "node", "agents/ask.mjs"],
    set(project) {
      const set = ways.find(({ what }) => what === "node after nvm use")?.set(project);
      return set && { ...set, env: { NODE_VERSION: process.version, NVM_DIR: join(project, "nvm") } };
    },
  },
  {
    what: "a mise shim",
    program: "itself",
    command: ["python3", "agents/ask.py"],
    set(project) {
      const folder = tool(project, "mise");
      if (folder === undefined) return undefined;
      const data = join(project, "mise");
      link(realpathSync(python ?? ""), join(project, "py", "bin", "python3"));
      writeFileSync(join(project, "mise.toml"), `[tools]\npython = "path:${join(project, "py")}"\n`);
      mkdirSync(data);
      for (const name of ["py", "mise", "mise.toml"]) giveTo(join(project, name));
      const env = {
        ...{ MISE_DATA_DIR: data, MISE_CACHE_DIR: data, MISE_STATE_DIR: data, MISE_CONFIG_DIR: data },
        ...{ MISE_OFFLINE: "1", MISE_TRUSTED_CONFIG_PATHS: project, MISE_YES: "1" },
      };
      make(project, join(folder, "mise"), ["reshim"], env);
      return { path: [join(data, "shims"), folder], env };
    },
  },
  {
    what: "mise exec",
    program: "nobody",
    command: ["mise", "exec", "--", "python3", "agents/ask.py"],
    set: (project) => ways.find(({ what }) => what === "a mise shim")?.set(project),
  },
];

const answers = {
  itself: { alone: /^200 .*agents\/a"?$/m, withChildren: /^200 .*agents\/a"?$/m },
  child: { alone: /^403 .*no identity/m, withChildren: /^200 .*agents\/a"?$/m },
  "hasty child": { alone: /^403 .*no identity/m, withChildren: undefined },
  nobody: { alone: /^403 .*no identity/m, withChildren: /^403 .*no identity/m },
};

describe.skipIf(python === undefined)("a launch through", () => {
  it.each(ways)("$what: $program", async ({ what, program, command, set }) => {
    const project = makeProject({
      "agents/ask.py": ASK_PY,
      "agents/ask.mjs": ASK_JS,
      "services/invoices.js": SERVICE,
      "policies/p.yaml":
        "rules: [ { name: a, allow: { from: agents/a, to: services/invoices, method: GET, path: /v1/x } } ]\n",
    });
    for (const name of ["ask.py", "ask.mjs"]) chmodSync(join(project, "agents", name), 0o755);
    const setting = set(project);
    if (setting === undefined) {
      process.stderr.write(`e2e: ${what} is not tried: the tool is not here\n`);
      return;
    }
    const PATH = [...(setting.path ?? []), dirname(realpathSync(node)), process.env.PATH].join(":");
    const env = { ...setting.env, PATH };
    for (const [children, wanted] of [
      [false, answers[program].alone],
      [true, answers[program].withChildren],
    ] as const) {
      if (wanted === undefined) continue;
      writeFileSync(
        join(project, "agentid.yaml"),
        `trustDomain: shop.local
identities:
  agents/a: { launch: { command: ${JSON.stringify(command)}, children: ${children} } }
  services/invoices: { service: invoices }
services: { invoices: { http: { command: [${JSON.stringify(node)}, services/invoices.js] } } }
reload: auto
`,
      );
      const dev = await startDev(project, ["--ephemeral"], env);
      try {
        const args = [bin, "run", "agents/a", "--", ...command];
        const launched = await run(node, args, { cwd: project, env: { ...env, ...dev.env } });
        expect(`${launched.stdout}${launched.stderr}`).toMatch(wanted);
      } finally {
        await dev.stop();
      }
    }
  });
});
