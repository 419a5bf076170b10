import { CodedError, messageOf } from "../coded-error.js";
import type { SecretSourceConfig } from "../config/config.js";
import { suggestion } from "../config/nearest.js";
import type { Clock } from "../platform/clock.js";
import type { Keychain } from "../platform/keychain.js";
import { readEnvironmentFile } from "./environment-file.js";
import { runSecretCommand } from "./secret-command.js";
import { SecretError } from "./secret-error.js";
import { secretValue } from "./secret-value.js";

/** The secrets that `egress` names, each from where `agentid.yaml` says it is. */
export interface Secrets {
  /** The value, fetched now or in the last 30 seconds. Throws SecretError. */
  valueOf(name: string): Promise<string>;
  /** Whether it is there and could be sent; a command is not run for that. Never throws. */
  stateOf(name: string): Promise<SecretState>;
  /** Puts it into the keychain; the next call uses it. Throws SecretError. */
  set(name: string, text: string): Promise<void>;
  /** Takes it out of the keychain, also one that nothing names any more. False if it was not there. Throws SecretError `no-keychain`. */
  remove(name: string): Promise<boolean>;
  /** Forgets what was fetched: the sources may be others now. */
  forget(): void;
}

export type SecretState =
  | { readonly is: "present" | "missing" | "not-tried" }
  | { readonly is: "unusable"; readonly why: string };

export interface SecretsOptions {
  /** By name, as `agentid.yaml` has them now. */
  readonly sources: () => Readonly<Record<string, SecretSourceConfig>>;
  /** Absolute: commands run there, and the keychain has one name for each project. */
  readonly projectDirectory: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  /** Undefined where the system has none. */
  readonly openKeychain: () => Promise<Keychain | undefined>;
}

/** How long a fetched value is kept in memory. */
const KEPT_MS = 30_000;
/** A locked keychain asks the person at the desktop; a call does not wait for that for ever. */
const KEYCHAIN_DEADLINE_MS = 10_000;

export function createSecrets(options: SecretsOptions): Secrets {
  const { clock, projectDirectory } = options;
  const account = `agentid:${projectDirectory}`;
  const kept = new Map<string, string>();
  // One at a time for each: what hangs must not take one thread of the process after the other.
  const fetching = new Map<string, Promise<string>>();
  // What was asked before a change is not kept after it.
  let generation = 0;
  let keychain: Promise<Keychain | undefined> | undefined;
  let keychainFree: Promise<unknown> = Promise.resolve();

  function sourceOf(name: string): SecretSourceConfig {
    const sources = options.sources();
    const source = Object.hasOwn(sources, name) ? sources[name] : undefined;
    if (source !== undefined) return source;
    throw new SecretError(
      "secret-unknown",
      `agentid.yaml names no secret ${name}${suggestion(name, Object.keys(sources))}`,
      { hint: `a header below egress names it: Authorization: "Bearer \${secret:${name}}"` },
    );
  }

  async function requireKeychain(): Promise<Keychain> {
    keychain ??= options.openKeychain();
    const found = await keychain;
    if (found !== undefined) return found;
    // It may be unlocked, or its bus started, later.
    keychain = undefined;
    throw new SecretError(
      "no-keychain",
      "there is no keychain here: keytar is not installed, or no secret service answers",
      {
        hint: "secrets: { NAME: { file: .env.local, key: KEY } } in agentid.yaml takes it from a file with mode 0600, { command: [...] } from a program",
      },
    );
  }

  async function inKeychain<Value>(use: (keychain: Keychain) => Promise<Value>): Promise<Value> {
    let late = false;
    // One after the other: a keychain that hangs takes one thread of this process, not all of them.
    const used = keychainFree.then(async () => (late ? undefined : use(await requireKeychain())));
    keychainFree = used.catch(() => undefined);
    let cancel: () => void = () => undefined;
    const tooLate = new Promise<never>((_, reject) => {
      cancel = clock.after(KEYCHAIN_DEADLINE_MS, () => {
        late = true;
        reject(new SecretError("secret-unreadable", "the keychain does not answer: is it locked?"));
      });
    });
    try {
      return (await Promise.race([used, tooLate])) as Value;
    } catch (thrown) {
      if (thrown instanceof SecretError) throw thrown;
      throw new SecretError("secret-unreadable", `the keychain failed: ${messageOf(thrown)}`, { cause: thrown });
    } finally {
      cancel();
    }
  }

  async function read(name: string, source: SecretSourceConfig): Promise<string | undefined> {
    switch (source.kind) {
      case "keychain":
        return inKeychain((found) => found.get(account, name));
      case "file":
        return readEnvironmentFile(source.path, source.key);
      case "command": {
        const { environment } = options;
        return runSecretCommand({ argv: source.argv, workingDirectory: projectDirectory, environment, clock });
      }
    }
  }

  async function fetch(name: string): Promise<string> {
    const source = sourceOf(name);
    const text = await read(name, source);
    if (text !== undefined) return secretValue(name, text);
    const hint = source.kind === "file" ? `${source.path} has no line ${source.key}=…` : `agentid secret set ${name}`;
    throw new SecretError("secret-missing", `the secret ${name} is not there: ${hint}`, { hint });
  }

  function forget(): void {
    generation += 1;
    kept.clear();
    fetching.clear();
  }

  return {
    forget,
    valueOf(name) {
      const known = kept.get(name);
      if (known !== undefined) return Promise.resolve(known);
      const running = fetching.get(name);
      if (running !== undefined) return running;
      const asked = generation;
      const fetched = fetch(name)
        .then((value) => {
          if (asked !== generation) return value;
          kept.set(name, value);
          clock.after(KEPT_MS, () => {
            if (asked === generation) kept.delete(name);
          });
          return value;
        })
        .finally(() => {
          if (fetching.get(name) === fetched) fetching.delete(name);
        });
      fetching.set(name, fetched);
      return fetched;
    },
    async stateOf(name) {
      if (kept.has(name)) return { is: "present" };
      try {
        if (sourceOf(name).kind === "command") return { is: "not-tried" };
        await fetch(name);
        return { is: "present" };
      } catch (thrown) {
        if (thrown instanceof CodedError && thrown.code === "secret-missing") return { is: "missing" };
        return { is: "unusable", why: messageOf(thrown) };
      }
    },
    async set(name, text) {
      const source = sourceOf(name);
      if (source.kind !== "keychain") {
        const where = source.kind === "file" ? `${source.key} in ${source.path}` : `what ${source.argv[0]} prints`;
        throw new SecretError(
          "secret-elsewhere",
          `agentid.yaml says that the secret ${name} is ${where}: change it there`,
        );
      }
      const value = secretValue(name, text);
      await inKeychain((found) => found.set(account, name, value));
      forget();
    },
    async remove(name) {
      const removed = await inKeychain((found) => found.remove(account, name));
      forget();
      return removed;
    },
  };
}
