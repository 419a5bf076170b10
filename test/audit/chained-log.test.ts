import { hash } from "node:crypto";
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { canonicalize } from "json-canonicalize";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type AuditLogFile, openAuditLog } from "../../src/audit/chained-log.js";
import { verifyAuditLog } from "../../src/audit/verify.js";
import type { Clock } from "../../src/platform/clock.js";

let directory: string;
let opened: AuditLogFile[] = [];
/** What the log asked the clock to do later, with its delay. */
let later: { delayMs: number; run: () => void }[] = [];
const clock: Clock = {
  now: () => Date.UTC(2025, 0, 15, 12),
  after(delayMs, run) {
    later.push({ delayMs, run });
    return () => {};
  },
};

beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), "agentid-audit-")), "audit");
  later = [];
});
afterEach(async () => {
  await Promise.all(opened.map((log) => log.close()));
  opened = [];
  rmSync(join(directory, ".."), { recursive: true, force: true });
});

async function open(): Promise<AuditLogFile> {
  const log = await openAuditLog(directory, { clock });
  opened.push(log);
  return log;
}
const file = (name = "log.ndjson") => join(directory, name);
const linesOf = (name = "log.ndjson") => readFileSync(file(name), "utf8").trimEnd().split("\n");
/** What somebody writes who knows how hashes are made, but leaves the later entries alone. */
const forged = (line: string) => {
  const { hash: _hash, ...content } = JSON.parse(line.replace('"i":7', '"i":8')) as Record<string, unknown>;
  return canonicalize({ ...content, hash: hash("sha256", canonicalize(content), "hex") });
};
const copyOf = (path: string) => {
  copyFileSync(path, `${path}.copy`);
  return `${path}.copy`;
};
const fill = (log: AuditLogFile, count: number) => {
  for (let i = 0; i < count; i += 1) log.append("call", { i, text: "é\u202e\n😀" });
};

test("an entry is in the file when append returns, as canonical JSON that hashes to its hash and names the entry before it", async () => {
  const log = await open();
  const receipts = [log.append("call", { z: 1, a: { y: [true, null], b: "é" } }), log.append("pin", {})];
  const lines = linesOf();
  expect(lines).toHaveLength(2);
  let prev = "0".repeat(64);
  lines.forEach((line, sequence) => {
    const entry = JSON.parse(line) as Record<string, unknown>;
    expect(canonicalize(entry)).toBe(line);
    const { hash: digest, ...content } = entry;
    // Verified here with nothing of the log's own code: SHA-256 of RFC 8785 without `hash`.
    expect(digest).toBe(hash("sha256", canonicalize(content), "hex"));
    expect(entry).toMatchObject({ sequence, prev, time: "2025-01-15T12:00:00.000Z" });
    expect(receipts[sequence]).toEqual({ sequence, hash: digest });
    prev = String(digest);
  });
  expect(log).toMatchObject({ size: 2, head: prev });
});

test("entries of one turn are in the file when their promises resolve, in one chain with those of append, in the order of the calls", async () => {
  const log = await open();
  const early = [log.appendInTurn("call", { i: 0 }), log.appendInTurn("call", { i: 1 })];
  expect(readFileSync(file(), "utf8")).toBe("");
  // One that must be in the file at once takes those before it along.
  expect(log.append("pin", { i: 2 }).sequence).toBe(2);
  expect(linesOf()).toHaveLength(3);
  const late = [3, 4, 5].map(async (i) => {
    const receipt = await log.appendInTurn("call", { i });
    expect(linesOf()).toHaveLength(6);
    return receipt;
  });
  expect(linesOf()).toHaveLength(3);
  const receipts = await Promise.all([...early, ...late]);
  expect(receipts.map(({ sequence }) => sequence)).toEqual([0, 1, 3, 4, 5]);
  expect(linesOf().map((line) => (JSON.parse(line) as { fields: { i: number } }).fields.i)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(log).toMatchObject({ size: 6, head: receipts.at(-1)?.hash });
  expect(await verifyAuditLog(directory)).toMatchObject({ entries: 6, problems: [], head: log.head });
});

test("an entry that comes alone is written within its tick; where several came in the turn before, it waits for others of its turn", async () => {
  const log = await open();
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const tick = () => new Promise<void>((resolve) => process.nextTick(resolve));
  await turn();
  const alone = log.appendInTurn("call", { i: 0 });
  await tick();
  expect(linesOf()).toHaveLength(1);
  await alone;
  await turn();
  await Promise.all([1, 2, 3].map((i) => log.appendInTurn("call", { i })));
  await turn();
  const first = log.appendInTurn("call", { i: 4 });
  await tick();
  expect(linesOf()).toHaveLength(4);
  const second = log.appendInTurn("call", { i: 5 });
  await Promise.all([first, second]);
  expect(linesOf()).toHaveLength(6);
  expect(await verifyAuditLog(directory)).toMatchObject({ entries: 6, problems: [], head: log.head });
});

test("fields that many entries of one turn share stand in each of them, and an entry that is none takes no other with it", async () => {
  const log = await open();
  const [same, none] = [{ b: 1, a: ["x"] }, { text: "x".repeat(70_000) }];
  const fields = [same, same, { a: 2 }, same, none, none, same, same];
  const outcomes = await Promise.allSettled(fields.map((one) => log.appendInTurn("call", one)));
  expect(outcomes.map((outcome) => outcome.status === "fulfilled")).toEqual(fields.map((one) => one !== none));
  expect(linesOf().map((line) => (JSON.parse(line) as { fields: unknown }).fields)).toEqual(
    fields.filter((one) => one !== none),
  );
  expect(await verifyAuditLog(directory)).toMatchObject({ entries: 6, problems: [], head: log.head });
});

test("of the entries of one turn only the one that cannot be one is refused, and what waits is written before the log closes", async () => {
  const log = await open();
  const outcomes = Promise.allSettled([
    log.appendInTurn("call", { i: 0 }),
    log.appendInTurn("call", { text: "x".repeat(70_000) }),
    log.appendInTurn("call", { i: 2 }),
  ]);
  await log.close();
  const [first, tooLarge, last] = await outcomes;
  expect(first).toMatchObject({ status: "fulfilled", value: { sequence: 0 } });
  expect(tooLarge).toMatchObject({ status: "rejected", reason: { code: "audit-entry-invalid" } });
  expect(last).toMatchObject({ status: "fulfilled", value: { sequence: 1 } });
  expect(await verifyAuditLog(directory)).toMatchObject({ entries: 2, problems: [] });
  await expect(log.appendInTurn("call", {})).rejects.toMatchObject({ code: "audit-closed" });
});

test("the folder is 0700 and the file 0600", async () => {
  await open();
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  expect(statSync(file()).mode & 0o777).toBe(0o600);
});

test("entries are synced together within 50 ms, and at once where asked", async () => {
  const log = await open();
  fill(log, 3);
  expect(later.map(({ delayMs }) => delayMs)).toEqual([50]);
  log.append("authority.created", {}, { sync: true });
  expect(later).toHaveLength(1);
  later[0]?.run();
  log.append("call", {});
  expect(later).toHaveLength(2);
});

test("a log opened again goes on where it ended", async () => {
  const first = await open();
  fill(first, 100);
  await first.close();
  expect(() => first.append("call", {})).toThrow(expect.objectContaining({ code: "audit-closed" }));
  const second = await open();
  expect(second).toMatchObject({ size: 100, head: first.head, findings: [] });
  second.append("call", {});
  expect(await verifyAuditLog(directory)).toMatchObject({ entries: 101, problems: [], head: second.head });
});

test("entries are read from anywhere", async () => {
  const log = await open();
  for (let i = 0; i < 3_000; i += 1) log.append("call", { i, filling: "x".repeat(400) });
  for (const from of [0, 1, 1234, 2998]) {
    const entries = await log.read(from, 2);
    expect(entries.map((entry) => [entry.sequence, entry.fields.i])).toEqual([
      [from, from],
      [from + 1, from + 1],
    ]);
  }
  expect(await log.read(3_000, 5)).toEqual([]);
  expect(await log.read(0, 0)).toEqual([]);
  expect(await log.read(-5, 1)).toHaveLength(1);
});

test.each([
  ["half a line", '{"fields":{"tor'],
  ["bytes that were never written", "\0".repeat(300)],
])("%s at the end, as a power cut leaves it, is cut off and recorded as such", async (_what, torn) => {
  const log = await open();
  fill(log, 5);
  await log.close();
  appendFileSync(file(), torn);
  const again = await open();
  expect(again.findings).toEqual([]);
  expect((await again.read(5, 10)).map(({ kind, fields }) => [kind, fields])).toEqual([
    ["record.torn", { bytes: torn.length, digest: hash("sha256", torn, "hex") }],
  ]);
  expect((await verifyAuditLog(directory)).problems).toEqual([]);
});

test.each<[string, (lines: string[]) => string[], number]>([
  ["a value changed", (lines) => lines.map((line) => line.replace('"i":7', '"i":8')), 7],
  [
    "one bit of the last entry changed",
    (lines) => lines.with(-1, (lines.at(-1) ?? "").replace('"i":19', '"i":18')),
    19,
  ],
  ["an entry removed", (lines) => lines.toSpliced(7, 1), 7],
  ["an entry put in twice", (lines) => lines.toSpliced(7, 0, lines[7] ?? ""), 8],
  ["two entries swapped", (lines) => lines.toSpliced(7, 2, lines[8] ?? "", lines[7] ?? ""), 7],
  ["the first entry removed", (lines) => lines.slice(1), 0],
  ["a line that is no entry", (lines) => lines.toSpliced(7, 1, "hello"), 7],
  ["an entry changed and its own hash made to fit", (lines) => lines.with(7, forged(lines[7] ?? "")), 8],
  ["an empty line", (lines) => lines.toSpliced(7, 0, ""), 7],
])(
  "%s: the entry is named, and the log goes on in a new file that pins the broken one",
  async (_what, change, entry) => {
    const log = await open();
    fill(log, 20);
    await log.close();
    expect((await verifyAuditLog(directory)).problems).toEqual([]);
    writeFileSync(file(), `${change(linesOf()).join("\n")}\n`);
    const broken = readFileSync(file());
    expect((await verifyAuditLog(directory)).problems[0]).toMatchObject({ sequence: entry, segment: "log.ndjson" });

    const again = await open();
    expect(again.findings).toMatchObject([{ code: "audit-tampered" }]);
    expect(again.findings[0]?.message).toContain(`entry ${entry}:`);
    again.append("call", {});
    expect(readFileSync(file())).toEqual(broken);
    const [opening] = linesOf("log-1.ndjson");
    expect(JSON.parse(opening ?? "")).toMatchObject({
      kind: "record.broken",
      fields: { segment: "log.ndjson", brokenDigest: hash("sha256", broken, "hex") },
    });
    await again.close();

    const third = await open();
    expect(third.findings).toEqual([]);
    expect(readdirSync(directory).sort()).toEqual(["log-1.ndjson", "log.ndjson"]);
    expect(third.size).toBe(again.size);
    appendFileSync(file(), "more\n");
    const { problems } = await verifyAuditLog(directory);
    expect(problems.at(-1)).toMatchObject({
      segment: "log.ndjson",
      problem: "the file was changed after the next one was begun",
    });
  },
);

test.each<[string, () => void]>([
  ["removed", () => rmSync(file())],
  ["replaced", () => renameSync(copyOf(file()), file())],
  ["cut", () => truncateSync(file(), 100)],
  ["written to by somebody else", () => appendFileSync(file(), "{}\n")],
])("a file that is %s while it is written is noticed at the next append", async (_what, change) => {
  const tampered: unknown[] = [];
  const log = await openAuditLog(directory, { clock, onTampered: (finding) => tampered.push(finding) });
  opened.push(log);
  fill(log, 5);
  expect(tampered).toEqual([]);
  change();
  expect(log.append("call", { after: true }).sequence).toBe(6);
  expect(tampered).toMatchObject([{ code: "audit-tampered" }]);
  expect(linesOf("log-1.ndjson").map((line) => JSON.parse(line).kind)).toEqual(["record.broken", "call"]);
  log.append("call", {});
  expect(tampered).toHaveLength(1);
});

test("a change in the middle of a long log, which opening does not look at, is found by verify, and the log goes on in a new file", async () => {
  const log = await open();
  for (let i = 0; i < 4_000; i += 1) log.append("call", { i, filling: "x".repeat(600) });
  await log.close();
  expect(statSync(file()).size).toBeGreaterThan(2 * 1024 * 1024);
  const text = readFileSync(file(), "utf8");
  writeFileSync(file(), text.replace('"i":5}', '"i":6}'));
  const again = await open();
  expect(again.findings).toEqual([]);
  expect((await again.verify()).problems).toMatchObject([{ sequence: 5 }]);
  expect(again.findings).toMatchObject([{ code: "audit-tampered" }]);
  again.append("call", {});
  expect(linesOf("log-1.ndjson")).toHaveLength(2);
  expect((await again.verify()).problems).toHaveLength(1);
  expect(again.findings).toHaveLength(1);
});

test("a cut that leaves whole entries shows only against a head kept elsewhere", async () => {
  const log = await open();
  fill(log, 10);
  await log.close();
  expect((await verifyAuditLog(directory, { expectedHead: log.head })).problems).toEqual([]);
  writeFileSync(file(), `${linesOf().slice(0, 8).join("\n")}\n`);
  expect((await verifyAuditLog(directory)).problems).toEqual([]);
  expect((await verifyAuditLog(directory, { expectedHead: log.head })).problems).toMatchObject([{ sequence: 8 }]);
});

test("an entry that is too large or no JSON is refused, and the log is as before", async () => {
  const log = await open();
  const refused = expect.objectContaining({ code: "audit-entry-invalid" });
  expect(() => log.append("call", { text: "x".repeat(70_000) })).toThrow(refused);
  expect(() => log.append("call", { number: Number.POSITIVE_INFINITY })).toThrow(refused);
  expect(log.append("call", { text: "x".repeat(60_000) }).sequence).toBe(0);
  expect((await verifyAuditLog(directory)).problems).toEqual([]);
});

test("a folder that cannot be made, and a log that is a link to somewhere else, are refused", async () => {
  writeFileSync(join(directory, "..", "blocked"), "");
  const unwritable = expect.objectContaining({ code: "audit-unwritable" });
  await expect(openAuditLog(join(directory, "..", "blocked", "audit"), { clock })).rejects.toThrow(unwritable);
  mkdirSync(directory);
  symlinkSync("../elsewhere", file());
  await expect(openAuditLog(directory, { clock })).rejects.toThrow(unwritable);
  expect(existsSync(join(directory, "..", "elsewhere"))).toBe(false);
});
