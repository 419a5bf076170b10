import { CodedError } from "../coded-error.js";

export type KeyStoreErrorCode =
  | "key-store-owner"
  | "key-store-mode"
  | "key-store-not-a-file"
  | "key-store-corrupt"
  | "key-store-locked"
  | "key-store-keychain"
  | "key-store-unreadable"
  | "key-store-unwritable";

/** The authorities' keys cannot be read or kept. Never answered with a new trust domain: its users would stop trusting each other. */
export class KeyStoreError extends CodedError<KeyStoreErrorCode> {
  override readonly name = "KeyStoreError";
}
