import { randomBytes } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { stringify } from "yaml";
import { z } from "zod";
import type { Lock } from "./config.js";
import { ConfigError } from "./config-error.js";
import { readProjectFile } from "./project-file.js";
import { checkAgainst } from "./schema-problems.js";
import { checkIdentityName } from "./values.js";
import { parseYaml } from "./yaml-source.js";

const MAX_BYTES = 16 * 1024 * 1024;

const HEADER = `# agentid.lock pins what may run: digests of executables, agent scripts and MCP tool descriptions.
# agentid writes it. Commit it, and read its difference in review as you read code.
`;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/, "must be 64 lower-case hex digits");

const lockFile = z.strictObject({
  version: z.literal(1),
  identities: z.record(
    z.string(),
    z.strictObject({
      exe: z.strictObject({
        path: z.string().startsWith("/", "must be an absolute path"),
        sha256,
      }),
      files: z.record(z.string(), sha256),
    }),
  ),
  tools: z
    .record(
      z.string(),
      z.record(
        z.string(),
        z.strictObject({ sha256, inputSchema: z.union([z.record(z.string(), z.unknown()), z.boolean()]) }),
      ),
    )
    .optional(),
});

/** A project without a lock: nothing is pinned, so nothing that needs a pin may run. */
export const EMPTY_LOCK: Lock = { identities: {} };

/** Reads `agentid.lock`; `EMPTY_LOCK` where there is none. Throws ConfigError `config-invalid`, `config-unreadable` or `config-untrusted`. */
export async function readLock(file: string): Promise<Lock> {
  const label = basename(file);
  const read = await readProjectFile(file, label, MAX_BYTES);
  if (read === undefined) return EMPTY_LOCK;
  const source = parseYaml(read.text, label);
  if (source.syntaxProblems.length > 0) throw new ConfigError("config-invalid", source.syntaxProblems);
  const checked = checkAgainst(lockFile, source);
  const wrongNames = Object.keys(checked.value?.identities ?? {}).flatMap((name) => {
    const wrong = checkIdentityName(name);
    return wrong === undefined ? [] : [source.problem(["identities", name], wrong, "key")];
  });
  const problems = [...checked.problems, ...wrongNames];
  if (checked.value === undefined || problems.length > 0) {
    throw new ConfigError("config-invalid", problems, {
      hint: "agentid.lock is written by agentid; restore it or remove it and pin again",
    });
  }
  const { identities, tools } = checked.value;
  return { identities, ...(tools !== undefined && { tools }) };
}

/**
 * Writes `agentid.lock` whole or not at all: a reader sees the old file or the new one. Entries are sorted, so that two writers of the
 * same pins write the same bytes.
 */
export async function writeLock(file: string, lock: Lock): Promise<void> {
  const temporary = join(dirname(file), `.${basename(file)}.${randomBytes(6).toString("hex")}`);
  try {
    const handle = await open(temporary, "wx", 0o644);
    try {
      await handle.writeFile(formatLock(lock));
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (thrown) {
    await rm(temporary, { force: true });
    throw thrown;
  }
}

/** The text of `agentid.lock`. */
export function formatLock(lock: Lock): string {
  const identities = Object.fromEntries(
    sorted(lock.identities).map(([name, { exe, files }]) => [
      name,
      { exe: { path: exe.path, sha256: exe.sha256 }, files: Object.fromEntries(sorted(files)) },
    ]),
  );
  const tools = lock.tools && {
    tools: Object.fromEntries(
      sorted(lock.tools).map(([service, pins]) => [
        service,
        Object.fromEntries(
          sorted(pins).map(([tool, { sha256, inputSchema }]) => [
            tool,
            { sha256, inputSchema: keysSorted(inputSchema) },
          ]),
        ),
      ]),
    ),
  };
  return HEADER + stringify({ version: 1, identities, ...tools }, { lineWidth: 0, version: "1.2", schema: "core" });
}

/** The order of keys means nothing in JSON: a server that answers in another order changes no line. */
function keysSorted(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(keysSorted);
  return Object.fromEntries(sorted(value as Record<string, unknown>).map(([key, member]) => [key, keysSorted(member)]));
}

/** By code unit, so that the order is the same everywhere. */
function sorted<Value>(record: Readonly<Record<string, Value>>): readonly (readonly [string, Value])[] {
  return Object.entries(record).sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0));
}
