import { expect, test } from "vitest";
import {
  coversIdentity,
  coversName,
  coversSegments,
  identityParts,
  isNormalisedPath,
  matchesIdentity,
  matchesName,
  matchesSegments,
  parseIdentityPattern,
  parseNamePattern,
  parsePathPattern,
  segmentsOfPath,
} from "../../src/policy/pattern.js";
import { TrustDomain } from "../../src/spiffe/spiffe-id.js";

const shop = TrustDomain.parse("shop.local");

test.each([
  ["get_*", "get_invoice", true],
  ["get_*", "get_", true],
  ["get_*", "forget_invoice", false],
  ["*", "anything", true],
  ["*", "", false],
  ["a*a", "a", false],
  ["a*a", "aa", true],
  ["get_invoice", "get_invoice", true],
  ["get_invoice", "GET_INVOICE", false],
  ["get_invoice", "get_invoice ", false],
])("name pattern %s and %s: %s", (pattern, name, matches) => {
  expect(matchesName(parseNamePattern(pattern), name)).toBe(matches);
});

test.each([
  ["/pay", "/pay", true],
  ["/pay", "/payroll", false],
  ["/pay", "/pay/", false],
  ["/pay/*", "/pay/1", true],
  ["/pay/*", "/pay/", false],
  ["/pay/*", "/pay/1/2", false],
  ["/pay/*/lines", "/pay/1/lines", true],
  ["/pay/**", "/pay/1/2", true],
  ["/pay/**", "/pay", false],
  ["/pay/**", "/payroll/1", false],
  ["/**", "/", true],
  ["/**", "/v1/x", true],
  ["/", "/", true],
  ["/", "/x", false],
  ["/inv-*", "/inv-1", true],
  ["/inv-*", "/inv-1/2", false],
])("path pattern %s and %s: %s", (pattern, path, matches) => {
  expect(matchesSegments(parsePathPattern(pattern), segmentsOfPath(path))).toBe(matches);
});

test.each(["pay", "/a/../b", "/a//b", "/a?b", "/a#b", "/a%2fb", "/a ", "/a /b", "/**/x", "/a*b*c"])(
  "%s is no path pattern",
  (text) => {
    expect(() => parsePathPattern(text)).toThrow();
  },
);

test.each([
  "",
  "x",
  "//x",
  "/a/./b",
  "/a/..",
  "/a\\b",
  "/a%2Fb",
  "/a%2e%2e",
  "/a%5cb",
  "/a\u0000",
  "/a ",
  "/a /b",
  "/a%00",
])("%j is no normalised path, while /a/b.c and /a b/c are", (path) => {
  expect(isNormalisedPath(path)).toBe(false);
  expect(isNormalisedPath("/a/b.c")).toBe(true);
});

test.each([
  ["agents/billing", "spiffe://shop.local/agents/billing", true],
  ["agents/billing", "spiffe://shop.local/agents/billing/sub", false],
  ["agents/billing", "spiffe://evil.local/agents/billing", false],
  ["agents/*", "spiffe://shop.local/agents/planner", true],
  ["agents/*", "spiffe://shop.local/agents/a/b", false],
  ["agents/**", "spiffe://shop.local/agents/a/b", true],
  ["**", "spiffe://shop.local/x", true],
  ["**", "spiffe://evil.local/x", false],
  ["**", "spiffe://shop.local", false],
  ["spiffe://other.local/agents/*", "spiffe://other.local/agents/x", true],
  ["spiffe://other.local/agents/*", "spiffe://shop.local/agents/x", false],
])("identity pattern %s and %s: %s", (pattern, identity, matches) => {
  expect(matchesIdentity(parseIdentityPattern(pattern, shop), identityParts(identity))).toBe(matches);
});

test.each([
  "",
  "/agents",
  "agents/",
  "a//b",
  "a/../b",
  "spiffe://shop.local",
  "spiffe://*/x",
  "agents/bil ling",
  "a/**/b",
])("%j is no identity pattern", (text) => {
  expect(() => parseIdentityPattern(text, shop)).toThrow();
});

test("one pattern covers another only where it matches all that the other matches", () => {
  const name = (a: string, b: string) => coversName(parseNamePattern(a), parseNamePattern(b));
  expect([name("*", "get_*"), name("get_*", "get_i*"), name("get_*", "get_x"), name("x", "x")]).toEqual(
    Array(4).fill(true),
  );
  expect([name("get_*", "*"), name("get_x", "get_*"), name("*_x", "get_*"), name("a", "b")]).toEqual(
    Array(4).fill(false),
  );
  const path = (a: string, b: string) => coversSegments(parsePathPattern(a), parsePathPattern(b));
  expect([path("/**", "/a/**"), path("/a/**", "/a/*"), path("/a/*", "/a/b*"), path("/**", "/")]).toEqual(
    Array(4).fill(true),
  );
  expect([path("/a/**", "/**"), path("/a/*", "/a/**"), path("/a/**", "/a"), path("/a/b/**", "/a/**")]).toEqual(
    Array(4).fill(false),
  );
  const identity = (a: string, b: string) =>
    coversIdentity(parseIdentityPattern(a, shop), parseIdentityPattern(b, shop));
  expect(identity("agents/*", "agents/billing")).toBe(true);
  expect(identity("agents/*", "spiffe://other.local/agents/billing")).toBe(false);
});
