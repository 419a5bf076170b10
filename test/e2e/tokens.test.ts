import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { agentid, bin, makeProject, type RunningDev, run, startDev } from "./agentid.js";

/** Fetches a token twice, on a connection of its own each time. */
const AGENT = `import { createWorkloadApiClient } from ${JSON.stringify(join(import.meta.dirname, "..", "..", "dist", "client", "spiffe", "index.js"))};
for (let time = 0; time < 2; time++) {
  const client = createWorkloadApiClient();
  const [svid] = await client.fetchJwtSvids({ audience: ["orders"] });
  console.log(svid.token);
  client.close();
}
`;
const command = [process.execPath, "agents/tokens.mjs"];

const project = makeProject({
  "agentid.yaml": `trustDomain: shop.local\nidentities:\n  agents/tokens:\n    launch: ${JSON.stringify(command)}\n`,
  "agents/tokens.mjs": AGENT,
});
let dev: RunningDev;
beforeAll(async () => {
  dev = await startDev(project);
});
afterAll(async () => {
  await dev.stop();
});

async function launched(): Promise<string[]> {
  const { code, stdout, stderr } = await run(process.execPath, [bin, "run", "tokens", "--", ...command], {
    cwd: project,
    env: dev.env,
  });
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return stdout.trim().split("\n");
}

async function recorded(kind: string): Promise<Record<string, unknown>[]> {
  const { stdout } = await agentid(["audit", "show", "--json"], { cwd: project, env: dev.env });
  const { entries } = JSON.parse(stdout) as { entries: { kind: string; fields: object }[] };
  return entries.flatMap((entry) => (entry.kind === kind ? [{ ...entry.fields }] : []));
}

it("one launch is handed its token again, the next one another; the record says which was which", async () => {
  const [first, again] = await launched();
  expect(first).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/);
  expect(again).toBe(first);
  await expect.poll(() => recorded("launch.ended"), { timeout: 20_000 }).toHaveLength(1);
  const [next, nextAgain] = await launched();
  expect(next).not.toBe(first);
  expect(nextAgain).toBe(next);
  const delivered = (await recorded("svid.delivered")).filter(({ type }) => type === "jwt");
  expect(delivered.map((fields) => fields.again ?? false)).toEqual([false, true, false, true]);
  expect((await recorded("svid.issued")).filter(({ type }) => type === "jwt")).toHaveLength(2);
}, 60_000);
