/** What must survive a restart so that the trust domain stays the same. Byte fields are base64. */
export interface StoredGeneration {
  readonly x509Certificate: string;
  readonly x509PrivateKeyPkcs8: string;
  readonly jwtPrivateKeyPkcs8: string;
  /** ISO 8601; of the JWT key. The X.509 authority's are in its certificate. */
  readonly jwtNotBefore: string;
  readonly jwtNotAfter: string;
}

export interface StoredAuthorities {
  readonly active: StoredGeneration;
  readonly prepared: StoredGeneration | undefined;
  readonly old: readonly StoredGeneration[];
}

/** Where the authorities' keys rest. */
export interface KeyStore {
  /** `keychain`: encrypted under a key in the OS keychain. `none`: plain 0600 files, which every process of this user can read. `memory`: nothing is kept. */
  readonly protection: "keychain" | "none" | "memory";
  /** What was saved last, or undefined if nothing ever was. Throws KeyStoreError. */
  load(): StoredAuthorities | undefined;
  /** On disk, synced, when this returns. Throws KeyStoreError `key-store-unwritable`. */
  save(authorities: StoredAuthorities): void;
}

/** Keeps nothing: for `keys: memory` and `--ephemeral`. */
export function createMemoryKeyStore(): KeyStore {
  return { protection: "memory", load: () => undefined, save: () => undefined };
}
