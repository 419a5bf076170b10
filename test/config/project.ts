import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
import type { Config } from "../../src/config/config.js";
import { ConfigError } from "../../src/config/config-error.js";
import { parseConfig } from "../../src/config/load.js";

/** A real folder with these files, removed when the test ends. */
export async function project(files: Readonly<Record<string, string>> = {}): Promise<string> {
  const directory = await realpath(await mkdtemp(join(tmpdir(), "agentid-config-")));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(directory, name)), { recursive: true });
    await writeFile(join(directory, name), text);
  }
  return directory;
}

/** `text` as the agentid.yaml of /shop. */
export function parse(text: string): Config {
  return parseConfig(text, { projectDirectory: "/shop", file: "/shop/agentid.yaml", digest: "00" });
}

/** The problems of `text`, each as people see it. Empty when there are none. */
export function problemsOf(text: string): readonly string[] {
  try {
    parse(text);
    return [];
  } catch (thrown) {
    if (!(thrown instanceof ConfigError)) throw thrown;
    return thrown.message.split("\n");
  }
}
