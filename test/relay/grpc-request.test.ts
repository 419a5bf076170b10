import { describe, expect, it } from "vitest";
import { outboundNames } from "../../src/http/host-check.js";
import { checkRequestTrailers, parseGrpcRequest } from "../../src/relay/grpc-request.js";

/** What nghttp2 refuses before the relay sees it, so that no frame shows it: the relay does not count on that. */

const names = outboundNames(21_234);
const GOOD = [
  ...[":method", "POST", ":scheme", "http", ":authority", "127.0.0.1:21234", ":path", "/shop.Ledger/Get"],
  ...["content-type", "application/grpc", "te", "trailers"],
];
const parse = (raw: readonly string[]) => parseGrpcRequest(raw, "http", names);

describe("the head of a call", () => {
  it.each<readonly [string, readonly string[]]>([
    ["a pseudo-header field behind others", [...GOOD.slice(2), ":method", "POST"]],
    ["two paths", [":path", "/shop.Ledger/Secret", ...GOOD]],
    ["a pseudo-header field that is none", [":thing", "x", ...GOOD]],
    ["a name in upper case", [...GOOD, "X-Thing", "y"]],
    ["te other than trailers", [...GOOD.slice(0, -2), "te", "gzip"]],
    ...["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"].map(
      (name): readonly [string, readonly string[]] => [`the field ${name}`, [...GOOD, name, "x"]],
    ),
  ])("is refused with %s", (_what, raw) => {
    expect(parse(GOOD)).toMatchObject({ method: "POST", target: { raw: "/shop.Ledger/Get" } });
    expect(() => parse(raw)).toThrow(expect.objectContaining({ code: "http-malformed" }));
  });

  it("has no pseudo-header field in its trailers", () => {
    expect(checkRequestTrailers(["x-checksum", "1"])).toEqual(["x-checksum", "1"]);
    expect(() => checkRequestTrailers([":path", "/x"])).toThrow(expect.objectContaining({ code: "http-malformed" }));
  });
});
