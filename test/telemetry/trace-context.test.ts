import { describe, expect, it } from "vitest";
import { formatTraceParent, parseTraceParent } from "../../src/telemetry/trace-context.js";

const traceId = "0af7651916cd43dd8448eb211c80319c";
const spanId = "b7ad6b7169203331";
const good = `00-${traceId}-${spanId}-01`;

describe("W3C Trace Context", () => {
  it("reads what the specification gives as examples, and writes it again", () => {
    const parent = parseTraceParent([good], ["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"]);
    expect(parent).toEqual({ traceId, spanId, flags: 1, traceState: "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE" });
    expect(parent && formatTraceParent(parent)).toBe(good);
  });

  it.each([
    ["none", []],
    ["two", [good, good]],
    ["upper case", [good.toUpperCase()]],
    ["a trace of zeros", [`00-${"0".repeat(32)}-${spanId}-01`]],
    ["a span of zeros", [`00-${traceId}-${"0".repeat(16)}-01`]],
    ["version ff", [`ff-${traceId}-${spanId}-01`]],
    ["more than version 00 has", [`${good}-more`]],
    ["no flags", [`00-${traceId}-${spanId}`]],
    ["flags that are not hex", [`00-${traceId}-${spanId}-0x`]],
    ["a blank in front", [` ${good}`]],
  ])("begins anew for a traceparent that is %s", (_, values) => {
    expect(parseTraceParent(values, ["rojo=1"])).toBeUndefined();
  });

  it("reads a later version as far as it is known, and answers with ours", () => {
    const parent = parseTraceParent([`01-${traceId}-${spanId}-ff-what-comes`], []);
    expect(parent).toMatchObject({ traceId, spanId });
    expect(parent && formatTraceParent(parent)).toBe(`00-${traceId}-${spanId}-03`);
    expect(parseTraceParent([`01-${traceId}-${spanId}-01what`], [])).toBeUndefined();
  });

  it.each([
    ["several headers, joined", ["rojo=1", "congo=2"], "rojo=1,congo=2"],
    ["blanks and empty members", [" rojo=1 ,, congo=2"], "rojo=1,congo=2"],
    ["a key twice", ["rojo=1,rojo=2"], undefined],
    ["no value", ["rojo"], undefined],
    ["more than 32 members", [Array.from({ length: 33 }, (_, at) => `k${at}=1`).join()], undefined],
    ["a control character", ["rojo=\u0007"], undefined],
  ])("tracestate: %s", (_, values, state) => {
    expect(parseTraceParent([good], values)).toMatchObject({ traceId, traceState: state });
  });
});
