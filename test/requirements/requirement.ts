/** One testable statement of a standard, or a demand that a shipped client makes. */
export interface Requirement {
  /** Stable: tests cite it. */
  readonly id: string;
  /** M: MUST in the text, or meaningless without it. S: SHOULD. I: not in the text, but a shipped client insists on it. */
  readonly level: "M" | "S" | "I";
  readonly statement: string;
  /** WA: SPIFFE Workload API, WE: Workload Endpoint, ID: SPIFFE-ID, XS: X509-SVID, JS: JWT-SVID, FD: Federation; or the client that insists. */
  readonly source: string;
  /** Absent for what this version does; else why it does not. Such an item needs no test, and a test of it is an error here. */
  readonly notCovered?: string;
}
