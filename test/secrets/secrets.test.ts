import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { SecretSourceConfig } from "../../src/config/config.js";
import type { Clock } from "../../src/platform/clock.js";
import { systemClock } from "../../src/platform/clock.js";
import type { Keychain } from "../../src/platform/keychain.js";
import { createSecrets, type Secrets } from "../../src/secrets/secrets.js";

const VALUE = "sk-0123456789";

let folder: string;
beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "agentid-secrets-")));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A clock that only the test moves. */
function stoppedClock(): Clock & { pass(ms: number): void } {
  let now = 0;
  const waiting = new Set<{ at: number; callback: () => void }>();
  return {
    now: () => now,
    after(delayMs, callback) {
      const entry = { at: now + delayMs, callback };
      waiting.add(entry);
      return () => waiting.delete(entry);
    },
    pass(ms) {
      now += ms;
      for (const entry of [...waiting].filter(({ at }) => at <= now)) {
        waiting.delete(entry);
        entry.callback();
      }
    },
  };
}

/** What a system's keychain holds, and how often it was asked. */
function keychainWith(held: Record<string, string> = {}) {
  const asked: string[] = [];
  const keychain: Keychain = {
    async get(service, account) {
      asked.push(`${service} ${account}`);
      return held[account];
    },
    async set(_service, account, secret) {
      held[account] = secret;
    },
    async remove(_service, account) {
      const was = account in held;
      delete held[account];
      return was;
    },
  };
  return { asked, held, keychain };
}

function secretsOf(
  sources: Readonly<Record<string, SecretSourceConfig>>,
  more: { keychain?: Keychain | undefined; clock?: Clock; environment?: Record<string, string> } = {},
): Secrets {
  return createSecrets({
    sources: () => sources,
    projectDirectory: folder,
    environment: more.environment ?? process.env,
    clock: more.clock ?? systemClock,
    openKeychain: async () => more.keychain,
  });
}

/** What it is, or the code of why not. */
async function found(secrets: Secrets, name = "openai"): Promise<string> {
  return secrets.valueOf(name).catch((thrown: { code: string }) => thrown.code);
}

const inKeychain = { openai: { kind: "keychain" } } as const;

describe("the keychain", () => {
  it("has each project's secrets under its own name", async () => {
    const { asked, keychain } = keychainWith({ openai: VALUE });
    expect(await found(secretsOf(inKeychain, { keychain }))).toBe(VALUE);
    expect(asked).toEqual([`agentid:${folder} openai`]);
  });

  it("says what is missing, and what puts it there", async () => {
    const { keychain } = keychainWith();
    await expect(secretsOf(inKeychain, { keychain }).valueOf("openai")).rejects.toMatchObject({
      code: "secret-missing",
      hint: "agentid secret set openai",
    });
  });

  it("that the system has not is said so, with the other ways, for reading, setting and removing", async () => {
    const secrets = secretsOf(inKeychain);
    const no = { code: "no-keychain", hint: expect.stringContaining("file: .env.local") };
    await expect(secrets.valueOf("openai")).rejects.toMatchObject(no);
    await expect(secrets.set("openai", VALUE)).rejects.toMatchObject(no);
    await expect(secrets.remove("openai")).rejects.toMatchObject(no);
    expect(await secrets.stateOf("openai")).toMatchObject({ is: "unusable" });
  });

  it("is asked again once it is there", async () => {
    const { keychain } = keychainWith({ openai: VALUE });
    let there = false;
    const secrets = createSecrets({
      sources: () => inKeychain,
      projectDirectory: folder,
      environment: {},
      clock: systemClock,
      openKeychain: async () => (there ? keychain : undefined),
    });
    expect(await found(secrets)).toBe("no-keychain");
    there = true;
    expect(await found(secrets)).toBe(VALUE);
  });

  it("that does not answer keeps nobody waiting, and is asked by one at a time", async () => {
    const clock = stoppedClock();
    let asked = 0;
    let answer: (value: string) => void = () => undefined;
    const { keychain } = keychainWith();
    const hanging: Keychain = {
      ...keychain,
      get: () => {
        asked += 1;
        return new Promise((resolve) => {
          answer = resolve;
        });
      },
    };
    const secrets = secretsOf(
      { openai: { kind: "keychain" }, other: { kind: "keychain" } },
      { keychain: hanging, clock },
    );
    const both = Promise.all([found(secrets), found(secrets, "other")]);
    await expect.poll(() => asked).toBe(1);
    clock.pass(10_000);
    expect(await both).toEqual(["secret-unreadable", "secret-unreadable"]);
    const late = found(secrets, "other");
    expect(asked).toBe(1);
    answer("too late");
    await expect.poll(() => asked).toBe(2);
    answer(VALUE);
    expect(await late).toBe(VALUE);
  });

  it("takes a value, and the next call has it", async () => {
    const { held, keychain } = keychainWith({ openai: "sk-old" });
    const secrets = secretsOf(inKeychain, { keychain });
    expect(await found(secrets)).toBe("sk-old");
    await secrets.set("openai", `${VALUE}\n`);
    expect(held).toEqual({ openai: VALUE });
    expect(await found(secrets)).toBe(VALUE);
    expect(await secrets.remove("openai")).toBe(true);
    expect(await found(secrets)).toBe("secret-missing");
    expect(await secrets.remove("openai")).toBe(false);
  });

  it("takes none that nothing names, or that is elsewhere, and gives those up all the same", async () => {
    const { held, keychain } = keychainWith({ gone: VALUE });
    const sources = { openai: { kind: "file", path: join(folder, ".env"), key: "K" } } as const;
    const secrets = secretsOf(sources, { keychain });
    await expect(secrets.set("opena", VALUE)).rejects.toMatchObject({
      code: "secret-unknown",
      message: expect.stringContaining('did you mean "openai"'),
    });
    await expect(secrets.set("openai", VALUE)).rejects.toMatchObject({ code: "secret-elsewhere" });
    expect(held).toEqual({ gone: VALUE });
    expect(await secrets.remove("gone")).toBe(true);
  });
});

describe("what was fetched", () => {
  it("is kept for 30 seconds, and forgotten when the sources change", async () => {
    const clock = stoppedClock();
    const { asked, keychain } = keychainWith({ openai: VALUE });
    const secrets = secretsOf(inKeychain, { keychain, clock });
    expect(await Promise.all([found(secrets), found(secrets)])).toEqual([VALUE, VALUE]);
    clock.pass(29_999);
    expect(await found(secrets)).toBe(VALUE);
    expect(asked).toHaveLength(1);
    clock.pass(1);
    expect(await found(secrets)).toBe(VALUE);
    expect(asked).toHaveLength(2);
    secrets.forget();
    expect(await found(secrets)).toBe(VALUE);
    expect(asked).toHaveLength(3);
  });

  it("while it was changed is not kept", async () => {
    const { held, keychain } = keychainWith({ openai: "sk-old" });
    let release: () => void = () => undefined;
    const heldUp = new Promise<void>((resolve) => {
      release = resolve;
    });
    const slow: Keychain = {
      ...keychain,
      async get(service, account) {
        const value = await keychain.get(service, account);
        await heldUp;
        return value;
      },
    };
    const secrets = secretsOf(inKeychain, { keychain: slow });
    const before = found(secrets);
    await new Promise(setImmediate);
    secrets.forget();
    held.openai = VALUE;
    release();
    expect(await before).toBe("sk-old");
    expect(await found(secrets)).toBe(VALUE);
  });
});

describe("a file", () => {
  const write = (text: string, mode = 0o600, name = ".env") => {
    writeFileSync(join(folder, name), text);
    chmodSync(join(folder, name), mode);
    return secretsOf({ openai: { kind: "file", path: join(folder, name), key: "OPENAI_API_KEY" } });
  };

  it.each([
    [`OPENAI_API_KEY=${VALUE}\n`, VALUE],
    [`# keys\nOTHER=x\n  export OPENAI_API_KEY = ${VALUE}   # mine\nMORE=y`, VALUE],
    [`OPENAI_API_KEY="${VALUE}"\r\n`, VALUE],
    [`OPENAI_API_KEY='${VALUE}' # mine\n`, VALUE],
    [`OPENAI_API_KEY=a#b\n`, "a#b"],
    [`OPENAI_API_KEY="a # b"\n`, "a # b"],
    [`OPENAI_API_KEY=$HOME\n`, "$HOME"],
    [`OPENAI_API_KEY_2=x\n`, "secret-missing"],
    [`OPENAI_API_KEY=\n`, "secret-malformed"],
    [`OPENAI_API_KEY= # none\n`, "secret-malformed"],
    [`OPENAI_API_KEY=a\nOPENAI_API_KEY=b\n`, "secret-unreadable"],
  ])("%j has %s", async (text, expected) => expect(await found(write(text))).toBe(expected));

  it.each([
    [0o600, VALUE],
    [0o400, VALUE],
    [0o700, VALUE],
    [0o640, "secret-unreadable"],
    [0o604, "secret-unreadable"],
    [0o620, "secret-unreadable"],
    [0o602, "secret-unreadable"],
    [0o610, "secret-unreadable"],
  ])("with mode %o", async (mode, expected) =>
    expect(await found(write(`OPENAI_API_KEY=${VALUE}`, mode))).toBe(expected),
  );

  it("that is not there, is a folder, or is too large is an error in words", async () => {
    const at = (path: string) => secretsOf({ openai: { kind: "file", path: join(folder, path), key: "K" } });
    expect(await found(at("none"))).toBe("secret-missing");
    mkdirSync(join(folder, "sub"), { mode: 0o700 });
    expect(await found(at("sub"))).toBe("secret-unreadable");
    expect(await found(write(`OPENAI_API_KEY=${VALUE}\n#${"x".repeat(1024 * 1024)}`))).toBe("secret-unreadable");
    symlinkSync(join(folder, ".env"), join(folder, "link"));
    write(`K=${VALUE}`);
    expect(await found(at("link"))).toBe(VALUE);
    chmodSync(join(folder, ".env"), 0o644);
    expect(await found(at("link"))).toBe("secret-unreadable");
  });

  it("is read anew after 30 seconds", async () => {
    const clock = stoppedClock();
    const path = join(folder, ".env");
    writeFileSync(path, "K=sk-old", { mode: 0o600 });
    const secrets = secretsOf({ openai: { kind: "file", path, key: "K" } }, { clock });
    expect(await found(secrets)).toBe("sk-old");
    writeFileSync(path, `K=${VALUE}`);
    expect(await found(secrets)).toBe("sk-old");
    clock.pass(30_000);
    expect(await found(secrets)).toBe(VALUE);
  });
});

describe("a command", () => {
  const node = (script: string, more: Parameters<typeof secretsOf>[1] = {}) =>
    secretsOf({ openai: { kind: "command", argv: [process.execPath, "-e", script] } }, more);

  it("prints it, in the project's folder, with nothing to read and no shell in between", async () => {
    expect(await found(node(`console.log("${VALUE}")`))).toBe(VALUE);
    expect(await found(node("process.stdout.write(process.cwd())"))).toBe(folder);
    expect(await found(node("process.stdin.on('end', () => console.log('over')).resume()"))).toBe("over");
    const echo = secretsOf({ openai: { kind: "command", argv: ["/bin/echo", "$HOME;x"] } });
    expect(await found(echo)).toBe("$HOME;x");
  });

  it("that fails, prints too much or cannot be run is an error that says nothing of what it printed", async () => {
    const failing = node(`console.log("${VALUE}"); console.error("${VALUE}"); process.exit(3)`);
    await expect(failing.valueOf("openai")).rejects.toMatchObject({
      code: "secret-unreadable",
      message: expect.stringMatching(/ended with code 3$/),
    });
    expect(String(await failing.valueOf("openai").catch((thrown: Error) => thrown.stack))).not.toContain(VALUE);
    await expect(
      node("setInterval(() => process.stdout.write('x'.repeat(65537)), 1)").valueOf("openai"),
    ).rejects.toThrow(/more than 64 KiB/);
    const none = secretsOf({ openai: { kind: "command", argv: ["/nowhere/op"] } });
    await expect(none.valueOf("openai")).rejects.toThrow(/cannot be run/);
    await expect(node("process.kill(process.pid, 'SIGKILL')").valueOf("openai")).rejects.toThrow(/ended by SIGKILL/);
  });

  it("that is slow is ended with what it has started, and not run again meanwhile", async () => {
    const clock = stoppedClock();
    const started = join(folder, "started");
    const script = `
      const { spawn } = require("node:child_process");
      const child = spawn("sleep", ["1000"], { stdio: "inherit" });
      require("node:fs").appendFileSync(${JSON.stringify(started)}, process.pid + " " + child.pid + "\\n");
      setInterval(() => {}, 1000);`;
    const secrets = node(script, { clock });
    const both = Promise.all([found(secrets), found(secrets)]);
    const lines = () => {
      try {
        return readLines(started);
      } catch {
        return [];
      }
    };
    await expect.poll(lines, { timeout: 10_000 }).toHaveLength(1);
    clock.pass(10_000);
    expect(await both).toEqual(["secret-unreadable", "secret-unreadable"]);
    const [pids = ""] = lines();
    for (const pid of pids.split(" ").map(Number))
      await expect.poll(() => isRunning(pid), { timeout: 10_000 }).toBe(false);
  });

  it("is not run for a list", async () => {
    const secrets = node(
      `require("node:fs").writeFileSync(${JSON.stringify(join(folder, "ran"))}, ""); console.log("${VALUE}")`,
    );
    expect(await secrets.stateOf("openai")).toEqual({ is: "not-tried" });
    expect(() => readLines(join(folder, "ran"))).toThrow();
    expect(await found(secrets)).toBe(VALUE);
    expect(await secrets.stateOf("openai")).toEqual({ is: "present" });
  });
});

describe("a value that would not stay inside its header is refused, in words that do not tell it", () => {
  it.each([
    ["", "empty"],
    ["\n", "empty"],
    ["a\r\nX-Injected: 1", "line break"],
    ["a\nb", "line break"],
    ["a\rb", "line break"],
    ["a\n\n", "line break"],
    ["a\0b", "control"],
    ["a\x1bb", "control"],
    ["a\x7fb", "control"],
    ["a\x85b", "control"],
    ["a\u0142b", "Latin-1"],
    ["a\u{1f511}b", "Latin-1"],
    [" a", "blank"],
    ["a ", "blank"],
    ["x".repeat(8_193), "longer"],
  ])("%j", async (text, why) => {
    const { held, keychain } = keychainWith();
    const secrets = secretsOf(inKeychain, { keychain });
    const refused = { code: "secret-malformed", message: expect.stringContaining(why) };
    await expect(secrets.set("openai", text)).rejects.toMatchObject(refused);
    expect(held).toEqual({});
    held.openai = text;
    await expect(secrets.valueOf("openai")).rejects.toMatchObject(refused);
  });

  it.each(["a", "a b", "a\tb", "\u00e9", "x".repeat(8_192), "a\n", "a\r\n"])("and %j is not", async (text) => {
    const { held, keychain } = keychainWith();
    const secrets = secretsOf(inKeychain, { keychain });
    await secrets.set("openai", text);
    expect(held.openai).toBe(text.replace(/\r?\n$/, ""));
    expect(await found(secrets)).toBe(held.openai);
  });
});

function readLines(path: string): readonly string[] {
  return readFileSync(path, "utf8").trimEnd().split("\n");
}

/** Not a zombie: who killed it may not be the one who waits for it. */
function isRunning(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}
