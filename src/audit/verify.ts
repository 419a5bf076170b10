import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { GENESIS, type LineClaims, readClaims } from "./chain.js";
import { segmentName, segmentNumber, segmentsIn } from "./segments.js";

export interface AuditVerification {
  /** One more than the number of the last entry. */
  readonly entries: number;
  /** At most 100; `problemCount` has the number of all. */
  readonly problems: readonly AuditProblem[];
  readonly problemCount: number;
  /** Hash of the last entry, 64 zeros for an empty log. Kept elsewhere and given back as `expectedHead`, it shows that a log was cut. */
  readonly head: string;
}

interface AuditProblem {
  /** Place of the entry in the log, from 0. */
  readonly sequence: number;
  /** In words. */
  readonly problem: string;
  /** `log.ndjson`. */
  readonly segment: string;
}

export interface VerifyOptions {
  /** Hash of an entry that the log must still hold: `agentid audit verify --head HASH`. */
  readonly expectedHead?: string;
  /** Read the last segment only up to here, for a log that is being written. */
  readonly lastSegmentBytes?: number;
}

const MAX_PROBLEMS = 100;
const NEWLINE = 0x0a;

/**
 * Verifies a log offline: each entry's hash is that of its content, names the entry before it and stands in its place. A chain alone cannot show
 * that its newest entries were cut off, or that all of it was written anew by somebody who can write the file: for that, keep a head elsewhere.
 */
export async function verifyAuditLog(directory: string, options: VerifyOptions = {}): Promise<AuditVerification> {
  const check = new ChainCheck(options.expectedHead);
  const segments = await segmentsIn(directory);
  for (const [index, segment] of segments.entries()) {
    const last = index === segments.length - 1;
    const end = last && options.lastSegmentBytes !== undefined ? options.lastSegmentBytes - 1 : Number.MAX_SAFE_INTEGER;
    check.startSegment(segment);
    if (end >= 0) await check.read(createReadStream(join(directory, segment), { end, highWaterMark: 1 << 20 }));
    check.endSegment();
  }
  return check.result();
}

class ChainCheck {
  readonly #expectedHead: string | undefined;
  readonly #problems: AuditProblem[] = [];
  #problemCount = 0;
  #entries = 0;
  #head = GENESIS;
  #headSeen: boolean;
  #segment = "";
  #segmentBefore = "";
  #firstOfSegment = true;
  #digest = createHash("sha256");
  /** Digest of the segment before, which the first entry of this one must name. */
  #digestBefore = "";
  #rest: Buffer = Buffer.alloc(0);

  constructor(expectedHead: string | undefined) {
    this.#expectedHead = expectedHead;
    this.#headSeen = expectedHead === undefined || expectedHead === GENESIS;
  }

  startSegment(segment: string): void {
    const expected = segmentNumber(segment) - 1;
    this.#segmentBefore = expected < 0 ? "" : segmentName(expected);
    if (expected >= 0 && this.#segment !== this.#segmentBefore) {
      this.#report(this.#entries, "the file is missing", this.#segmentBefore);
      this.#digestBefore = "";
    }
    this.#segment = segment;
    this.#firstOfSegment = expected >= 0;
    this.#digest = createHash("sha256");
  }

  async read(chunks: AsyncIterable<Buffer>): Promise<void> {
    for await (const chunk of chunks) {
      this.#digest.update(chunk);
      const data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
      let start = 0;
      for (;;) {
        const end = data.indexOf(NEWLINE, start);
        if (end === -1) break;
        this.#check(data.subarray(start, end));
        start = end + 1;
      }
      this.#rest = data.subarray(start);
    }
  }

  endSegment(): void {
    if (this.#rest.length > 0) {
      this.#report(this.#entries, "the last line is torn: it does not end in a newline");
      this.#rest = Buffer.alloc(0);
    }
    this.#digestBefore = this.#digest.digest("hex");
  }

  result(): AuditVerification {
    if (!this.#headSeen) {
      this.#report(this.#entries, `no entry has the hash ${this.#expectedHead}: the log was cut or written anew`);
    }
    return { entries: this.#entries, problems: this.#problems, problemCount: this.#problemCount, head: this.#head };
  }

  #check(line: Buffer): void {
    const sequence = this.#entries;
    this.#entries += 1;
    const claims = readClaims(line);
    if (claims === undefined) {
      this.#report(sequence, "the line is not an entry");
      return;
    }
    if (claims.actual !== claims.hash) this.#report(sequence, "its content is not what was written: the hash differs");
    if (this.#firstOfSegment) {
      this.#firstOfSegment = false;
      this.#checkOpening(line, claims, sequence);
    } else {
      if (claims.prev !== this.#head) {
        this.#report(sequence, "it does not follow the entry before it: one was changed, removed or put in between");
      }
      if (claims.sequence !== sequence) this.#report(sequence, `it says that it is entry ${claims.sequence}`);
    }
    // The log's own numbers go on from here, so that one cut is one problem.
    this.#entries = claims.sequence + 1;
    this.#head = claims.hash;
    if (claims.hash === this.#expectedHead) this.#headSeen = true;
  }

  /** A segment after the first is opened with an entry that pins the broken one before it; what does not fit is said of the one before. */
  #checkOpening(line: Buffer, claims: LineClaims, sequence: number): void {
    const pinned = digestNamedBy(tryParse(line));
    if (claims.prev !== GENESIS || pinned === undefined) {
      this.#report(sequence, "it does not say, as the first entry of a file must, why the file was begun");
    }
    if (this.#digestBefore === "") return;
    if (pinned !== undefined && pinned !== this.#digestBefore) {
      this.#report(sequence, "the file was changed after the next one was begun", this.#segmentBefore);
    } else if (claims.sequence !== sequence) {
      this.#report(sequence, `the next file goes on with entry ${claims.sequence}`, this.#segmentBefore);
    }
  }

  #report(sequence: number, problem: string, segment: string = this.#segment): void {
    this.#problemCount += 1;
    if (this.#problems.length < MAX_PROBLEMS) this.#problems.push({ sequence, problem, segment });
  }
}

function tryParse(line: Buffer): unknown {
  try {
    return JSON.parse(line.toString("utf8"));
  } catch {
    return undefined;
  }
}

function digestNamedBy(entry: unknown): string | undefined {
  if (typeof entry !== "object" || entry === null || !("fields" in entry)) return undefined;
  const { fields } = entry;
  if (typeof fields !== "object" || fields === null || !("brokenDigest" in fields)) return undefined;
  return typeof fields.brokenDigest === "string" ? fields.brokenDigest : undefined;
}
