import { CodedError } from "../coded-error.js";

/** Refuses a launch, on record. */
export type Refuse = (reason: string, hint: string) => never;

export function refusal(reason: string, hint?: string): CodedError {
  return new CodedError("launch-refused", reason, hint === undefined ? {} : { hint });
}

export function hintOf(thrown: unknown): string {
  return (thrown instanceof CodedError && thrown.hint) || "";
}
