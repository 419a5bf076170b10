import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type CallTable, type KeptAnswer, type KeyedRequest, openCallTable } from "../../src/durable/call-table.js";

const MEGABYTE = 1024 * 1024;
let directory: string;
let path: string;
let table: CallTable | undefined;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "agentid-table-"));
  path = join(directory, "calls.sqlite");
});

afterEach(() => {
  table?.close();
  table = undefined;
  rmSync(directory, { recursive: true });
});

function open(options: { path?: string | undefined; maxBytes?: number } = {}): CallTable {
  table = openCallTable({ path, maxBytes: MEGABYTE, ...options });
  return table;
}

const request = (scope: string, more: Partial<KeyedRequest> = {}): KeyedRequest => ({
  scope,
  caller: "a",
  fingerprint: "f",
  ...more,
});
const answer = (text: string): KeptAnswer => ({ status: 201, headers: ["X", "y"], body: Buffer.from(text) });
const at = (now: number, again = false) => ({ now, expires: now + 1_000, again });

describe("a key", () => {
  it("is unknown, then sent, then answered", () => {
    const calls = open();
    expect(calls.claim(request("k"), at(0))).toEqual({ found: "nothing" });
    expect(calls.claim(request("k"), at(1))).toEqual({ found: "sent" });
    calls.answer(request("k"), answer("done"), 1_000);
    const found = calls.claim(request("k"), at(2));
    if (found.found !== "answer") throw new Error(found.found);
    expect({ ...found.answer, body: Buffer.from(found.answer.body).toString() }).toEqual({
      status: 201,
      headers: ["X", "y"],
      body: "done",
    });
    expect(calls.claim(request("other"), at(2))).toEqual({ found: "nothing" });
  });

  it("belongs to one request, whatever became of it", () => {
    const calls = open();
    const other = { fingerprint: "g" };
    calls.claim(request("k"), at(0));
    expect(calls.claim(request("k", other), at(1, true))).toEqual({ found: "other-request" });
    calls.answer(request("k"), answer("done"), 1_000);
    expect(calls.claim(request("k", other), at(1))).toEqual({ found: "other-request" });
    calls.answer(request("k"), undefined, 1_000);
    expect(calls.claim(request("k", other), at(1))).toEqual({ found: "other-request" });
    expect(calls.claim(request("k"), at(1))).toEqual({ found: "unkept" });
  });

  it("that was sent may be sent again only where that is asked for; one that was answered never", () => {
    const calls = open();
    calls.claim(request("k"), at(0));
    expect(calls.claim(request("k"), at(1, true))).toEqual({ found: "nothing" });
    calls.answer(request("k"), undefined, 1_000);
    expect(calls.claim(request("k"), at(1, true))).toEqual({ found: "unkept" });
  });

  it("that was released is unknown", () => {
    const calls = open();
    calls.claim(request("k"), at(0));
    calls.release(request("k"));
    calls.release(request("never there"));
    expect(calls.claim(request("k"), at(1))).toEqual({ found: "nothing" });
  });

  it("is unknown once it has expired, to the millisecond, swept or not", () => {
    const calls = open();
    calls.claim(request("k"), at(0));
    calls.answer(request("k"), answer("done"), 1_000);
    calls.sweep(999);
    expect(calls.claim(request("k"), at(999)).found).toBe("answer");
    expect(calls.claim(request("k", { fingerprint: "g" }), at(1_000))).toEqual({ found: "nothing" });
  });

  it("is known for longer, not for less, where the clock goes back", () => {
    const calls = open();
    calls.claim(request("k"), at(1_000_000));
    calls.answer(request("k"), answer("done"), 1_001_000);
    calls.sweep(0);
    expect(calls.claim(request("k"), at(0)).found).toBe("answer");
  });

  it("that expired while its call ran is answered all the same", () => {
    const calls = open();
    calls.claim(request("k"), at(0));
    calls.sweep(5_000);
    calls.answer(request("k"), answer("done"), 10_000);
    expect(calls.claim(request("k"), at(5_001)).found).toBe("answer");
  });
});

describe("the file", () => {
  it("is the owner's alone, with all that SQLite lays beside it", () => {
    const before = process.umask(0);
    try {
      open().claim(request("k"), at(0));
    } finally {
      process.umask(before);
    }
    const files = readdirSync(directory);
    expect(files).toContain("calls.sqlite-wal");
    expect(files.map((name) => statSync(join(directory, name)).mode & 0o777)).toEqual(files.map(() => 0o600));
  });

  it("keeps what was committed when the process is gone, without a close", () => {
    const calls = open();
    calls.together(() => calls.claim(request("k"), at(0)));
    // What a `kill -9` leaves: the files as they are now.
    const left = mkdtempSync(join(tmpdir(), "agentid-left-"));
    try {
      for (const name of readdirSync(directory)) writeFileSync(join(left, name), readFileSync(join(directory, name)));
      const found = openCallTable({ path: join(left, "calls.sqlite"), maxBytes: MEGABYTE });
      expect(found.claim(request("k"), at(1))).toEqual({ found: "sent" });
      found.close();
    } finally {
      rmSync(left, { recursive: true });
    }
  });

  it("holds nothing of an answer that was swept", () => {
    const calls = open();
    calls.claim(request("k"), at(0));
    calls.answer(request("k"), answer("very secret answer".repeat(1_000)), 1_000);
    const holds = () => readdirSync(directory).some((name) => readFileSync(join(directory, name)).includes("secret"));
    expect(holds()).toBe(true);
    calls.sweep(1_000);
    expect(holds()).toBe(false);
  });

  it.each([
    ["no database", () => writeFileSync(path, "no database".repeat(1_000)), /not a database/],
    ["a database of somebody else", () => withDatabase((db) => db.exec("CREATE TABLE call (x)")), /already exists/],
    ["of a later version", () => withDatabase((db) => db.exec("PRAGMA user_version = 2")), /another version/],
    ["damaged", () => damage("call"), /damaged|malformed/],
    ["damaged where it is not read at once", () => damage("call_expires"), /the file is damaged/],
    ["a link", () => symlinkSync(join(directory, "elsewhere"), path), /ELOOP/],
  ])("is refused: %s", (_, prepare, message) => {
    prepare();
    expect(() => open()).toThrow(message);
    rmSync(path);
    expect(open().claim(request("k"), at(0))).toEqual({ found: "nothing" });
  });

  it("is one daemon's: another cannot open it", () => {
    open().claim(request("k"), at(0));
    expect(() => openCallTable({ path, maxBytes: MEGABYTE })).toThrow(/locked/);
    table?.close();
    expect(open().claim(request("k"), at(1))).toEqual({ found: "sent" });
  });

  it("that is opened again is locked before the first key", () => {
    open().claim(request("k"), at(0));
    table?.close();
    open();
    expect(() => openCallTable({ path, maxBytes: MEGABYTE })).toThrow(/locked/);
  });
});

describe("room", () => {
  it("is shared: one caller has a quarter, and its keys are refused when that is full; others' are not", () => {
    const calls = open();
    let taken = 0;
    while (calls.claim(request(`a${taken}`), at(0)).found === "nothing") taken += 1;
    expect(taken).toBe(MEGABYTE / 4 / 512);
    expect(calls.claim(request("b", { caller: "b" }), at(0))).toEqual({ found: "nothing" });
    // What is known stays known.
    expect(calls.claim(request("a0"), at(1))).toEqual({ found: "sent" });
    calls.release(request("a0"));
    expect(calls.claim(request("a-new"), at(1))).toEqual({ found: "nothing" });
  });

  it("for all together ends too", () => {
    const calls = open();
    let taken = 0;
    for (const caller of ["a", "b", "c", "d", "e"]) {
      while (calls.claim(request(`${caller}${taken}`, { caller }), at(0)).found === "nothing") taken += 1;
    }
    expect(taken).toBe(MEGABYTE / 512);
  });

  it("for answers ends before that for keys: what cannot be kept is known to have been answered", () => {
    const calls = open();
    const large = answer("x".repeat(64 * 1024));
    const found: string[] = [];
    for (const scope of ["1", "2", "3", "4", "5"]) {
      calls.claim(request(scope), at(0));
      calls.answer(request(scope), large, 1_000);
      found.push(calls.claim(request(scope), at(1)).found);
    }
    expect(found).toEqual(["answer", "answer", "answer", "unkept", "unkept"]);
    expect(calls.claim(request("6"), at(1))).toEqual({ found: "nothing" });
    calls.sweep(1_001);
    calls.answer(request("6"), large, 2_000);
    expect(calls.claim(request("6"), at(2)).found).toBe("answer");
  });

  it("is counted anew when the file is opened again", () => {
    const calls = open();
    for (let index = 0; index < 512; index += 1) calls.claim(request(`a${index}`), at(0));
    calls.close();
    expect(open().claim(request("one more"), at(0))).toEqual({ found: "full" });
  });

  it("on the disk ends: nothing of what was asked together is done, and the count is as before", () => {
    const calls = open();
    failsTogether(calls, () => {
      calls.claim(request("1"), at(0));
      calls.answer(request("1"), answer("x".repeat(100_000)), 1_000);
      throw new Error("the disk is full");
    });
    expect(calls.claim(request("1"), at(0))).toEqual({ found: "nothing" });
    for (let index = 1; index < 512; index += 1) {
      expect(calls.claim(request(`a${index}`), at(0))).toEqual({ found: "nothing" });
    }
  });
});

describe("a full disk", () => {
  it("is an error of what is asked; what was kept before is there, and so is room once something is released", () => {
    const hooks = new URL("../source-hooks.ts", import.meta.url).href;
    const source = new URL("../../src/durable/call-table.ts", import.meta.url).href;
    const program = `
      import { openCallTable } from ${JSON.stringify(source)};
      const calls = openCallTable({ path: ${JSON.stringify(path)}, maxBytes: 1e9 });
      const request = (n) => ({ scope: String(n), caller: "a", fingerprint: "f" });
      const at = { now: 0, expires: 1000, again: false };
      const body = Buffer.alloc(20000, "x");
      let n = 0;
      for (;; n += 1) {
        try {
          calls.together(() => calls.claim(request(n), at));
          calls.together(() => calls.answer(request(n), { status: 200, headers: [], body }, 1000));
        } catch (error) {
          console.log(JSON.stringify({ n, message: error.message, first: calls.claim(request(0), at).found }));
          break;
        }
        if (n > 1000) throw new Error("the disk never fills");
      }
    `;
    // 512 blocks of 512 bytes or 1 KiB, as the shell has them: no file grows beyond.
    const script = 'ulimit -f 512; exec "$0" --import "$1" --input-type=module -e "$2"';
    const { stdout, stderr } = spawnSync("sh", ["-c", script, process.execPath, hooks, program], { encoding: "utf8" });
    expect(stderr).toBe("");
    const said = JSON.parse(stdout) as { n: number; message: string; first: string };
    expect(said).toMatchObject({ message: expect.stringMatching(/disk|I\/O/), first: "answer" });
    expect(said.n).toBeGreaterThan(1);
    expect(open({ maxBytes: 1e9 }).claim(request(String(said.n - 1), { fingerprint: "f" }), at(1)).found).toBe(
      "answer",
    );
  });
});

function failsTogether(calls: CallTable, work: () => void): void {
  expect(() => calls.together(work)).toThrow("the disk is full");
}

function withDatabase(work: (db: DatabaseSync) => void): void {
  const db = new DatabaseSync(path);
  work(db);
  db.close();
}

/** Overwrites the first page of a table or an index. */
function damage(name: string): void {
  const calls = open();
  for (let index = 0; index < 200; index += 1) calls.claim(request(`${index}`), at(0));
  calls.close();
  table = undefined;
  let page = 0;
  withDatabase((db) => {
    ({ page } = db.prepare("SELECT rootpage AS page FROM sqlite_schema WHERE name = ?").get(name) as { page: number });
  });
  const bytes = readFileSync(path);
  bytes.fill(0xee, (page - 1) * 4_096, page * 4_096);
  writeFileSync(path, bytes);
}
