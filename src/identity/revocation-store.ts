import { join } from "node:path";
import { z } from "zod";
import { CodedError } from "../coded-error.js";
import { SpiffeId } from "../spiffe/spiffe-id.js";
import { preparePrivateDirectory, readPrivateFile, removeUnfinishedWrites, writePrivateFile } from "./private-file.js";

const identity = z.strictObject({
  id: z.string().refine(isSpiffeId, "not a SPIFFE ID"),
  since: z.iso.datetime(),
  /** Absent: until it is undone. */
  until: z.iso.datetime().optional(),
});
const certificate = z.strictObject({
  serial: z.string().regex(/^[0-9a-f]+$/),
  authority: z.string(),
  notAfter: z.iso.datetime(),
  since: z.iso.datetime(),
});
const file = z.strictObject({
  version: z.literal(1),
  identities: z.array(identity),
  certificates: z.array(certificate),
});

export type StoredRevocation = z.infer<typeof identity>;
export type StoredRevokedCertificate = z.infer<typeof certificate>;

interface StoredRevocations {
  readonly identities: readonly StoredRevocation[];
  readonly certificates: readonly StoredRevokedCertificate[];
}

/** Where revocations survive a restart. */
export interface RevocationStore {
  load(): StoredRevocations;
  /** On disk, synced, when this returns. Throws KeyStoreError `key-store-unwritable`. */
  save(revocations: StoredRevocations): void;
}

/** Keeps nothing, for ephemeral trust domains. */
export function createMemoryRevocationStore(): RevocationStore {
  return { load: () => ({ identities: [], certificates: [] }), save: () => undefined };
}

/**
 * `revocations.json` in `directory`, 0600. Loading throws CodedError `revocations-corrupt` for what it cannot understand, and KeyStoreError for a file
 * that others could have written: a damaged list must not read as an empty one.
 */
export function openRevocationStore(directory: string): RevocationStore {
  preparePrivateDirectory(directory);
  const path = join(directory, "revocations.json");
  removeUnfinishedWrites(path);
  return {
    load() {
      const text = readPrivateFile(path);
      if (text === undefined) return { identities: [], certificates: [] };
      const parsed = file.safeParse(jsonOf(text));
      if (parsed.success) return parsed.data;
      throw new CodedError("revocations-corrupt", `${path} cannot be used: ${parsed.error.issues[0]?.message}`, {
        cause: parsed.error,
        hint: "restore it from a copy; removing it forgets which identities are revoked (the record still knows)",
      });
    },
    save: (revocations) => writePrivateFile(path, `${JSON.stringify({ version: 1, ...revocations })}\n`),
  };
}

/** Undefined for what is not JSON: the schema refuses that too. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isSpiffeId(text: string): boolean {
  try {
    SpiffeId.parse(text);
    return true;
  } catch {
    return false;
  }
}
