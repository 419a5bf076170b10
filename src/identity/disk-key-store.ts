import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import { z } from "zod";
import { messageOf } from "../coded-error.js";
import type { Keychain } from "../platform/keychain.js";
import type { TrustDomain } from "../spiffe/spiffe-id.js";
import type { KeyStore } from "./key-store.js";
import { KeyStoreError } from "./key-store-error.js";
import { preparePrivateDirectory, readPrivateFile, removeUnfinishedWrites, writePrivateFile } from "./private-file.js";

/** The keychain's name for all our keys. */
const SERVICE = "agentid";

const upstreamChain = z.array(z.base64()).optional();
const authority = z.strictObject({
  x509Certificate: z.base64(),
  upstreamChain,
  x509PrivateKeyPkcs8: z.base64(),
  jwtPrivateKeyPkcs8: z.base64(),
  witPrivateKeyPkcs8: z.base64().optional(),
});
const publicKey = (use: "jwt-svid" | "wit-svid") =>
  z.strictObject({
    kty: z.literal("EC"),
    crv: z.literal("P-256"),
    x: z.base64url(),
    y: z.base64url(),
    kid: z.string().min(1),
    use: z.literal(use),
    alg: z.literal("ES256"),
  });
const oldAuthority = z.strictObject({
  x509Certificate: z.base64(),
  upstreamChain,
  tainted: z.literal(true).optional(),
  jwtPublicKey: publicKey("jwt-svid"),
  witPublicKey: publicKey("wit-svid").optional(),
  revocationList: z.base64().optional(),
});
const authorities = z.strictObject({
  active: authority,
  prepared: authority.optional(),
  old: z.array(oldAuthority),
});
const plainFile = z.strictObject({
  version: z.literal(1),
  trustDomain: z.string(),
  protection: z.literal("none"),
  authorities,
});
const encryptedFile = z.strictObject({
  version: z.literal(1),
  trustDomain: z.string(),
  protection: z.literal("keychain"),
  /** The keychain's account that holds the key: random, so that a project can be moved or copied. */
  account: z.string(),
  nonce: z.base64(),
  tag: z.base64(),
  ciphertext: z.base64(),
});
const keyFile = z.discriminatedUnion("protection", [plainFile, encryptedFile]);
type KeyFile = z.infer<typeof keyFile>;

/** The key that the keychain holds for one file. */
interface FileKey {
  readonly account: string;
  readonly key: Buffer;
}

/**
 * The keys of `trustDomain` in one 0600 file of `directory` (`.agentid/keys`), encrypted with AES-256-GCM under a key of the keychain where
 * there is one. A plain file is encrypted as soon as there is a keychain. Changing the trust domain's name changes the file, and back.
 *
 * Throws KeyStoreError: `key-store-owner`, `key-store-mode`, `key-store-not-a-file` (somebody else could have put or read it),
 * `key-store-corrupt`, `key-store-locked` (its key is in a keychain that is not there), `key-store-keychain` (the keychain failed).
 */
export async function openDiskKeyStore(options: {
  readonly directory: string;
  readonly trustDomain: TrustDomain;
  readonly keychain: Keychain | undefined;
}): Promise<KeyStore> {
  const { directory, trustDomain, keychain } = options;
  preparePrivateDirectory(directory);
  const path = join(directory, fileName(trustDomain));
  removeUnfinishedWrites(path);
  const found = readKeyFile(path, trustDomain);
  const fileKey = await fileKeyFor(found, trustDomain, keychain, path);
  const store: KeyStore = {
    protection: fileKey === undefined ? "none" : "keychain",
    load() {
      const file = readKeyFile(path, trustDomain);
      if (file === undefined) return undefined;
      const content = file.protection === "none" ? file.authorities : decrypt(file, fileKey, path);
      return content;
    },
    save(content) {
      const part =
        fileKey === undefined
          ? { protection: "none", authorities: content }
          : encrypt(JSON.stringify(content), fileKey, trustDomain.name);
      writePrivateFile(path, `${JSON.stringify({ version: 1, trustDomain: trustDomain.name, ...part })}\n`);
    },
  };
  const stored = store.load();
  if (stored !== undefined && found?.protection === "none" && fileKey !== undefined) store.save(stored);
  return store;
}

/** A trust domain's name may be as long as a file name without its suffix, or longer. */
function fileName(trustDomain: TrustDomain): string {
  const { name } = trustDomain;
  return name.length <= 200 ? `${name}.json` : `${createHash("sha256").update(name).digest("hex")}.json`;
}

function readKeyFile(path: string, trustDomain: TrustDomain): KeyFile | undefined {
  const text = readPrivateFile(path);
  if (text === undefined) return undefined;
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw corrupt(path, "it is not JSON", cause);
  }
  const parsed = keyFile.safeParse(json);
  if (!parsed.success) throw corrupt(path, "it does not have the form of a key file", parsed.error);
  if (parsed.data.trustDomain !== trustDomain.name) {
    throw corrupt(path, `it belongs to the trust domain ${parsed.data.trustDomain}`);
  }
  return parsed.data;
}

/** The key of an encrypted file, a new one if there is a keychain and no encrypted file yet, or undefined without a keychain. */
async function fileKeyFor(
  found: KeyFile | undefined,
  trustDomain: TrustDomain,
  keychain: Keychain | undefined,
  path: string,
): Promise<FileKey | undefined> {
  if (found?.protection === "keychain") {
    const secret = await inKeychain(() => keychain?.get(SERVICE, found.account));
    if (secret !== undefined) return { account: found.account, key: Buffer.from(secret, "base64") };
    throw new KeyStoreError(
      "key-store-locked",
      `${path} is encrypted and its key is not in a keychain that can be reached`,
      {
        hint: "unlock the keychain (or log in to the desktop session) and start again; removing the file starts a new trust domain",
      },
    );
  }
  if (keychain === undefined) return undefined;
  const account = `${trustDomain.name} ${randomBytes(8).toString("hex")}`;
  const key = randomBytes(32);
  await inKeychain(() => keychain.set(SERVICE, account, key.toString("base64")));
  return { account, key };
}

async function inKeychain<T>(ask: () => Promise<T> | undefined): Promise<T | undefined> {
  try {
    return await ask();
  } catch (cause) {
    throw new KeyStoreError("key-store-keychain", `the keychain failed: ${messageOf(cause)}`, {
      cause,
      hint: "unlock it, or set `keys: memory` in agentid.yaml to keep no keys",
    });
  }
}

type EncryptedPart = Pick<z.infer<typeof encryptedFile>, "protection" | "account" | "nonce" | "tag" | "ciphertext">;

/** The trust domain's name is authenticated with the content, so that files cannot be exchanged between trust domains. */
function encrypt(plaintext: string, { account, key }: FileKey, trustDomain: string): EncryptedPart {
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(Buffer.from(trustDomain));
  const ciphertext = Buffer.concat([cipher.update(plaintext, "utf8"), cipher.final()]);
  return {
    protection: "keychain",
    account,
    nonce: nonce.toString("base64"),
    tag: cipher.getAuthTag().toString("base64"),
    ciphertext: ciphertext.toString("base64"),
  };
}

function decrypt(file: z.infer<typeof encryptedFile>, fileKey: FileKey | undefined, path: string) {
  if (fileKey?.account !== file.account) throw corrupt(path, "it was encrypted under another key since it was opened");
  try {
    const decipher = createDecipheriv("aes-256-gcm", fileKey.key, Buffer.from(file.nonce, "base64"), {
      authTagLength: 16,
    })
      .setAAD(Buffer.from(file.trustDomain))
      .setAuthTag(Buffer.from(file.tag, "base64"));
    const plaintext = Buffer.concat([decipher.update(Buffer.from(file.ciphertext, "base64")), decipher.final()]);
    return authorities.parse(JSON.parse(plaintext.toString("utf8")));
  } catch (cause) {
    throw corrupt(path, "it does not decrypt with its key", cause);
  }
}

function corrupt(path: string, why: string, cause?: unknown): KeyStoreError {
  return new KeyStoreError("key-store-corrupt", `${path} cannot be used: ${why}`, {
    cause,
    hint: "restore it from a copy; removing it starts a new trust domain, which nobody who trusts this one will trust",
  });
}
