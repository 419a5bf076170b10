import { createHash, type Hash } from "node:crypto";
import { libc } from "./libc.js";

/** SHA-256 of what is fed to it, computed off the event loop. */
export interface Sha256 {
  /** The first `length` bytes of `chunk`, which must stay as they are until the promise settles. One at a time. */
  update(chunk: Buffer, length: number): Promise<void>;
  /** Lower-case hex. Ends it. */
  digest(): string;
  /** Ends it without an answer. Idempotent; not while an update is under way. */
  abandon(): void;
}

/*
 * Node computes incremental hashes on the thread that asks. It also exports OpenSSL's own functions (as it does for native add-ons), and koffi calls
 * those on the thread pool: one short task a chunk, so that several hashes take turns and nobody waits for a whole file.
 */

const DIGEST_BYTES = 32;

type UpdateFunction = { async(...args: unknown[]): void };

interface OpenSsl {
  readonly create: () => unknown;
  readonly algorithm: () => unknown;
  readonly init: (context: unknown, algorithm: unknown, engine: null) => number;
  readonly update: UpdateFunction;
  readonly final: (context: unknown, digest: Buffer, length: null) => number;
  readonly free: (context: unknown) => void;
}

let bound: OpenSsl | "absent" | undefined;

/** A new hash. */
export function sha256OnThread(): Sha256 {
  bound ??= bind();
  return bound === "absent" ? inSlices(createHash("sha256")) : onThread(bound);
}

function bind(): OpenSsl | "absent" {
  try {
    return {
      create: libc.func("void *EVP_MD_CTX_new()") as unknown as OpenSsl["create"],
      algorithm: libc.func("const void *EVP_sha256()") as unknown as OpenSsl["algorithm"],
      init: libc.func("int EVP_DigestInit_ex(void *, const void *, void *)") as unknown as OpenSsl["init"],
      update: libc.func("int EVP_DigestUpdate(void *, const void *, size_t)") as unknown as UpdateFunction,
      final: libc.func("int EVP_DigestFinal_ex(void *, void *, void *)") as unknown as OpenSsl["final"],
      free: libc.func("void EVP_MD_CTX_free(void *)") as unknown as OpenSsl["free"],
    };
  } catch {
    return "absent"; // a Node that keeps OpenSSL's names to itself
  }
}

function onThread(openssl: OpenSsl): Sha256 {
  const context = openssl.create();
  let open = true;
  const end = (): void => {
    if (open) openssl.free(context);
    open = false;
  };
  if (openssl.init(context, openssl.algorithm(), null) !== 1) {
    end();
    return inSlices(createHash("sha256"));
  }
  return {
    update: (chunk, length) =>
      new Promise((resolve, reject) => {
        openssl.update.async(context, chunk, length, (failed: Error | null, done: number) => {
          if (failed === null && done === 1) resolve();
          else reject(failed ?? new Error("EVP_DigestUpdate failed"));
        });
      }),
    digest() {
      const digest = Buffer.alloc(DIGEST_BYTES);
      const done = open ? openssl.final(context, digest, null) : 0;
      end();
      if (done !== 1) throw new Error("EVP_DigestFinal_ex failed");
      return digest.toString("hex");
    },
    abandon: end,
  };
}

/** On the event loop, which others have after every slice of well under a millisecond. */
const SLICE_BYTES = 128 * 1024;

/** The second choice, where OpenSSL's functions cannot be called. */
export function inSlices(hash: Hash): Sha256 {
  return {
    async update(chunk, length) {
      for (let at = 0; at < length; at += SLICE_BYTES) {
        hash.update(chunk.subarray(at, Math.min(at + SLICE_BYTES, length)));
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
    },
    digest: () => hash.digest("hex"),
    abandon: () => undefined,
  };
}
