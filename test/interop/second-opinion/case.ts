/** Something to judge, and what was done to it: differences are explained by cause, not by value. */
export interface Case {
  readonly kind: "spiffe-id" | "jwt-svid" | "bundle";
  /** `none` for what was made by the rules. */
  readonly cause: string;
  readonly text: string;
}

/** What a parser says. Of a bundle also how much of it counts. */
export interface Verdict {
  readonly accept: boolean;
  readonly reason?: string | undefined;
  readonly x509: number;
  readonly jwt: number;
}
