import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SpiffeId, type SpiffeIdErrorCode, TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { runs } from "../properties.js";

function codeOf(action: () => unknown): SpiffeIdErrorCode | "accepted" {
  try {
    action();
  } catch (thrown) {
    return (thrown as { code: SpiffeIdErrorCode }).code;
  }
  return "accepted";
}

describe("SPIFFE ID", () => {
  it.each([
    "spiffe://td",
    "spiffe://td/a/B.c-d_e",
    "spiffe://10.0.0.1/x",
    "spiffe://a_b-c.1/...",
    `spiffe://td/${"a".repeat(2048 - "spiffe://td/".length)}`,
    `spiffe://td/${"a".repeat(4000)}`,
  ])("ID-1 ID-2 ID-4 accepts %.40s", (text) => {
    expect(SpiffeId.parse(text).toString()).toBe(text);
  });

  const refused: [string, SpiffeIdErrorCode][] = [
    ["", "spiffe-id-empty"],
    ["spiffe://", "spiffe-id-trust-domain-missing"],
    ["spiffe:///path", "spiffe-id-trust-domain-missing"],
    ["spiffe://td/", "spiffe-id-trailing-slash"],
    ["spiffe://td/a/", "spiffe-id-trailing-slash"],
    ["spiffe://td//a", "spiffe-id-segment-empty"],
    ["spiffe://td/./a", "spiffe-id-segment-dots"],
    ["spiffe://td/a/..", "spiffe-id-segment-dots"],
    ["spiffe://td:80/a", "spiffe-id-trust-domain-character"],
    ["spiffe://u@td/a", "spiffe-id-trust-domain-character"],
    ["spiffe://td?q/a", "spiffe-id-trust-domain-character"],
    ["spiffe://td/a?q", "spiffe-id-segment-character"],
    ["spiffe://td/a#f", "spiffe-id-segment-character"],
    ["spiffe://TD/a", "spiffe-id-trust-domain-character"],
    ["SPIFFE://td/a", "spiffe-id-scheme"],
    ["spiffe://td/%61", "spiffe-id-segment-character"],
    ["spiffe://t%64/a", "spiffe-id-trust-domain-character"],
    ["spiffe://[::1]/a", "spiffe-id-trust-domain-character"],
    ["spiffe://td/a!b", "spiffe-id-segment-character"],
    ["spiffe://td/é", "spiffe-id-segment-character"],
    ["spiffe://td/a\n", "spiffe-id-segment-character"],
    ["spiffe://td\n/a", "spiffe-id-trust-domain-character"],
    ["spiffe://td/a\0", "spiffe-id-segment-character"],
    [" spiffe://td/a", "spiffe-id-scheme"],
    ["http://td/a", "spiffe-id-scheme"],
    ["spiffe:/td/a", "spiffe-id-scheme"],
    ["td/a", "spiffe-id-scheme"],
  ];
  it.each(refused)("ID-1 ID-2 ID-3 ID-4 ID-5 refuses %j: %s", (text, code) => {
    expect(codeOf(() => SpiffeId.parse(text))).toBe(code);
    expect(codeOf(() => SpiffeId.parse("spiffe://td/a"))).toBe("accepted");
  });

  it("ID-6 parses long IDs but makes none over 2048 bytes, nor a trust domain over 255", () => {
    const td = TrustDomain.parse("td");
    const room = 2048 - "spiffe://td/".length;
    expect(codeOf(() => SpiffeId.of(td, "a".repeat(room)))).toBe("accepted");
    expect(codeOf(() => SpiffeId.of(td, "a".repeat(room + 1)))).toBe("spiffe-id-too-long");
    expect(codeOf(() => SpiffeId.of(TrustDomain.parse("t".repeat(255)), "a"))).toBe("accepted");
    expect(codeOf(() => SpiffeId.of(TrustDomain.parse("t".repeat(256)), "a"))).toBe("spiffe-id-trust-domain-too-long");
  });

  it("ID-2 ID-4 whatever is accepted is made of the allowed characters only, and is written as it was read", () => {
    const grammar = /^spiffe:\/\/[a-z0-9._-]+(\/(?!\.{1,2}(\/|$))[a-zA-Z0-9._-]+)*$/;
    const pieces = fc.constantFrom(
      "spiffe://",
      "td",
      "/",
      ".",
      "..",
      "A",
      "%",
      "é",
      ":",
      "@",
      "?",
      "#",
      "-",
      "_",
      "\0",
      " ",
    );
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 8 }), (parts) => {
        const text = parts.join("");
        const accepted = codeOf(() => SpiffeId.parse(text)) === "accepted";
        return accepted === grammar.test(text) && (!accepted || SpiffeId.parse(text).toString() === text);
      }),
      { numRuns: runs(2000) },
    );
  });

  it("trust domains and IDs are equal only if every character is", () => {
    const id = SpiffeId.parse("spiffe://td/a");
    expect(id.equals(SpiffeId.of(TrustDomain.parse("td"), "/a"))).toBe(true);
    expect(id.equals(SpiffeId.parse("spiffe://td/A"))).toBe(false);
    expect(id.equals(SpiffeId.parse("spiffe://td2/a"))).toBe(false);
    expect(id.memberOf(TrustDomain.parse("spiffe://td/other"))).toBe(true);
    expect(id.name).toBe("a");
  });
});
