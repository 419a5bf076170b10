import type { Jwk } from "../spiffe/jwt-bundle.js";

/** An authority that signs or will sign. Byte fields are base64. */
export interface StoredAuthority {
  readonly x509Certificate: string;
  /** The certificates above it, the upstream root last; absent for a root. */
  readonly upstreamChain?: readonly string[] | undefined;
  readonly x509PrivateKeyPkcs8: string;
  readonly jwtPrivateKeyPkcs8: string;
  /** Absent from what the first version saved. */
  readonly witPrivateKeyPkcs8?: string | undefined;
}

/** An authority that signs no more: nothing of it is kept that could sign. */
export interface StoredOldAuthority {
  readonly x509Certificate: string;
  readonly upstreamChain?: readonly string[] | undefined;
  readonly tainted?: true | undefined;
  readonly jwtPublicKey: Jwk;
  /** Absent from what the first version saved. */
  readonly witPublicKey?: Jwk | undefined;
  /** The last revocation list that it signed, good until its end. Absent from what earlier versions saved. */
  readonly revocationList?: string | undefined;
}

/** What must survive a restart so that the trust domain stays the same. */
export interface StoredAuthorities {
  readonly active: StoredAuthority;
  readonly prepared?: StoredAuthority | undefined;
  readonly old: readonly StoredOldAuthority[];
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
