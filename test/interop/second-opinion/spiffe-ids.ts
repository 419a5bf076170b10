import fc from "fast-check";
import type { Case } from "./case.js";

const trustDomain = fc.stringMatching(/^[a-z0-9._-]{1,20}$/);
const segment = fc.stringMatching(/^[a-zA-Z0-9._-]{1,12}$/).filter((text) => text !== "." && text !== "..");
const id = fc
  .tuple(trustDomain, fc.array(segment, { maxLength: 5 }))
  .map(([domain, segments]) => ["spiffe:/", domain, ...segments].join("/"));

/** What a URI or a careless program may hold where a SPIFFE ID may not. */
const strange = fc.constantFrom(..."/.:@?#%!$&'()*+,;=[]~ \\\"<>^`{|}AZé漢\0\n\t\u202e\u{1f600}");

/** One step away from an ID, which may be an ID again. */
const changes: Readonly<Record<string, (text: string, at: number, other: string) => string>> = {
  "a character more": (text, at, other) => text.slice(0, at) + other + text.slice(at),
  "another character": (text, at, other) => text.slice(0, at) + other + text.slice(at + 1),
  "a character less": (text, at) => text.slice(0, at) + text.slice(at + 1),
  "cut off": (text, at) => text.slice(0, at),
  "upper case": (text, at) => text.slice(0, at) + text.slice(at).toUpperCase(),
  "a dot segment": (text, at, other) => `${text}/${other < "a" ? "." : ".."}${at % 2 ? "" : "/x"}`,
  "an ending slash": (text) => `${text}/`,
  "percent-encoded": (text, at) => text.slice(0, at) + encodeURIComponent("é") + text.slice(at),
  "another scheme": (text) => text.replace("spiffe", "https"),
  "a port": (text) => text.replace(/^(spiffe:\/\/[^/]+)/, "$1:8443"),
  "a user": (text) => text.replace("//", "//somebody@"),
  "twice as long as asked for": (text) => `${text}/${"a".repeat(4096)}`,
};

const changed = fc
  .tuple(id, fc.constantFrom(...Object.entries(changes)), fc.nat(60), strange)
  .map(([text, [cause, change], at, other]) => ({ cause, text: change(text, Math.min(at, text.length), other) }));

/** SPIFFE IDs, what is nearly one, and any text at all. */
export const spiffeIdCases: fc.Arbitrary<Case> = fc
  .oneof(
    { weight: 3, arbitrary: id.map((text) => ({ cause: "none", text })) },
    { weight: 8, arbitrary: changed },
    { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 30 }).map((text) => ({ cause: "any text", text })) },
  )
  .map((made) => ({ kind: "spiffe-id", ...made }));
