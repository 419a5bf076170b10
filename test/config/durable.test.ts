import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compareConfigs } from "../../src/config/compare.js";
import { checkPathPattern } from "../../src/config/durable-schema.js";
import { parsePathPattern } from "../../src/policy/pattern.js";
import { runs } from "../properties.js";
import { parse, problemsOf } from "./project.js";

const service = (idempotent: string, kind = "http") =>
  `trustDomain: a\nservices: { s: { ${kind}: { unix: a }, idempotent: ${idempotent} } }\n`;

describe("what may be sent once more", () => {
  it("is given by method, path or both, for MCP by tool", () => {
    expect(
      parse(service("[{ method: PUT }, { path: /v1/* }, { method: DELETE, path: /v1/** }]")).services[0]?.idempotent,
    ).toEqual([{ method: "PUT" }, { path: "/v1/*" }, { method: "DELETE", path: "/v1/**" }]);
    expect(parse(service("[{ tool: get_* }]", "mcp")).services[0]?.idempotent).toEqual([{ tool: "get_*" }]);
    expect(parse("trustDomain: a\nservices: { s: { http: { unix: a } } }\n").services[0]?.idempotent).toBeUndefined();
  });

  it.each([
    ["[{}]", "http", /needs method, path or tool/],
    ["[{ method: GET }]", "http", /must be POST or PUT or PATCH or DELETE/],
    ["[{ method: put }]", "http", /must be POST or PUT or PATCH or DELETE/],
    ["[{ verb: PUT }]", "http", /unknown key "verb"/],
    ["[{ path: v1 }]", "http", /must start with \//],
    ["[{ path: /v1/../x }]", "http", /can never match/],
    ["[{ path: /v1//x }]", "http", /can never match/],
    ["[{ path: '/v1?x' }]", "http", /without query/],
    ["[{ path: /v1/a*b* }]", "http", /one \* in a segment/],
    ["[{ path: /**/x }]", "http", /one \* in a segment/],
    ["[{ tool: '' }]", "mcp", /is empty/],
    ["[{ tool: '*_*' }]", "mcp", /takes one \*/],
    ["[{ tool: get }]", "http", /by method and path where the service is http/],
    ["[{ method: POST }]", "mcp", /by tool where it is mcp/],
    ["[{ tool: get, path: /x }]", "mcp", /tool goes without method and path/],
    ["PUT", "http", /must be a list/],
  ])("%s of %s is refused", (idempotent, kind, message) => {
    expect(problemsOf(service(idempotent, kind)).join("\n")).toMatch(message);
  });

  it("is a pattern that the relay can read, whatever is accepted", () => {
    const segment = fc.string({ unit: fc.constantFrom("a", "*", ".", "%", "/", "?", "~", "é", " "), maxLength: 6 });
    fc.assert(
      fc.property(fc.array(segment, { maxLength: 5 }), (segments) => {
        const path = `/${segments.join("/")}`;
        if (checkPathPattern(path) === undefined) parsePathPattern(path);
      }),
      { numRuns: runs(300) },
    );
  });
});

describe("how long and how much", () => {
  it("has its defaults, and takes others", () => {
    expect(parse("trustDomain: a\n").durable).toEqual({ keepSeconds: 86_400, maxBytes: 64 * 1024 * 1024 });
    expect(parse("trustDomain: a\ndurable: { keep: 7d, megabytes: 1 }\n").durable).toEqual({
      keepSeconds: 604_800,
      maxBytes: 1024 * 1024,
    });
  });

  it.each([
    ["{ keep: 59s }", /at least 60s/],
    ["{ keep: 31d }", /at most 720h/],
    ["{ keep: forever }", /not a duration/],
    ["{ megabytes: 0 }", /megabytes/],
    ["{ megabytes: 1.5 }", /megabytes/],
    ["{ bytes: 1 }", /unknown key "bytes"/],
  ])("%s is refused", (durable, message) => {
    expect(problemsOf(`trustDomain: a\ndurable: ${durable}\n`).join("\n")).toMatch(message);
  });
});

describe("a change", () => {
  const http = "trustDomain: a\nservices: { s: { http: { unix: a } } }\n";
  it.each([
    ["a route more", http, service("[{ method: PUT }]"), true, '+ services.s.idempotent: ["PUT /**"]'],
    ["a route less", service("[{ method: PUT }]"), http, false, '- services.s.idempotent: ["PUT /**"]'],
    [
      "another route",
      service("[{ method: PUT }]"),
      service("[{ path: /x }]"),
      true,
      '~ services.s.idempotent: ["PUT /**"] → ["* /x"]',
    ],
    ["longer", "trustDomain: a\n", "trustDomain: a\ndurable: { keep: 48h }\n", true, "~ durable.keep: 24h → 2d"],
    ["shorter", "trustDomain: a\n", "trustDomain: a\ndurable: { keep: 1h }\n", true, "~ durable.keep: 24h → 1h"],
    ["more", "trustDomain: a\n", "trustDomain: a\ndurable: { megabytes: 65 }\n", true, "~ durable.megabytes: 64 → 65"],
    ["less", "trustDomain: a\n", "trustDomain: a\ndurable: { megabytes: 1 }\n", false, "~ durable.megabytes: 64 → 1"],
  ])("%s: what widens is said to", (_, old, next, widened, line) => {
    expect(compareConfigs(parse(old), parse(next))).toEqual({ widened, changes: [line] });
  });
});
