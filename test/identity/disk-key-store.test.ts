import { spawn } from "node:child_process";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openDiskKeyStore } from "../../src/identity/disk-key-store.js";
import type { Keychain } from "../../src/platform/keychain.js";
import { TrustDomain } from "../../src/spiffe/spiffe-id.js";
import { createTestClock, createTestTrustDomain, shop } from "./test-trust-domain.js";

let directory: string;
let file: string;
beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), "agentid-keys-")), "keys");
  file = join(directory, "shop.local.json");
});
afterEach(() => rmSync(join(directory, ".."), { recursive: true }));

/** Stands for the OS keychain, which no machine without a desktop has. */
function createTestKeychain(): Keychain & { readonly secrets: Map<string, string>; locked: boolean } {
  const secrets = new Map<string, string>();
  const unlocked = (chain: { locked: boolean }) => {
    if (chain.locked) throw new Error("the keychain is locked");
  };
  return {
    secrets,
    locked: false,
    async get(service, account) {
      unlocked(this);
      return secrets.get(`${service}/${account}`);
    },
    async set(service, account, secret) {
      unlocked(this);
      secrets.set(`${service}/${account}`, secret);
    },
    async remove(service, account) {
      unlocked(this);
      return secrets.delete(`${service}/${account}`);
    },
  };
}

const open = (keychain?: Keychain, trustDomain = shop) => openDiskKeyStore({ directory, trustDomain, keychain });

/** Opens, makes the authority if there is none, and closes. */
async function keyIdAfterStart(keychain?: Keychain, clock = createTestClock()): Promise<string> {
  const { authority } = createTestTrustDomain({ keyStore: await open(keychain), clock });
  authority.close();
  return authority.active.x509.keyId;
}

async function codeOf(action: () => Promise<unknown>): Promise<string> {
  try {
    await action();
  } catch (thrown) {
    return (thrown as { code: string }).code;
  }
  return "accepted";
}

describe("keys on disk", () => {
  it("keeps the trust domain over a restart, in a 0600 file of a 0700 directory, and says that it is not encrypted", async () => {
    const first = await keyIdAfterStart();
    expect(await keyIdAfterStart()).toBe(first);
    expect((await open()).protection).toBe("none");
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect(readdirSync(directory)).toEqual(["shop.local.json"]);
  });

  it("encrypts under a key of the keychain, so that the file alone is worth nothing", async () => {
    const keychain = createTestKeychain();
    const store = await open(keychain);
    const { authority } = createTestTrustDomain({ keyStore: store });
    expect(store.protection).toBe("keychain");
    const text = readFileSync(file, "utf8");
    expect(text).not.toContain(authority.active.x509.privateKeyPkcs8.toString("base64"));
    expect(text).not.toContain("PrivateKey");
    expect(await keyIdAfterStart(keychain)).toBe(authority.active.x509.keyId);
    expect([...keychain.secrets.keys()]).toHaveLength(1);
  });

  it("encrypts a plain file as soon as there is a keychain", async () => {
    const first = await keyIdAfterStart();
    const keychain = createTestKeychain();
    expect(await keyIdAfterStart(keychain)).toBe(first);
    expect(readFileSync(file, "utf8")).not.toContain("PrivateKey");
  });

  it("never starts a new trust domain because the keychain is gone, locked or has lost the key", async () => {
    const keychain = createTestKeychain();
    const first = await keyIdAfterStart(keychain);
    expect(await codeOf(() => open())).toBe("key-store-locked");
    expect(await codeOf(() => open(createTestKeychain()))).toBe("key-store-locked");
    keychain.locked = true;
    expect(await codeOf(() => open(keychain))).toBe("key-store-keychain");
    keychain.locked = false;
    expect(await keyIdAfterStart(keychain)).toBe(first);
  });

  it("never starts a new trust domain because the file is damaged", async () => {
    const keychain = createTestKeychain();
    for (const chain of [undefined, keychain]) {
      const first = await keyIdAfterStart(chain);
      const text = readFileSync(file, "utf8");
      const json = JSON.parse(text) as Record<string, string>;
      const damaged = {
        empty: "",
        cut: text.slice(0, text.length / 2),
        "another form": JSON.stringify({ ...json, version: 2 }),
        "one member more": JSON.stringify({ ...json, extra: 1 }),
        "another trust domain": JSON.stringify({ ...json, trustDomain: "other.local" }),
        ...(chain && {
          "one bit": JSON.stringify({
            ...json,
            ciphertext: json.ciphertext?.replace(/^./, (c) => (c === "A" ? "B" : "A")),
          }),
        }),
        ...(chain && { "short tag": JSON.stringify({ ...json, tag: "AAAA" }) }),
      };
      for (const [what, content] of Object.entries(damaged)) {
        writeFileSync(file, content);
        expect(await codeOf(() => open(chain)), what).toBe("key-store-corrupt");
      }
      writeFileSync(file, text);
      expect(await keyIdAfterStart(chain)).toBe(first);
    }
  });

  it("authenticates the trust domain's name with the keys", async () => {
    const keychain = createTestKeychain();
    await keyIdAfterStart(keychain);
    const json = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
    const other = TrustDomain.parse("other.local");
    const path = join(directory, "other.local.json");
    writeFileSync(path, JSON.stringify({ ...json, trustDomain: "other.local" }), { mode: 0o600 });
    expect(await codeOf(() => open(keychain, other))).toBe("key-store-corrupt");
    expect(await codeOf(() => open(keychain))).toBe("accepted");
  });

  it("refuses files and directories that others may read or have made", async () => {
    const first = await keyIdAfterStart();
    for (const mode of [0o640, 0o604, 0o620, 0o660]) {
      chmodSync(file, mode);
      expect(await codeOf(() => open())).toBe("key-store-mode");
    }
    chmodSync(file, 0o600);
    chmodSync(directory, 0o755);
    expect(await codeOf(() => open())).toBe("key-store-mode");
    chmodSync(directory, 0o700);
    expect(await keyIdAfterStart()).toBe(first);
  });

  it.runIf(process.geteuid?.() === 0)("refuses files and directories of another user", async () => {
    const first = await keyIdAfterStart();
    for (const path of [file, directory]) {
      chownSync(path, 65534, 65534);
      expect(await codeOf(() => open())).toBe("key-store-owner");
      chownSync(path, 0, 0);
    }
    expect(await keyIdAfterStart()).toBe(first);
  });

  it("refuses links and what is not a file", async () => {
    const first = await keyIdAfterStart();
    const elsewhere = join(directory, "..", "elsewhere.json");
    copyFileSync(file, elsewhere);
    chmodSync(elsewhere, 0o600);
    rmSync(file);
    symlinkSync(elsewhere, file);
    expect(await codeOf(() => open())).toBe("key-store-not-a-file");
    rmSync(file);
    linkSync(elsewhere, file);
    expect(await codeOf(() => open())).toBe("key-store-not-a-file");
    rmSync(file);
    mkdirSync(file, { mode: 0o700 });
    expect(await codeOf(() => open())).toBe("key-store-not-a-file");
    rmSync(file, { recursive: true });
    copyFileSync(elsewhere, file);
    chmodSync(file, 0o600);
    expect(await keyIdAfterStart()).toBe(first);
  });

  it("keeps each trust domain's keys, so that renaming and renaming back changes nothing", async () => {
    const first = await keyIdAfterStart();
    const long = TrustDomain.parse("t".repeat(255));
    const store = await open(undefined, long);
    expect(store.load()).toBeUndefined();
    const stored = (await open()).load();
    if (stored === undefined) throw new Error("nothing was stored");
    store.save(stored);
    expect((await open(undefined, long)).load()).toBeDefined();
    expect(await keyIdAfterStart()).toBe(first);
  });

  it("is whole at every moment at which the process may be killed", async () => {
    const first = await keyIdAfterStart();
    for (let round = 0; round < 3; round++) {
      const child = spawn(process.execPath, ["--input-type=module", "--eval", SAVE_FOREVER, directory], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      const exited = new Promise((resolve) => child.once("exit", resolve));
      let saves = 0;
      for await (const chunk of child.stdout) {
        saves += (chunk as Buffer).length;
        if (saves > 20 + round * 7) break;
      }
      child.kill("SIGKILL");
      await exited;
      expect(await keyIdAfterStart()).toBe(first);
      expect(readdirSync(directory)).toEqual(["shop.local.json"]);
    }
  });
});

const source = (path: string) => JSON.stringify(pathToFileURL(join(import.meta.dirname, "../../src", path)).href);

/** Loads and saves the keys of a directory until it is killed; a dot for each save. */
const SAVE_FOREVER = `
import { existsSync } from "node:fs";
import { registerHooks } from "node:module";
import { fileURLToPath } from "node:url";
registerHooks({
  resolve(specifier, context, next) {
    const source = specifier.startsWith(".") && specifier.endsWith(".js") && new URL(specifier.slice(0, -3) + ".ts", context.parentURL);
    return next(source && existsSync(fileURLToPath(source)) ? source.href : specifier, context);
  },
});
const { openDiskKeyStore } = await import(${source("identity/disk-key-store.ts")});
const { TrustDomain } = await import(${source("spiffe/spiffe-id.ts")});
const store = await openDiskKeyStore({ directory: process.argv[1], trustDomain: TrustDomain.parse("shop.local"), keychain: undefined });
const save = () => {
  store.save(store.load());
  process.stdout.write(".", () => setImmediate(save));
};
save();
`;
