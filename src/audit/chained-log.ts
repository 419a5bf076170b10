import {
  closeSync,
  constants,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  statSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { messageOf } from "../coded-error.js";
import { type Clock, isoTimes } from "../platform/clock.js";
import { AuditError } from "./audit-error.js";
import type { AuditEntry, AuditFields, AuditKind, AuditLog, AuditReceipt } from "./audit-log.js";
import { canonicalFields, GENESIS } from "./chain.js";
import { LineBuffer } from "./line-buffer.js";
import type { PreparedFields } from "./prepared-fields.js";
import { readEntries } from "./read-entries.js";
import { segmentName, segmentNumber, segmentsInSync } from "./segments.js";
import { digestOfFile, inspectTail } from "./tail.js";
import { type AuditVerification, verifyAuditLog } from "./verify.js";

export interface AuditLogOptions {
  readonly clock: Clock;
  /** Called when the file turns out not to be what was written to it. The log goes on in a new segment; a person should look. */
  readonly onTampered?: (finding: AuditError) => void;
}

/** The log of a project, in files. */
export interface AuditLogFile extends AuditLog {
  /** Hash of the newest entry. */
  readonly head: string;
  /** AuditErrors `audit-tampered`, oldest first: what was found wrong since the log was opened, in words that name the entry. */
  readonly findings: readonly AuditError[];
  /**
   * Verifies everything written so far, off the event loop's long path. If the segment being written is broken, the log goes on in a new one.
   * Worth calling once after the start: opening checks a long log only at its end.
   */
  verify(): Promise<AuditVerification>;
}

const SYNC_WITHIN_MS = 50;
const VERIFIED_AT_OPEN_BYTES = 2 * 1024 * 1024;

/**
 * Opens the log in `directory` for appending, making it (0700, files 0600) where it is missing. One process at a time: the daemon's own lock sees
 * to that, and a write by anybody else is noticed at the next append. A last line that a power cut left torn is cut off and recorded; anything
 * else that does not chain is left as it is, and the log goes on in a new segment that names it.
 * Throws AuditError `audit-unwritable`.
 */
export async function openAuditLog(directory: string, options: AuditLogOptions): Promise<AuditLogFile> {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const log = new ChainedLog(directory, options);
    await log.open();
    return log;
  } catch (cause) {
    if (cause instanceof AuditError) throw cause;
    throw unwritable(cause);
  }
}

/** An entry that is written at the end of this turn of the event loop, and who waits for that. */
interface WaitingEntry {
  readonly kind: AuditKind;
  readonly fields: AuditFields | PreparedFields;
  readonly time: string;
  readonly resolve: (receipt: AuditReceipt) => void;
  readonly reject: (thrown: unknown) => void;
}

/** Ends with the callback of the event loop that runs now; a tick costs several times as much. */
const WHEN_THIS_IS_OVER = Promise.resolve();

class ChainedLog implements AuditLogFile {
  readonly findings: AuditError[] = [];
  readonly #directory: string;
  readonly #clock: Clock;
  readonly #onTampered: (finding: AuditError) => void;
  #segment = 0;
  /** The path of the segment `#pathOf`. */
  #pathText = "";
  #pathOf = -1;
  #fd = -1;
  /** Identity and length of the file as we left it: any difference is somebody else's. */
  #inode = 0;
  #bytes = 0;
  #sequence = 0;
  #head = GENESIS;
  #cancelSync: (() => void) | undefined;
  #syncing = false;
  #syncFailed: unknown;
  /** True after a write that failed half way and could not be undone yet. */
  #torn = false;
  #closed = false;
  #waiting: WaitingEntry[] = [];
  /** Entries that were asked for in this turn of the event loop so far, and whether it were several in the one before that had any. */
  #inTurn = 0;
  #shared = false;
  readonly #timeText = isoTimes();
  readonly #lines = new LineBuffer();
  /** Those of the last entry that was written in a turn, and their canonical form. */
  #fields: AuditFields | PreparedFields | undefined;
  #canonical = "";

  constructor(directory: string, options: AuditLogOptions) {
    this.#directory = directory;
    this.#clock = options.clock;
    this.#onTampered = options.onTampered ?? (() => {});
  }

  get size(): number {
    return this.#sequence;
  }

  get head(): string {
    return this.#head;
  }

  async open(): Promise<void> {
    this.#segment = segmentNumber(segmentsInSync(this.#directory).at(-1) ?? segmentName(0));
    this.#openSegment(constants.O_CREAT);
    const tail = inspectTail(this.#path, this.#bytes);
    const whole = this.#segment > 0 || this.#bytes <= VERIFIED_AT_OPEN_BYTES || tail.problem !== undefined;
    if (tail.tornBytes > 0) {
      ftruncateSync(this.#fd, this.#bytes - tail.tornBytes);
      this.#bytes -= tail.tornBytes;
    }
    this.#sequence = tail.sequence;
    this.#head = tail.head;
    if (whole && this.#bytes > 0) {
      const found = await verifyAuditLog(this.#directory, { lastSegmentBytes: this.#bytes });
      this.#sequence = found.entries;
      const broken = found.problems.find((problem) => problem.segment === segmentName(this.#segment));
      if (broken !== undefined) this.#goOn(`entry ${broken.sequence}: ${broken.problem}`);
    } else if (this.#segment > 0 && this.#bytes === 0) {
      // The process ended between making this segment and writing why.
      const found = await verifyAuditLog(this.#directory);
      this.#sequence = found.entries;
      this.#goOn("a segment was begun and nothing written to it");
    }
    if (tail.tornBytes > 0) {
      this.append("record.torn", { bytes: tail.tornBytes, digest: tail.tornDigest }, { sync: true });
    }
  }

  append(kind: AuditKind, fields: AuditFields | PreparedFields, options: { sync?: boolean } = {}): AuditReceipt {
    this.#writeWaiting();
    this.#requireOpen();
    this.#checkFile();
    const sequence = this.#sequence;
    const hash = this.#write(kind, fields, this.#head);
    this.#sync(options.sync === true);
    return { sequence, hash };
  }

  appendInTurn(kind: AuditKind, fields: AuditFields | PreparedFields): Promise<AuditReceipt> {
    return new Promise((resolve, reject) => {
      this.#requireOpen();
      if (this.#inTurn === 0) this.#beginTurn();
      this.#inTurn += 1;
      this.#waiting.push({ kind, fields, time: this.#time(), resolve, reject });
    });
  }

  read(fromSequence: number, limit: number): Promise<readonly AuditEntry[]> {
    return readEntries(this.#directory, fromSequence, limit, this.#bytes);
  }

  async verify(): Promise<AuditVerification> {
    const segment = segmentName(this.#segment);
    const found = await verifyAuditLog(this.#directory, { lastSegmentBytes: this.#bytes });
    const broken = found.problems.find((problem) => problem.segment === segment);
    if (broken !== undefined && !this.#closed && segment === segmentName(this.#segment)) {
      this.#goOn(`entry ${broken.sequence}: ${broken.problem}`);
    }
    return found;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#writeWaiting();
    this.#closed = true;
    this.#cancelSync?.();
    // A sync in flight holds the descriptor; closing under it would sync whatever file gets its number next.
    await new Promise<void>((resolve) => {
      fdatasync(this.#fd, () => resolve());
    });
    while (this.#syncing) await new Promise((resolve) => setImmediate(resolve));
    closeSync(this.#fd);
  }

  get #path(): string {
    if (this.#pathOf !== this.#segment) this.#pathText = join(this.#directory, segmentName(this.#segment));
    this.#pathOf = this.#segment;
    return this.#pathText;
  }

  #openSegment(flags: number): void {
    const { O_WRONLY, O_APPEND, O_NOFOLLOW } = constants;
    this.#fd = openSync(this.#path, O_WRONLY | O_APPEND | O_NOFOLLOW | flags, 0o600);
    const stat = fstatSync(this.#fd);
    this.#inode = stat.ino;
    this.#bytes = stat.size;
  }

  /** Asks before each append, for 2 µs, whether the file is still the one that we wrote, as long as we left it. */
  #checkFile(): void {
    if (this.#torn) this.#cutTornLine();
    const stat = statSync(this.#path, { throwIfNoEntry: false });
    if (stat?.ino === this.#inode && stat.size === this.#bytes) return;
    const what =
      stat === undefined || stat.ino !== this.#inode
        ? "the file was removed or replaced while it was being written"
        : `the file is ${stat.size} bytes long and was left at ${this.#bytes}`;
    this.#goOn(`entry ${this.#sequence}: ${what}`);
  }

  /** Leaves the broken segment as it is and begins the next one with an entry that names it. Throws AuditError `audit-unwritable`. */
  #goOn(problem: string): void {
    const broken = segmentName(this.#segment);
    const finding = new AuditError("audit-tampered", `${broken}: ${problem}`, {
      hint: "the log goes on in a new file; `agentid audit verify` lists what does not fit",
    });
    const brokenPath = this.#path;
    const brokenFd = this.#fd;
    const before = { segment: this.#segment, inode: this.#inode, bytes: this.#bytes };
    try {
      const brokenDigest = digestOfFile(brokenPath);
      this.#segment += 1;
      this.#openSegment(constants.O_CREAT | constants.O_EXCL);
      this.#write("record.broken", { segment: broken, problem, brokenDigest }, GENESIS);
      fdatasyncSync(this.#fd);
    } catch (cause) {
      // Not begun: the next append tries again.
      if (this.#fd !== brokenFd) closeSync(this.#fd);
      this.#fd = brokenFd;
      this.#segment = before.segment;
      this.#inode = before.inode;
      this.#bytes = before.bytes;
      throw unwritable(cause);
    }
    closeSyncLater(brokenFd, () => this.#syncing);
    this.findings.push(finding);
    this.#onTampered(finding);
  }

  /**
   * Who comes first in a turn does not wait for others that may not come: alone, an answer goes out as early as with `append`. Where others came in the turn
   * before they are waited for, until whatever is ready in this turn has been looked at.
   */
  #beginTurn(): void {
    if (!this.#shared) void WHEN_THIS_IS_OVER.then(() => this.#writeWaiting());
    setImmediate(() => {
      this.#shared = this.#inTurn > 1;
      this.#inTurn = 0;
      this.#writeWaiting();
    });
  }

  #requireOpen(): void {
    if (this.#closed) throw new AuditError("audit-closed", "the audit log is closed");
  }

  #time(): string {
    return this.#timeText(this.#clock.now());
  }

  #write(kind: AuditKind, fields: AuditFields | PreparedFields, prev: string): string {
    this.#lines.clear();
    const hash = this.#lines.add(this.#sequence, this.#time(), kind, canonicalFields(kind, fields), prev);
    this.#writeLines(1, hash);
    return hash;
  }

  /** All that wait, in one write: either everybody's entry is in the file or nobody's. An entry that cannot be one fails by itself. */
  #writeWaiting(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    try {
      this.#checkFile();
      this.#lines.clear();
      const written: { readonly entry: WaitingEntry; readonly receipt: AuditReceipt }[] = [];
      let head = this.#head;
      for (const entry of waiting) {
        const { kind, fields, time } = entry;
        const sequence = this.#sequence + written.length;
        try {
          // Who asks for the same thing many times is recorded as many times, with the same fields.
          if (fields !== this.#fields) this.#canonical = canonicalFields(kind, fields);
          this.#fields = fields;
          head = this.#lines.add(sequence, time, kind, this.#canonical, head);
          written.push({ entry, receipt: { sequence, hash: head } });
        } catch (thrown) {
          entry.reject(thrown);
        }
      }
      if (written.length === 0) return;
      this.#writeLines(written.length, head);
      this.#sync(false);
      for (const { entry, receipt } of written) entry.resolve(receipt);
    } catch (thrown) {
      for (const { reject } of waiting) reject(thrown);
    }
  }

  /** Writes the lines of so many `entries`; `head` is the hash of the last. */
  #writeLines(entries: number, head: string): void {
    const { bytes } = this.#lines;
    try {
      const written = writeSync(this.#fd, bytes);
      if (written !== bytes.length) throw new Error(`only ${written} of ${bytes.length} bytes were written`);
    } catch (cause) {
      this.#torn = true;
      throw unwritable(cause);
    }
    this.#bytes += bytes.length;
    this.#sequence += entries;
    this.#head = head;
  }

  #cutTornLine(): void {
    try {
      ftruncateSync(this.#fd, this.#bytes);
      this.#torn = false;
    } catch (cause) {
      throw unwritable(cause);
    }
  }

  /** At once where asked for, and where the sync of earlier entries failed; else soon. */
  #sync(atOnce: boolean): void {
    if (atOnce || this.#syncFailed !== undefined) this.#syncNow();
    else this.#syncSoon();
  }

  #syncNow(): void {
    try {
      fdatasyncSync(this.#fd);
      this.#syncFailed = undefined;
    } catch (cause) {
      this.#syncFailed = cause;
      throw unwritable(cause);
    }
  }

  #syncSoon(): void {
    if (this.#cancelSync !== undefined) return;
    this.#cancelSync = this.#clock.after(SYNC_WITHIN_MS, () => {
      this.#cancelSync = undefined;
      this.#syncing = true;
      fdatasync(this.#fd, (error) => {
        this.#syncing = false;
        if (error !== null) this.#syncFailed = error;
      });
    });
  }
}

function closeSyncLater(fd: number, busy: () => boolean): void {
  if (busy()) setImmediate(closeSyncLater, fd, busy);
  else closeSync(fd);
}

function unwritable(cause: unknown): AuditError {
  return new AuditError("audit-unwritable", `the audit log cannot be written: ${messageOf(cause)}`, {
    cause,
    hint: "what cannot be recorded is denied; free the disk or repair the folder .agentid/audit",
  });
}
