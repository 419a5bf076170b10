import { join, resolve } from "node:path";
import type { AuditLog } from "../audit/audit-log.js";
import { type AuditLogFile, openAuditLog } from "../audit/chained-log.js";
import { createMemoryAuditLog } from "../audit/memory-log.js";
import { CodedError, messageOf } from "../coded-error.js";
import { findProject, LOCK_FILE_NAME } from "../config/load.js";
import { writeLock } from "../config/lock-file.js";
import { type Clock, systemClock } from "../platform/clock.js";
import { currentPlatform } from "../platform/index.js";
import type { Platform } from "../platform/platform.js";
import { createEventBus, type EventBus } from "./event-bus.js";
import { type Folders, openFolders } from "./folders.js";
import { builtInProject, loadProject, type Project } from "./project.js";

export interface TrustDomainOptions {
  /** Default: the nearest parent of the current folder with agentid.yaml. */
  readonly projectDirectory: string | undefined;
  /** What to do where there is no project: refuse, or run the built-in `ci.local`. */
  readonly withoutProject?: "refuse" | "ci.local";
  /** Keep nothing on disk. */
  readonly ephemeral: boolean;
  /** Sockets and ports beside those of a trust domain that may run for the same project. */
  readonly ownSockets?: boolean;
  /** Overrides the project's `reload`. */
  readonly reload?: "auto";
  readonly environment: NodeJS.ProcessEnv;
}

/** What every part of a trust domain stands on. */
export interface Foundation {
  readonly options: TrustDomainOptions;
  readonly projectDirectory: string;
  /** Loads the project as it is saved now. */
  readonly load: () => Promise<Project>;
  /** The project in force; a reload replaces it. */
  project: Project;
  readonly clock: Clock;
  readonly platform: Platform;
  readonly folders: Folders;
  readonly bus: EventBus;
  readonly audit: AuditLog & { readonly head: string };
  /** Size of the record when it was opened. */
  readonly recordedBefore: number;
  readonly problem: (severity: "warning" | "error", code: string, message: string) => void;
  /** What to undo at the end, last first. Every part adds what it started. */
  readonly undo: (() => unknown)[];
}

/** Loads the project, takes the folders and opens the record. Throws CodedError `no-project`, `config-invalid`, `policy-invalid`, `already-running`. */
export async function openFoundation(options: TrustDomainOptions, undo: (() => unknown)[]): Promise<Foundation> {
  const { environment, ephemeral } = options;
  const clock = systemClock;
  const platform = currentPlatform();
  // Before any key is in memory (D22).
  platform.forbidInspection();

  const { directory, load } = projectSource(options);
  const project = await load();
  const folders = openFolders({
    projectDirectory: directory,
    ephemeral,
    ownSockets: options.ownSockets === true,
    environment,
    platform,
  });
  undo.push(() => folders.release());
  await savePins(directory, project, ephemeral);

  const bus = createEventBus(clock);
  const problem: Foundation["problem"] = (severity, code, message) =>
    bus.emit({ event: "problem", severity, code, message });
  const audit = ephemeral
    ? createMemoryAuditLog({ clock })
    : await openRecord(join(folders.state, "audit"), clock, problem);
  undo.push(() => audit.close());
  const recordedBefore = audit.size;
  audit.append("daemon.start", {
    trustDomain: project.config.trustDomain.name,
    pid: process.pid,
    config: project.config.digest,
    policy: project.policyDigest,
  });
  for (const name of project.newlyPinned) audit.append("pin", { identity: name, why: "first start" });
  return {
    options,
    projectDirectory: directory,
    load,
    project,
    clock,
    platform,
    folders,
    bus,
    audit,
    recordedBefore,
    problem,
    undo,
  };
}

/** The record in files. What was altered while nobody looked is a problem on every screen, not a line in a log. */
async function openRecord(directory: string, clock: Clock, problem: Foundation["problem"]): Promise<AuditLogFile> {
  const log = await openAuditLog(directory, {
    clock,
    onTampered: ({ message }) => problem("error", "audit-tampered", message),
  });
  // Opening checks a long log at its end only; the rest is read while calls go on.
  log.verify().catch((thrown: unknown) => problem("error", "audit-unreadable", messageOf(thrown)));
  return log;
}

/** Writes the pins that a load made; an ephemeral trust domain leaves the lock as it is. */
export async function savePins(directory: string, { lock, newlyPinned }: Project, ephemeral: boolean): Promise<void> {
  if (newlyPinned.length > 0 && !ephemeral) await writeLock(join(directory, LOCK_FILE_NAME), lock);
}

/** The project's folder and how to load it, now and at every save. Throws CodedError `no-project`. */
function projectSource(options: TrustDomainOptions): { directory: string; load: () => Promise<Project> } {
  const found = options.projectDirectory ?? findProject(process.cwd());
  const { reload } = options;
  const change = (project: Project): Project =>
    reload === undefined ? project : { ...project, config: { ...project.config, reload } };
  if (found !== undefined) {
    const directory = resolve(found);
    return { directory, load: async () => change(await loadProject(directory, options.environment)) };
  }
  if (options.withoutProject !== "ci.local") {
    throw new CodedError("no-project", "there is no agentid.yaml in this folder or above it", {
      hint: "agentid init writes one",
    });
  }
  const directory = process.cwd();
  return { directory, load: async () => builtInProject(directory) };
}
