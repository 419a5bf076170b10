import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { expect, onTestFinished, test } from "vitest";
import { readEngineFiles } from "../../../src/policy/engines/engine-files.js";
import { FairQueue } from "../../../src/policy/engines/fair-queue.js";
import { decisionsOf, type EngineProject, http, loadProject, type TestedDecisions } from "./engine-project.js";

/** Made by `test/policy/engines/finance/build.sh`. */
const bundle = readFileSync(new URL("finance/finance.tar.gz", import.meta.url));

const finance = (entrypoint: string, more: EngineProject & { engine?: object } = {}): EngineProject => ({
  ...more,
  files: { "policies/finance.tar.gz": bundle, ...more.files },
  engines: [
    {
      name: "finance",
      bundle: "policies/finance.tar.gz",
      entrypoint: `finance/${entrypoint}`,
      scope: ["invoices"],
      // A busy machine is no reason to deny.
      timeout: "20s",
      ...more.engine,
    },
  ],
  entities: `entities:
  - { type: user, id: alice, properties: { department: finance } }
  - { type: user, id: bob, properties: { department: sales } }
`,
});

const read = (user: unknown = "alice", caller?: string) => http("GET", "/v1/invoices/1017", { user }, caller);

test("an enterprise policy: one SPIFFE ID, a user in finance, business hours by our clock and the place's own wall", async () => {
  const decisions = await decisionsOf(finance("allow"));
  // 15 January is a Wednesday; Berlin is an hour ahead in winter and two in summer.
  for (const [time, allowed] of [
    ["2025-01-15T07:59:59.999Z", false],
    ["2025-01-15T08:00:00Z", true],
    ["2025-01-15T15:59:59.999Z", true],
    ["2025-01-15T16:00:00Z", false],
    ["2025-07-16T06:59:59Z", false],
    ["2025-07-16T07:00:00Z", true],
    ["2025-07-16T15:00:00Z", false],
    ["2025-01-18T12:00:00Z", false],
  ] as const) {
    decisions.at(time);
    expect([time, (await decisions.judge(read())).allowed]).toEqual([time, allowed]);
  }
  decisions.at("2025-01-15T12:00:00Z");
  expect(await decisions.judge(read("bob"))).toMatchObject({
    allowed: false,
    engine: "finance",
    rule: "finance/allow",
  });
  expect(await decisions.judge(http("GET", "/v1/invoices/1017"))).toMatchObject({ allowed: false });
  expect(await decisions.judge(read("alice", "agents/planner"))).toMatchObject({ allowed: false });
  expect(await decisions.judge(http("GET", "/v1/orders/1", { user: "alice" }))).toMatchObject({ allowed: false });
  expect(await decisions.judge(http("DELETE", "/v1/invoices/1", { user: "alice" }))).toMatchObject({ allowed: false });
  const claimed = { id: "bob", properties: { department: "finance" } };
  expect(await decisions.judge(read(claimed))).toMatchObject({ allowed: true });
});

async function between(entrypoint: string, engine: object = {}): Promise<TestedDecisions> {
  return await decisionsOf(finance(entrypoint, { engine }));
}

test("an object answers with reasons and obligations", async () => {
  const explained = await between("explained");
  expect(await explained.judge(read())).toMatchObject({
    allowed: true,
    reason: expect.stringContaining("everything"),
    engine: "rules",
  });
  expect(await explained.judge(read("bob"))).toMatchObject({
    allowed: false,
    reason: "finance does not permit it: not in finance",
  });
  const obliged = await between("obliged");
  expect(await obliged.judge(read())).toMatchObject({
    allowed: true,
    obligations: [{ id: "two-eyes", type: "approval" }],
  });
});

test.each([
  ["a text that says true", "text", '"true", not with true or false'],
  ["an object with another member", "misspelt", "no decision"],
  ["a number", "now_text", "not with true or false"],
  ["a builtin that the target lacks", "calls_out", "http.send"],
  ["the negation of such a builtin", "not_called_out", "http.send"],
  ["no answer at all", "listed", "undefined"],
])("%s is a denial", async (_, entrypoint, reason) => {
  const decisions = await between(entrypoint);
  const decision = await decisions.judge(read());
  expect(decision).toMatchObject({ allowed: false, engine: "finance" });
  expect(decision.reason).toContain(reason);
  // The thread is good for the next one.
  const again = await decisions.judge(read());
  expect(again.reason).toBe(decision.reason);
});

test("data of the policy come from the data file", async () => {
  const data = JSON.stringify({ finance: { agents: ["spiffe://shop.local/agents/billing"] } });
  const decisions = await decisionsOf(
    finance("listed", { files: { "data.json": data }, engine: { data: "data.json" } }),
  );
  expect(await decisions.judge(read())).toMatchObject({ allowed: true });
  expect(await decisions.judge(read("alice", "agents/planner"))).toMatchObject({ allowed: false });
});

test("a policy that loops is a denial after the deadline, nobody else waits, and the next decision is made", async () => {
  const decisions = await between("endless", { timeout: "300ms" });
  const loop = decisions.judge(http("GET", "/v1/invoices/1", { product: -1 }));
  // The event loop turns while the policy does.
  let turns = 0;
  let done = false;
  const count = (): void => {
    turns += 1;
    if (!done) setImmediate(count);
  };
  setImmediate(count);
  const decision = await loop;
  done = true;
  expect(decision).toMatchObject({
    allowed: false,
    engine: "finance",
    reason: "the policy took longer than 300 ms",
  });
  expect(turns).toBeGreaterThan(10);
  const other = await between("allow");
  expect(await other.judge(read())).toMatchObject({ allowed: true });
});

test("a policy that fills its memory is a denial, and the next decision is made", async () => {
  const decisions = await between("hung", { timeout: "60s" });
  expect(await decisions.judge(http("GET", "/v1/invoices/1", { product: -1 }))).toMatchObject({
    allowed: false,
    engine: "finance",
    reason: "opa_malloc: failed",
  });
  const other = await between("allow");
  expect(await other.judge(read())).toMatchObject({ allowed: true });
});

test("whoever makes the policy loop makes only itself wait", async () => {
  const decisions = await between("endless", { timeout: "300ms" });
  const order: string[] = [];
  const asks = async (who: string, caller: string) => {
    await decisions.judge(read("alice", caller));
    order.push(who);
  };
  const loops = Array.from({ length: 8 }, () => asks("loops", "agents/billing"));
  await Promise.all([asks("other", "agents/planner"), ...loops]);
  // Two threads have what was there first, and one of them the next of the same.
  expect(order.indexOf("other")).toBeLessThanOrEqual(4);
});

test("a queue gives each owner its turn, and lets none of them fill it", () => {
  const queue = new FairQueue<string>({ each: 3, all: 5 });
  const added = ["a1", "a2", "a3", "a4", "b1", "c1", "d1"].map((item) => queue.add(item.slice(0, 1), item));
  expect(added).toEqual([true, true, true, false, true, true, false]);
  expect([queue.next(), queue.next(), queue.next(), queue.next()]).toEqual(["a1", "b1", "c1", "a2"]);
  expect(queue.add("b", "b2")).toBe(true);
  expect([queue.next(), queue.length, queue.drain()]).toEqual(["a3", 1, ["b2"]]);
  expect([queue.next(), queue.length]).toEqual([undefined, 0]);
});

test("what a policy prints is for nobody", async () => {
  const decisions = await between("prints");
  expect(await decisions.judge(read())).toMatchObject({ allowed: true });
});

test("a request too large for the thread is a denial", async () => {
  const decisions = await between("allow");
  expect(await decisions.judge(read())).toMatchObject({ allowed: true });
  const large = http("GET", "/v1/invoices/1", { user: "alice", note: "x".repeat(2 ** 20) });
  expect(await decisions.judge(large)).toMatchObject({
    allowed: false,
    reason: expect.stringContaining("larger than"),
  });
});

test("explain shows each engine's part", async () => {
  const decisions = await between("explained");
  const { considered } = await decisions.explain(read("bob"));
  expect(considered).toEqual([
    expect.objectContaining({ rule: "everything", effect: "allow", outcome: "matched" }),
    expect.objectContaining({
      rule: "finance: finance/explained",
      effect: "deny",
      detail: "finance does not permit it: not in finance",
    }),
  ]);
});

/** The bundle with one more file in front, as tar writes it: long paths in two parts. */
function withFile(name: string, content: string, prefix = ""): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write(`${content.length.toString(8).padStart(11, "0")}\0`, 124);
  header.write("        ", 148);
  header.write("0", 156);
  header.write("ustar\u000000", 257);
  header.write(prefix, 345);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  const body = Buffer.alloc(512);
  body.write(content);
  return gzipSync(Buffer.concat([header, body, gunzipSync(bundle)]));
}

test.each([
  ["an entrypoint that the bundle does not have", bundle, "finance/alow", "no entrypoint finance/alow; it has"],
  ["what is no archive", Buffer.from("policy"), "finance/allow", "not a bundle"],
  ["an archive that ends early", gzipSync(gunzipSync(bundle).subarray(0, 90_000)), "finance/allow", "ends early"],
  ["data beside its data.json", withFile("revoked/data.json", "{}"), "finance/allow", "holds revoked/data.json"],
  ["data under a long name", withFile("data.json", "{}", "x".repeat(90)), "finance/allow", `holds ${"x".repeat(90)}`],
  ["data as YAML", withFile("data.yaml", "{}"), "finance/allow", "holds data.yaml"],
  ["an archive without policy.wasm", gzipSync(Buffer.alloc(1024)), "finance/allow", "no policy.wasm"],
])("%s is refused when it is loaded", async (_, bytes, entrypoint, message) => {
  const { loaded, problems } = await loadProject({
    files: { "b.tar.gz": bytes },
    engines: [{ name: "finance", bundle: "b.tar.gz", entrypoint }],
  });
  expect(loaded).toBeUndefined();
  expect(problems.join("\n")).toContain(message);
});

test("without opa a .rego file is refused, and it is said what to do", async () => {
  const { loaded, problems } = await loadProject({
    files: { "finance.rego": "package finance\nallow := true\n" },
    engines: [{ name: "finance", rego: "finance.rego", entrypoint: "finance/allow" }],
    environment: { PATH: "/nonexistent" },
  });
  expect(loaded).toBeUndefined();
  expect(problems.join("\n")).toMatch(/opa must be on the PATH.*opa build -t wasm/);
});

test("files of a folder outside of the project keep their own names, and what is behind a link is not left out unseen", async () => {
  const outside = mkdtempSync(join(tmpdir(), "agentid-outside-"));
  onTestFinished(() => rmSync(outside, { recursive: true, force: true }));
  for (const name of ["one", "two"]) {
    mkdirSync(join(outside, name));
    writeFileSync(join(outside, name, "x.rego"), `package ${name}`);
  }
  const read = () => readEngineFiles(outside, join(outside, "..", "project"), [".rego"]);
  expect(new Set((await read()).map(({ shown }) => shown)).size).toBe(2);
  symlinkSync(join(outside, "one"), join(outside, "three"));
  await expect(read()).rejects.toMatchObject({
    code: "policy-file-unreadable",
    message: expect.stringContaining("link"),
  });
});

test("data that opa would read from the folder are named, or the policy is refused", async () => {
  const files = { "rego/finance.rego": "package finance\nallow := true\n", "rego/sub/data.json": "{}" };
  const engine = { name: "finance", rego: "rego", entrypoint: "finance/allow" };
  const environment = { PATH: "/nonexistent" };
  const { problems } = await loadProject({ files, engines: [engine], environment });
  expect(problems.join()).toContain("rego/sub/data.json: opa would take this for data");
  const named = await loadProject({ files, engines: [{ ...engine, data: "rego/sub/data.json" }], environment });
  expect(named.problems.join()).toContain("opa must be on the PATH");
});
