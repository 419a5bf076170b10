import type { Found, KeptAnswer, KeyedRequest } from "./call-table.js";

/** What the thread of the store is asked. `expires` and `now` in milliseconds since the Unix epoch. */
export type StoreTask =
  | {
      readonly ask: "claim";
      readonly request: KeyedRequest;
      readonly now: number;
      readonly expires: number;
      readonly again: boolean;
    }
  | {
      readonly ask: "answer";
      readonly request: KeyedRequest;
      readonly answer: KeptAnswer | undefined;
      readonly expires: number;
    }
  | { readonly ask: "release"; readonly request: KeyedRequest }
  | { readonly ask: "sweep"; readonly now: number }
  | { readonly ask: "close" };

export type StoreQuestion = StoreTask & { readonly number: number };

export interface StoreAnswer {
  readonly number: number;
  readonly found?: Found | undefined;
  /** Why it was not done. */
  readonly failed?: string;
}
