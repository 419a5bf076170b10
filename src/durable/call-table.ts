import { closeSync, constants, fchmodSync, openSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";

/** An answer as it can be given again. */
export interface KeptAnswer {
  readonly status: number;
  /** Flat list of names and values. */
  readonly headers: readonly string[];
  readonly body: Uint8Array;
}

/** One request with a key. */
export interface KeyedRequest {
  /** Digest of everything that a key is good for: who asked, what service, what method, what path, and the key. */
  readonly scope: string;
  /** Digest of who asked, for that caller's share of the store. */
  readonly caller: string;
  /** Digest of what was asked. */
  readonly fingerprint: string;
}

/**
 * What is known of a key. `nothing`: the intent to send is written now, and the request is the asker's to send. `sent`: it was sent before, and no answer
 * is known. `unkept`: it was answered, by an answer that there was no room for.
 */
export type Found =
  | { readonly found: "nothing" }
  | { readonly found: "sent" }
  | { readonly found: "other-request" }
  | { readonly found: "unkept" }
  | { readonly found: "full" }
  | { readonly found: "answer"; readonly answer: KeptAnswer };

/** Where answers are kept, with everything done at once: for the thread that has nothing else to do. */
export interface CallTable {
  /** `again`: what was sent without a known answer may be sent once more. */
  claim(request: KeyedRequest, options: { now: number; expires: number; again: boolean }): Found;
  /** Keeps the answer, or only that there was one. */
  answer(request: KeyedRequest, answer: KeptAnswer | undefined, expires: number): void;
  /** Forgets a request that was not sent. */
  release(request: KeyedRequest): void;
  /** Removes what has expired, from the files too. Not inside `together`. */
  sweep(now: number): void;
  /** Does all of `work` in one transaction, synced to the disk when it returns. Throws what SQLite throws; then nothing of it is done. */
  together(work: () => void): void;
  close(): void;
}

/** What a row costs beside its answer. */
const ROW_BYTES = 512;
/** No caller has more than a quarter of the store, and of that an eighth is for keys alone: who has filled it with answers still never runs anything twice. */
const CALLERS_PART = 4;
const KEYS_PART = 8;
const PAGE_BYTES = 4_096;
const VERSION = 1;

const SCHEMA = `
  CREATE TABLE call (
    scope TEXT PRIMARY KEY,
    caller TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('sent', 'answered', 'unkept')),
    expires INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    status INTEGER,
    headers TEXT,
    body BLOB
  ) STRICT;
  CREATE INDEX call_expires ON call (expires);
  PRAGMA user_version = ${VERSION};
`;

interface Row {
  readonly caller: string;
  readonly fingerprint: string;
  readonly state: "sent" | "answered" | "unkept";
  readonly expires: number;
  readonly bytes: number;
  readonly status: number | null;
  readonly headers: string | null;
  readonly body: Uint8Array | null;
}

/** Opens the table in the file `path`, or in memory. Throws what SQLite throws, for a file that is none of ours, damaged, or in use. */
export function openCallTable({ path, maxBytes }: { path: string | undefined; maxBytes: number }): CallTable {
  if (path !== undefined) createPrivateFile(path);
  const db = new DatabaseSync(path ?? ":memory:");
  try {
    prepare(db, maxBytes);
  } catch (thrown) {
    db.close();
    throw thrown;
  }
  const find = db.prepare(
    "SELECT caller, fingerprint, state, expires, bytes, status, headers, body FROM call WHERE scope = ?",
  );
  const put = db.prepare(
    `INSERT INTO call (scope, caller, fingerprint, state, expires, bytes, status, headers, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (scope) DO UPDATE SET caller = excluded.caller, fingerprint = excluded.fingerprint, state = excluded.state,
     expires = excluded.expires, bytes = excluded.bytes, status = excluded.status, headers = excluded.headers, body = excluded.body`,
  );
  const remove = db.prepare("DELETE FROM call WHERE scope = ?");
  const removeExpired = db.prepare("DELETE FROM call WHERE expires <= ?");
  const sizes = db.prepare("SELECT caller, sum(bytes) AS bytes FROM call GROUP BY caller");
  let used = countUsed();

  function countUsed(): Map<string, number> {
    const rows = sizes.all() as unknown as { caller: string; bytes: number }[];
    return new Map(rows.map(({ caller, bytes }) => [caller, bytes]));
  }

  /** Whether `caller` may have `bytes` more, of which all but an eighth are for `what`. */
  function hasRoom(caller: string, bytes: number, what: "key" | "answer"): boolean {
    let total = 0;
    for (const each of used.values()) total += each;
    const part = what === "key" ? 1 : (KEYS_PART - 1) / KEYS_PART;
    const own = used.get(caller) ?? 0;
    return total + bytes <= maxBytes * part && own + bytes <= (maxBytes / CALLERS_PART) * part;
  }

  function changeUsed(caller: string, bytes: number): void {
    const now = (used.get(caller) ?? 0) + bytes;
    if (now > 0) used.set(caller, now);
    else used.delete(caller);
  }

  function write(
    { scope, caller, fingerprint }: KeyedRequest,
    state: Row["state"],
    expires: number,
    before: Row | undefined,
    answer?: KeptAnswer,
  ): void {
    const headers = answer && JSON.stringify(answer.headers);
    const bytes = ROW_BYTES + (headers?.length ?? 0) + (answer?.body.length ?? 0);
    const { status = null, body = null } = answer ?? {};
    put.run(scope, caller, fingerprint, state, expires, bytes, status, headers ?? null, body);
    if (before !== undefined) changeUsed(before.caller, -before.bytes);
    changeUsed(caller, bytes);
  }

  function rowOf({ scope }: KeyedRequest): Row | undefined {
    return find.get(scope) as unknown as Row | undefined;
  }

  function drop(request: KeyedRequest, row: Row): void {
    remove.run(request.scope);
    changeUsed(row.caller, -row.bytes);
  }

  return {
    claim(request, { now, expires, again }) {
      let row = rowOf(request);
      if (row !== undefined && row.expires <= now) {
        drop(request, row);
        row = undefined;
      }
      if (row === undefined) {
        if (!hasRoom(request.caller, ROW_BYTES, "key")) return { found: "full" };
        write(request, "sent", expires, undefined);
        return { found: "nothing" };
      }
      if (row.fingerprint !== request.fingerprint) return { found: "other-request" };
      if (row.state === "answered") return { found: "answer", answer: answerOf(row) };
      if (row.state === "unkept") return { found: "unkept" };
      if (!again) return { found: "sent" };
      write(request, "sent", expires, row);
      return { found: "nothing" };
    },
    answer(request, answer, expires) {
      const size = answer === undefined ? 0 : answer.body.length + JSON.stringify(answer.headers).length;
      const kept = answer !== undefined && hasRoom(request.caller, size, "answer") ? answer : undefined;
      write(request, kept === undefined ? "unkept" : "answered", expires, rowOf(request), kept);
    },
    release(request) {
      const row = rowOf(request);
      if (row !== undefined) drop(request, row);
    },
    sweep(now) {
      removeExpired.run(now);
      used = countUsed();
      // What is gone leaves the files too: answers hold data.
      db.exec("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)");
    },
    together(work) {
      db.exec("BEGIN IMMEDIATE");
      try {
        work();
        db.exec("COMMIT");
      } catch (thrown) {
        // A full disk rolls back by itself.
        if (db.isTransaction) db.exec("ROLLBACK");
        used = countUsed();
        throw thrown;
      }
    },
    close: () => db.close(),
  };
}

/** Nobody else may read it from the first moment on; SQLite gives its other files the same mode. */
function createPrivateFile(path: string): void {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  try {
    fchmodSync(fd, 0o600);
  } finally {
    closeSync(fd);
  }
}

function prepare(db: DatabaseSync, maxBytes: number): void {
  db.exec(`
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = ON;
    PRAGMA journal_size_limit = 1048576;
    PRAGMA max_page_count = ${Math.ceil((maxBytes * 2) / PAGE_BYTES) + 64};
  `);
  const [check] = db.prepare("PRAGMA quick_check(1)").all() as unknown as { quick_check: string }[];
  if (check?.quick_check !== "ok") throw new Error(`the file is damaged: ${check?.quick_check}`);
  const { user_version: version } = db.prepare("PRAGMA user_version").get() as unknown as { user_version: number };
  if (version === 0) db.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT`);
  else if (version !== VERSION) throw new Error(`the file is of another version (${version})`);
  // Taken now and kept: the second daemon on one file hears of it here, not in the middle of a call.
  else db.exec("BEGIN IMMEDIATE; COMMIT");
}

function answerOf({ status, headers, body }: Row): KeptAnswer {
  return { status: status ?? 0, headers: JSON.parse(headers ?? "[]") as string[], body: body ?? new Uint8Array() };
}
