import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Config } from "../config/config.js";
import { CONFIG_FILE_NAME, ENTITIES_FILE_NAME, LOCK_FILE_NAME } from "../config/load.js";
import type { Clock } from "../platform/clock.js";

/** Programs that save by truncating and writing leave a file empty for a moment; what was written just now may be half of it. */
const SETTLED_MS = 40;
/** A program that never stops writing must not keep a change from taking effect. */
const LONGEST_WAIT_MS = 2_000;

interface FileStates {
  /** Changes with every save of any of the files. */
  readonly signature: string;
  readonly newestMs: number;
}

/** What `load` makes of the project's files once nobody has written to them for a moment, nor while they were read. */
export async function loadSettled<Loaded>(config: Config, clock: Clock, load: () => Promise<Loaded>): Promise<Loaded> {
  const until = clock.now() + LONGEST_WAIT_MS;
  for (;;) {
    const before = await statesOf(config);
    const age = clock.now() - before.newestMs;
    if (age >= 0 && age < SETTLED_MS && clock.now() < until) {
      await new Promise<void>((resolve) => clock.after(SETTLED_MS - age, resolve));
      continue;
    }
    const [outcome] = await Promise.allSettled([load()]);
    const after = await statesOf(config);
    if (after.signature !== before.signature && clock.now() < until) continue;
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  }
}

async function statesOf({ projectDirectory, policiesDirectory }: Config): Promise<FileStates> {
  const policies = await readdir(policiesDirectory, { recursive: true }).catch(() => []);
  const files = [
    join(projectDirectory, CONFIG_FILE_NAME),
    join(projectDirectory, LOCK_FILE_NAME),
    join(projectDirectory, ENTITIES_FILE_NAME),
    ...policies.sort().map((name) => join(policiesDirectory, name)),
  ];
  let newestMs = 0;
  const states: string[] = [];
  for (const file of files) {
    // A file that is not there has a state too.
    const found = await stat(file, { bigint: true }).catch(() => undefined);
    states.push(`${file} ${found?.ino} ${found?.size} ${found?.mtimeNs} ${found?.ctimeNs}`);
    newestMs = Math.max(newestMs, Number(found?.mtimeMs ?? 0n));
  }
  return { signature: states.join("\n"), newestMs };
}
