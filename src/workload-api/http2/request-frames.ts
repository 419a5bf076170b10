import { createFieldBlockReader } from "./field-block.js";

/** RFC 9113 §3.4. */
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
const FRAME_HEADER_BYTES = 9;
/** SETTINGS_MAX_FRAME_SIZE as long as nobody says otherwise, and the server does not. */
const MAX_FRAME_BYTES = 16_384;
const PRIORITY_BYTES = 5;

const frameType = {
  headers: 1,
  priority: 2,
  settings: 4,
  pushPromise: 5,
  windowUpdate: 8,
  continuation: 9,
} as const;
/** Frames of an opening that may wait: their answer is an acknowledgement, or nothing. */
const needsNoAnswer: ReadonlySet<number> = new Set([frameType.settings, frameType.windowUpdate, frameType.priority]);
const flag = { acknowledgement: 0x1, endOfHeaders: 0x4, padded: 0x8, priority: 0x20 } as const;

const NOTHING: Buffer = Buffer.alloc(0);

/**
 * What a client sends on one HTTP/2 connection, with what has no place in `:authority` overwritten (field-block.ts) and nothing else changed.
 *
 * It judges nothing. What it does not understand it passes on untouched, and so all that comes after: the server behind it answers as it would have.
 * It holds less than one frame header, whatever comes.
 */
export interface RequestFrames {
  /** Takes the next bytes and gives those to pass on. May change `chunk` in place. */
  pass(chunk: Buffer): Buffer;
  /** Bytes that are still held, for who reads on without it. */
  release(): Buffer;
  /** From now on the client owes an acknowledgement of SETTINGS that the server did not send: the next one is taken out. */
  expectAcknowledgement(): void;
  readonly awaitsAcknowledgement: boolean;
  /** True once the client connection preface was read. */
  readonly prefaceRead: boolean;
  /** Whether the authority of the first request was changed; undefined as long as its field block has not ended. "unchanged" too if it is no HTTP/2. */
  readonly firstRequest: "unchanged" | "changed" | undefined;
  /** True once there was a frame before the first request that the server might have to answer. */
  readonly needsServer: boolean;
}

export function createRequestFrames(): RequestFrames {
  const fields = createFieldBlockReader();
  let prefaceBytes = 0;
  let held: Buffer = NOTHING;
  let understood = true;
  let awaitsAcknowledgement = false;
  let needsServer = false;
  let firstBlockEnded = false;
  /** The stream whose field block is not complete, 0 for none. */
  let blockOf = 0;

  // The frame whose payload is being read, part by part.
  let padLengthNext = false;
  let priorityLeft = 0;
  let fragmentLeft = 0;
  let restLeft = 0;
  let endsBlock = false;

  function readPreface(data: Buffer, start: number): number {
    const stop = Math.min(data.length, start + PREFACE.length - prefaceBytes);
    const expected = PREFACE.subarray(prefaceBytes, prefaceBytes + stop - start);
    understood = expected.equals(data.subarray(start, stop));
    prefaceBytes += stop - start;
    return stop;
  }

  /** Reads the frame header at `at`; false if the frame is to be taken out. */
  function startFrame(data: Buffer, at: number): boolean {
    const length = data.readUIntBE(at, 3);
    const type = data[at + 3] ?? 0;
    const flags = data[at + 4] ?? 0;
    const stream = data.readUInt32BE(at + 5) & 0x7fff_ffff;
    const continues = type === frameType.continuation && blockOf === stream && stream !== 0;
    if (length > MAX_FRAME_BYTES || type === frameType.pushPromise) understood = false;
    else if (continues !== (type === frameType.continuation || blockOf !== 0)) understood = false;
    else if (continues) startFragment(length, flags);
    else if (type === frameType.headers) {
      if (stream === 0) understood = false;
      blockOf = stream;
      padLengthNext = (flags & flag.padded) !== 0;
      priorityLeft = (flags & flag.priority) === 0 ? 0 : PRIORITY_BYTES;
      startFragment(length - (padLengthNext ? 1 : 0) - priorityLeft, flags);
    } else {
      restLeft = length;
      const acknowledges = type === frameType.settings && (flags & flag.acknowledgement) !== 0;
      if (acknowledges && awaitsAcknowledgement && length === 0) {
        awaitsAcknowledgement = false;
        return false;
      }
      if (!firstBlockEnded && !needsNoAnswer.has(type)) needsServer = true;
    }
    return true;
  }

  function startFragment(length: number, flags: number): void {
    if (length < 0) understood = false;
    fragmentLeft = length;
    restLeft = 0;
    endsBlock = (flags & flag.endOfHeaders) !== 0;
    if (fragmentLeft === 0 && !padLengthNext) endFragment();
  }

  function readPadLength(length: number): void {
    padLengthNext = false;
    restLeft = length;
    fragmentLeft -= length;
    if (fragmentLeft < 0) understood = false;
    else if (fragmentLeft === 0) endFragment();
  }

  function readFragment(data: Buffer, start: number): number {
    const stop = Math.min(data.length, start + fragmentLeft);
    fragmentLeft -= stop - start;
    if (!fields.read(data, start, stop)) understood = false;
    else if (fragmentLeft === 0) endFragment();
    return stop;
  }

  function endFragment(): void {
    if (!endsBlock) return;
    blockOf = 0;
    if (fields.complete) firstBlockEnded = true;
    else understood = false;
  }

  return {
    pass(chunk) {
      const data = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
      held = NOTHING;
      let at = 0;
      let from = 0;
      let before: Buffer = NOTHING;
      while (understood && at < data.length) {
        if (prefaceBytes < PREFACE.length) at = readPreface(data, at);
        else if (padLengthNext) readPadLength(data[at++] ?? 0);
        else if (priorityLeft > 0) {
          const step = Math.min(priorityLeft, data.length - at);
          priorityLeft -= step;
          at += step;
        } else if (fragmentLeft > 0) at = readFragment(data, at);
        else if (restLeft > 0) {
          const step = Math.min(restLeft, data.length - at);
          restLeft -= step;
          at += step;
        } else if (data.length - at < FRAME_HEADER_BYTES) {
          // A copy: the chunk it is from may be large.
          held = Buffer.from(data.subarray(at));
          return concatenated(before, data.subarray(from, at));
        } else {
          const passesOn = startFrame(data, at);
          if (!passesOn) {
            before = data.subarray(from, at);
            from = at + FRAME_HEADER_BYTES;
          }
          at += FRAME_HEADER_BYTES;
        }
      }
      return concatenated(before, data.subarray(from));
    },
    release() {
      const rest = held;
      held = NOTHING;
      return rest;
    },
    expectAcknowledgement() {
      awaitsAcknowledgement = true;
    },
    get awaitsAcknowledgement() {
      return awaitsAcknowledgement && understood;
    },
    get prefaceRead() {
      return prefaceBytes === PREFACE.length;
    },
    get firstRequest() {
      if (fields.changed) return "changed";
      return firstBlockEnded || !understood ? "unchanged" : undefined;
    },
    get needsServer() {
      return needsServer;
    },
  };
}

function concatenated(one: Buffer, other: Buffer): Buffer {
  return one.length === 0 ? other : Buffer.concat([one, other]);
}
