/** A requirement that a test cites. */
export interface Citation {
  readonly id: string;
  /** `test/spiffe/x509-svid.test.ts:12`. */
  readonly at: string;
}

const REQUIREMENT_ID = /\b(?:EP|ST|XR|JR|WR|ID|XS|JS|TB|FD|OD)-\d+\b/g;
/** A test's title, up to its closing quote; `skip` and `todo` show nothing to hold and do not match. */
const TITLE =
  /\b(?:it|test|describe)(?:\.(?:each|for|runIf|skipIf|concurrent|sequential|for)\b)*(?:\((?:[^()]|\([^()]*\))*\))?\(\s*(["'`])((?:\\.|(?!\1)[\s\S])*)\1/g;

/** What the tests in `source` cite: in the titles of tests and of their groups, as ids or through `verifies`. */
export function citationsIn(source: string, file: string): readonly Citation[] {
  return [...source.matchAll(TITLE)].flatMap((title) => {
    const line = source.slice(0, title.index).split("\n").length;
    const ids = title[2]?.match(REQUIREMENT_ID) ?? [];
    return ids.map((id) => ({ id, at: `${file}:${line}` }));
  });
}
