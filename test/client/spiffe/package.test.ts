import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { run, startProgram } from "../../e2e/agentid.js";
import { identity, type RunningApi, runApi } from "../../workload-api/running-api.js";

// The package as somebody else's project uses it: built, imported by its name, with its types; the programs are those of the documentation.
const root = resolve(import.meta.dirname, "../../..");
const user = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
const ID = "spiffe://shop.local/services/orders";
let project: string;
let running: RunningApi;

beforeAll(async () => {
  running = await runApi({ identities: [identity("services/orders")] });
  project = mkdtempSync(join(tmpdir(), "agentid-pk-"));
  mkdirSync(join(project, "node_modules/@agentid-dev"), { recursive: true });
  symlinkSync(root, join(project, "node_modules/@agentid-dev/agentid"));
  symlinkSync(join(root, "node_modules/@types"), join(project, "node_modules/@types"));
  writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module" }));
  for (const [name, text] of programs()) writeFileSync(join(project, name), text);
});
afterAll(async () => {
  await running.close();
  rmSync(project, { recursive: true });
});

/** The programs in the documentation, by the file name behind their language. */
function programs(): [string, string][] {
  const text = readFileSync(join(root, "docs/typescript-client.md"), "utf8");
  return [...text.matchAll(/```ts (\S+)\n([\s\S]*?)```/g)].map(([, name = "", program = ""]) => [name, program]);
}

const options = (env: Record<string, string> = {}) => ({
  cwd: project,
  user,
  env: { SPIFFE_ENDPOINT_SOCKET: `unix://${running.path}`, ...env },
});

describe("@agentid-dev/agentid/client", () => {
  it("has types that a strict project compiles with", () => {
    writeFileSync(
      join(project, "tsconfig.json"),
      JSON.stringify({
        compilerOptions: {
          strict: true,
          module: "NodeNext",
          target: "ES2024",
          noEmit: true,
          skipLibCheck: true,
          types: ["node"],
        },
        include: ["*.ts"],
      }),
    );
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    const compiled = spawnSync(process.execPath, [tsc, "-p", project], { encoding: "utf8" });
    expect([compiled.stdout, compiled.status]).toEqual(["", 0]);
    writeFileSync(join(project, "wrong.ts"), 'import { oneOf } from "@agentid-dev/agentid/client";\noneOf(7);\n');
    const refused = spawnSync(process.execPath, [tsc, "-p", project], { encoding: "utf8" });
    rmSync(join(project, "wrong.ts"));
    expect(refused.stdout).toContain("wrong.ts(2,7)");
  });

  it("lets the documented service and caller meet", async () => {
    const service = startProgram(process.execPath, ["service.ts"], options({ PORT: "0" }));
    const [, port = ""] = /port: (\d+)/.exec(await service.line()) ?? [];
    const caller = await run(process.execPath, ["caller.ts"], options({ PORT: port }));
    expect(caller).toMatchObject({ code: 0, stdout: `200 hello ${ID}\n` });
    const impostor = await run(
      process.execPath,
      ["--input-type=module", "-e", programs()[1]?.[1].replace("services/orders", "services/other") ?? ""],
      options({ PORT: port }),
    );
    expect(impostor.code).toBe(1);
    expect(impostor.stderr).toContain("peer-unauthorized");
    await service.end();
  });

  it("fetches and validates a token as documented", async () => {
    const token = await run(process.execPath, ["token.ts"], options());
    expect(token).toMatchObject({ code: 0, stdout: `${ID} true\n` });
  });
});
