import { existsSync } from "node:fs";

/** Secrets in the operating system's keychain, by service and account. */
export interface Keychain {
  get(service: string, account: string): Promise<string | undefined>;
  set(service: string, account: string, secret: string): Promise<void>;
  remove(service: string, account: string): Promise<boolean>;
}

/** What we use of keytar, declared here because the package is optional and its types go missing with it (D3). */
interface Keytar {
  getPassword(service: string, account: string): Promise<string | null>;
  setPassword(service: string, account: string, password: string): Promise<void>;
  deletePassword(service: string, account: string): Promise<boolean>;
}

const PROBE_TIMEOUT_MS = 800;

/**
 * The system's keychain, or undefined where there is none: keytar not installed, no secret service, or one that does not answer within 0.8 s
 * (a dead D-Bus must not hang the start).
 */
export async function openKeychain(
  load: () => Promise<unknown> = loadKeytar,
  timeoutMs = PROBE_TIMEOUT_MS,
): Promise<Keychain | undefined> {
  if (!hasSecretService(process.env)) return undefined;
  const probed = probe(load);
  // A probe that fails after the time-out has nobody left to tell.
  probed.catch(() => undefined);
  let timer: NodeJS.Timeout | undefined;
  const timedOut = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, timeoutMs, undefined);
  });
  try {
    const keytar = await Promise.race([probed, timedOut]);
    return keytar === undefined ? undefined : keychainOver(keytar);
  } catch {
    return undefined; // not installed, or the secret service refuses: the caller says which other way keys are kept
  } finally {
    clearTimeout(timer);
  }
}

async function probe(load: () => Promise<unknown>): Promise<Keytar | undefined> {
  const module: unknown = await load();
  // The default is the module itself; of its named exports Node finds only some, since it is CommonJS.
  const whole = (module as { default?: unknown } | undefined)?.default;
  const keytar = isKeytar(whole) ? whole : module;
  if (!isKeytar(keytar)) return undefined;
  await keytar.getPassword("agentid", "probe");
  return keytar;
}

function keychainOver(keytar: Keytar): Keychain {
  return {
    get: async (service, account) => (await keytar.getPassword(service, account)) ?? undefined,
    set: (service, account, secret) => keytar.setPassword(service, account, secret),
    remove: (service, account) => keytar.deletePassword(service, account),
  };
}

/** The name is a variable so that the type checker and bundlers do not ask for a package that may be missing. */
async function loadKeytar(): Promise<unknown> {
  const name = "keytar";
  return import(name);
}

function isKeytar(value: unknown): value is Keytar {
  if (typeof value !== "object" || value === null) return false;
  const methods: readonly (keyof Keytar)[] = ["getPassword", "setPassword", "deletePassword"];
  return methods.every((name) => typeof Reflect.get(value, name) === "function");
}

/** On Linux the secret service is reached over the session's D-Bus; without an address of one libsecret may try to start its own and hang. */
function hasSecretService(environment: NodeJS.ProcessEnv): boolean {
  if (process.platform !== "linux") return true;
  const runtime = environment.XDG_RUNTIME_DIR;
  return environment.DBUS_SESSION_BUS_ADDRESS !== undefined || (runtime !== undefined && existsSync(`${runtime}/bus`));
}
