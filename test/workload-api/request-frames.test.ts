import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createRequestFrames } from "../../src/workload-api/http2/request-frames.js";
import {
  ACKNOWLEDGEMENT,
  type Coding,
  encodeFrame,
  type Frame,
  flag,
  huffman,
  index,
  indexed,
  integer,
  type Literal,
  line,
  PREFACE,
  SETTINGS,
  type,
} from "./http2-frames.js";

const RUNS = 500;
const HELD_BYTES = 8;

interface Line {
  readonly name: number | string;
  readonly value: string;
  readonly how: Literal;
  readonly coding: Coding;
}

/** A request: its authority, other lines around it, and how its field block is cut into frames. */
interface Request {
  readonly authority: Omit<Line, "name">;
  readonly before: readonly (Line | number)[];
  readonly after: readonly (Line | number)[];
  readonly cuts: readonly number[];
  readonly padding: number | undefined;
  readonly priority: boolean;
  readonly body: Uint8Array;
}

const how = fc.constantFrom<Literal>("indexing", "plain", "neverIndexed");
const coding = fc.constantFrom<Coding>("plain", "huffman");
const text = fc.string({ unit: fc.constantFrom(...`/3.-_ab0:Z& %"!#?|`) });
const longText = fc.string({ unit: fc.constantFrom(...'/3.azZ "'), minLength: 120, maxLength: 400 });
const authority = fc.record({ value: fc.oneof(text, longText), how, coding });
// Every name but `:authority` by its index; also one that is written out, and of the dynamic table.
const otherLine = fc.record({
  name: fc.oneof(fc.integer({ min: 2, max: 90 }), fc.constant("x-path")),
  value: text,
  how,
  coding,
});
const others = fc.array(fc.oneof(otherLine, fc.integer({ min: 2, max: 200 })), { maxLength: 3 });
const request: fc.Arbitrary<Request> = fc.record({
  authority,
  before: others,
  after: others,
  cuts: fc.array(fc.nat(600), { maxLength: 3 }),
  padding: fc.option(fc.nat(255), { nil: undefined }),
  priority: fc.boolean(),
  body: fc.uint8Array({ maxLength: 20 }),
});
const requests = fc.array(request, { minLength: 1, maxLength: 4 });
const splits = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 30 });

function encodeLine(one: Line | number): Buffer {
  return typeof one === "number" ? indexed(one) : line(one.name, one.value, one.how, one.coding);
}

function framesOf(one: Request, stream: number): readonly Frame[] {
  const lines = [...one.before, { name: index.authority, ...one.authority }, ...one.after];
  const block = Buffer.concat([integer(4096, 5, 0x20), ...lines.map(encodeLine)]);
  const ends = [...one.cuts.map((cut) => Math.min(cut, block.length)), block.length].sort((a, b) => a - b);
  return [
    ...ends.map((end, part): Frame => {
      const fragment = block.subarray(part === 0 ? 0 : ends[part - 1], end);
      const flags = part === ends.length - 1 ? flag.endOfHeaders : 0;
      if (part > 0) return { type: type.continuation, stream, flags, payload: fragment };
      const padded = one.padding === undefined ? 0 : flag.padded;
      const payload = Buffer.concat([
        Buffer.from(one.padding === undefined ? [] : [one.padding]),
        Buffer.alloc(one.priority ? 5 : 0, 0x2f),
        fragment,
        Buffer.alloc(one.padding ?? 0, 0x2f),
      ]);
      return { type: type.headers, stream, flags: flags | padded | (one.priority ? flag.priority : 0), payload };
    }),
    { type: type.data, stream, payload: Buffer.concat([Buffer.from("/"), one.body]) },
  ];
}

function bytesOf(all: readonly Request[]): Buffer {
  const frames = all.flatMap((one, place) => [
    ...framesOf(one, 2 * place + 1),
    { type: type.windowUpdate, payload: Buffer.from("/abc") },
  ]);
  return Buffer.concat([PREFACE, ...[SETTINGS, ...frames].map(encodeFrame)]);
}

const IN_HUFFMAN_CODE: Readonly<Record<string, string>> = { "/": "3", " ": "%", '"': "!" };

function asAuthorities(all: readonly Request[]): readonly Request[] {
  return all.map((one) => ({ ...one, authority: { ...one.authority, value: asAuthority(one.authority) } }));
}

function asAuthority({ value, coding }: Request["authority"]): string {
  if (coding === "plain") return value.replaceAll(/[/ "#?|]/g, "3");
  return value.replaceAll(/[/ "]/g, (character) => IN_HUFFMAN_CODE[character] ?? "");
}

/** What comes out for `bytes`, in parts of the lengths `lengths`, again and again. */
function passed(bytes: Buffer, lengths: readonly number[], frames = createRequestFrames()): Buffer {
  const out: Buffer[] = [];
  let given = 0;
  for (let at = 0, part = 0; at < bytes.length; part++) {
    const end = at + (lengths[part % lengths.length] ?? 1);
    // A copy, as parts are changed in place.
    const result = frames.pass(Buffer.from(bytes.subarray(at, end)));
    out.push(result);
    given += result.length;
    at = Math.min(end, bytes.length);
    expect(at - given).toBeGreaterThanOrEqual(0);
    expect(at - given).toBeLessThanOrEqual(HELD_BYTES);
  }
  return Buffer.concat([...out, frames.release()]);
}

describe("what a client sends", () => {
  it("is encoded here as RFC 7541 C.4.1 does", () => {
    expect(huffman("www.example.com").toString("hex")).toBe("f1e3c2e5f23a6ba0ab90f4ff");
    expect(integer(1337, 5, 0).toString("hex")).toBe("1f9a0a");
  });

  it("has overwritten what has no place in each authority and nothing else, wherever it is split", () => {
    let changed = 0;
    fc.assert(
      fc.property(requests, splits, (all, lengths) => {
        const bytes = bytesOf(all);
        const frames = createRequestFrames();
        const result = passed(bytes, lengths, frames);
        expect(result.toString("hex")).toBe(bytesOf(asAuthorities(all)).toString("hex"));
        const some = all.some(({ authority }) => asAuthority(authority) !== authority.value);
        expect(frames.firstRequest).toBe(some ? "changed" : "unchanged");
        if (some) changed++;
      }),
      { numRuns: RUNS },
    );
    expect(changed).toBeGreaterThan(RUNS / 10);
  });

  it("is the same byte for byte where each authority is one", () => {
    fc.assert(
      fc.property(requests.map(asAuthorities), splits, (all, lengths) => {
        const bytes = bytesOf(all);
        expect(passed(bytes, lengths).equals(bytes)).toBe(true);
      }),
      { numRuns: RUNS },
    );
  });

  it("may be split at any byte", () => {
    const value = "/tmp/shop/workload.sock";
    for (const coding of ["plain", "huffman"] as const) {
      const one: Request = {
        ...{ authority: { value, how: "indexing", coding }, before: [], after: [], cuts: [9, 17] },
        ...{ padding: 3, priority: true, body: Buffer.from("/") },
      };
      const bytes = bytesOf([one]);
      const expected = bytesOf(asAuthorities([one]));
      expect(expected.equals(bytes)).toBe(false);
      for (let at = 1; at < bytes.length; at++) expect(passed(bytes, [at, bytes.length]).equals(expected)).toBe(true);
    }
  });

  it("never breaks it, whatever it is: it holds less than a frame header and gives back what it got", () => {
    const kinds = fc.oneof(fc.constantFrom(...Object.values(type)), fc.nat(255));
    const frame = fc.record({
      ...{ type: kinds, flags: fc.oneof(fc.constantFrom(0, 4, 8, 0x2c), fc.nat(255)), stream: fc.nat(5) },
      payload: fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
    });
    // Whole frames, a header that promises more than comes, and noise.
    const part = fc.oneof(
      { weight: 8, arbitrary: frame.map(encodeFrame) },
      fc.uint8Array({ minLength: 9, maxLength: 9 }).map((bytes) => Buffer.from(bytes)),
      fc.uint8Array({ maxLength: 30 }).map((bytes) => Buffer.from(bytes)),
    );
    const start = fc.constantFrom(PREFACE, Buffer.concat([PREFACE, encodeFrame(SETTINGS)]), Buffer.alloc(0));
    fc.assert(
      fc.property(start, fc.array(part, { maxLength: 20 }), splits, (first, parts, lengths) => {
        const bytes = Buffer.concat([first, ...parts]);
        const result = passed(bytes, lengths);
        expect(result.length).toBe(bytes.length);
        expect(result.equals(passed(bytes, [bytes.length]))).toBe(true);
        // A slash, or a Huffman code that ends in 0, can have changed; nothing else.
        for (const [at, byte] of bytes.entries()) {
          const is = result[at] ?? 0;
          expect(is === byte || (byte === 0x2f && is === 0x33) || (is & byte) === byte).toBe(true);
        }
      }),
      { numRuns: RUNS },
    );
  });

  it.each([
    { what: "empty CONTINUATION frames", frame: { type: type.continuation, stream: 1 } },
    { what: "DATA", frame: { type: type.data, stream: 1, payload: Buffer.alloc(1000, "/") } },
    { what: "SETTINGS", frame: SETTINGS },
  ])("may be a flood of $what: it passes, and nothing is kept", ({ what, frame }) => {
    const open = what.includes("CONTINUATION") ? [{ type: type.headers, stream: 1 }] : [];
    const bytes = Buffer.concat([PREFACE, ...open.map(encodeFrame), ...Array<Buffer>(5000).fill(encodeFrame(frame))]);
    expect(passed(bytes, [777]).equals(bytes)).toBe(true);
  });

  const slash = line(index.authority, "/", "plain");
  const block: Frame = { type: type.headers, stream: 1, flags: flag.endOfHeaders, payload: slash };
  it.each<{ what: string; frames: readonly (Frame | Buffer)[] }>([
    { what: "a frame above the largest size", frames: [{ type: type.data, payload: Buffer.alloc(16_385) }] },
    { what: "PUSH_PROMISE", frames: [{ type: type.pushPromise, stream: 1 }] },
    { what: "CONTINUATION of nothing", frames: [{ type: type.continuation, stream: 1 }] },
    { what: "HEADERS of the whole connection", frames: [{ ...block, stream: 0, payload: Buffer.alloc(0) }] },
    { what: "another frame inside a field block", frames: [{ type: type.headers, stream: 1 }, SETTINGS] },
    { what: "a field block that ends within a line", frames: [{ ...block, payload: Buffer.from([0x01, 0x03]) }] },
    { what: "more padding than payload", frames: [{ ...block, flags: 0x0c, payload: Buffer.from([9, 0]) }] },
    {
      what: "more padding than payload, and CONTINUATION",
      frames: [
        { ...block, flags: flag.endOfHeaders | flag.padded, payload: Buffer.from([9]) },
        Buffer.alloc(9),
        { ...block, type: type.continuation },
      ],
    },
    {
      what: "a priority that is not there, and CONTINUATION",
      frames: [
        { ...block, flags: flag.endOfHeaders | flag.priority, payload: Buffer.alloc(0) },
        Buffer.alloc(5),
        { ...block, type: type.continuation },
      ],
    },
    {
      what: "an integer beyond all bounds",
      frames: [{ ...block, payload: Buffer.concat([Buffer.alloc(9, 0xff), Buffer.from([0]), slash]) }],
    },
    { what: "an integer without end", frames: [{ ...block, payload: Buffer.alloc(9, 0xff) }] },
  ])("is left alone from where it is no HTTP/2: $what", ({ frames }) => {
    const bad = frames.map((one) => (Buffer.isBuffer(one) ? one : encodeFrame(one)));
    const bytes = Buffer.concat([PREFACE, ...bad, encodeFrame(block)]);
    expect(passed(bytes, [bytes.length]).equals(bytes)).toBe(true);
    // The same request is changed where it stands alone.
    const alone = Buffer.concat([PREFACE, encodeFrame(block)]);
    expect(passed(alone, [alone.length]).equals(alone)).toBe(false);
  });

  it("is left alone where it does not begin as HTTP/2 does", () => {
    const almost = Buffer.from(PREFACE).fill("!", PREFACE.length - 1);
    for (const start of [Buffer.from("GET / HTTP/1.1\r\n\r\n"), almost]) {
      const bytes = Buffer.concat([start, encodeFrame(block)]);
      const frames = createRequestFrames();
      expect(passed(bytes, [1], frames).equals(bytes)).toBe(true);
      expect(frames.firstRequest).toBe("unchanged");
    }
  });
});

describe("an acknowledgement of SETTINGS", () => {
  it("is taken out once where it is expected, wherever it is split", () => {
    const [settings, acknowledgement] = [encodeFrame(SETTINGS), encodeFrame(ACKNOWLEDGEMENT)];
    for (let length = 1; length <= 60; length++) {
      const frames = createRequestFrames();
      frames.pass(PREFACE);
      frames.expectAcknowledgement();
      expect(frames.awaitsAcknowledgement).toBe(true);
      const input = Buffer.concat([settings, acknowledgement, settings, acknowledgement]);
      const out: Buffer[] = [];
      for (let at = 0; at < input.length; at += length) out.push(frames.pass(input.subarray(at, at + length)));
      expect(Buffer.concat(out).equals(Buffer.concat([settings, settings, acknowledgement]))).toBe(true);
      expect(frames.awaitsAcknowledgement).toBe(false);
    }
  });

  it("passes where none is expected", () => {
    const bytes = Buffer.concat([PREFACE, encodeFrame(ACKNOWLEDGEMENT)]);
    expect(passed(bytes, [bytes.length]).equals(bytes)).toBe(true);
  });
});
