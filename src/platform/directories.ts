import { createHash } from "node:crypto";
import { chmodSync, existsSync, lstatSync, mkdirSync, realpathSync, writeFileSync } from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { dirname, isAbsolute, join } from "node:path";
import { CodedError } from "../coded-error.js";

/** Where agentid keeps things (D22). Nothing here follows a symbolic link that another user could have planted. */

export const CONFIG_FILE = "agentid.yaml";
const STATE_DIRECTORY = ".agentid";
/** sun_path holds 108 bytes on Linux and 104 on macOS, the last of them NUL. */
const MAX_SOCKET_PATH_BYTES = process.platform === "darwin" ? 103 : 107;
const LONGEST_SOCKET_NAME = 40;

/** A directory of ours is not ours alone. Code `directory-unsafe`. */
class DirectoryError extends CodedError<"directory-unsafe"> {
  override readonly name = "DirectoryError";
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The nearest folder from `start` upwards that holds `agentid.yaml`, absolute and without symbolic links, or undefined. */
export function findProjectDirectory(start: string): string | undefined {
  let directory = realpathSync(start);
  for (;;) {
    if (existsSync(join(directory, CONFIG_FILE))) return directory;
    const parent = dirname(directory);
    if (parent === directory) return undefined;
    directory = parent;
  }
}

/**
 * The project's state folder `.agentid/`, made if missing: 0700, and with a `.gitignore` of `*` before anything else is in it.
 * Throws DirectoryError when somebody else owns it or may enter it.
 */
export function openStateDirectory(projectDirectory: string): string {
  const directory = join(projectDirectory, STATE_DIRECTORY);
  makePrivateDirectory(directory);
  const ignore = join(directory, ".gitignore");
  if (!existsSync(ignore)) writeFileSync(ignore, "*\n", { mode: 0o600 });
  return directory;
}

/**
 * The folder for the sockets of the project: one per project under `$XDG_RUNTIME_DIR/agentid`, else under `agentid-UID` in the temporary folder.
 * A pure function of project, user and environment, so that every command finds the same one. Long paths are shortened so that a socket fits in.
 */
export function runtimeDirectoryOf(projectDirectory: string, environment: Environment = process.env): string {
  const project = createHash("sha256").update(realPath(projectDirectory)).digest("hex").slice(0, 16);
  const fits = (base: string): boolean =>
    Buffer.byteLength(join(base, project)) + LONGEST_SOCKET_NAME <= MAX_SOCKET_PATH_BYTES;
  return join(runtimeBases(environment).find(fits) ?? shortBase(), project);
}

/** Makes `runtimeDirectoryOf` and all of ours above it, 0700. Throws DirectoryError when somebody else owns one or may enter it. */
export function openRuntimeDirectory(projectDirectory: string, environment: Environment = process.env): string {
  const directory = runtimeDirectoryOf(projectDirectory, environment);
  makePrivateDirectory(dirname(directory));
  makePrivateDirectory(directory);
  return directory;
}

/** Path of the project's control socket: the owner's only (D25). */
export function controlSocketPath(projectDirectory: string, environment: Environment = process.env): string {
  return join(runtimeDirectoryOf(projectDirectory, environment), "control.sock");
}

/** Path of the project's Workload API socket. */
export function workloadApiSocketPath(projectDirectory: string, environment: Environment = process.env): string {
  return join(runtimeDirectoryOf(projectDirectory, environment), "workload.sock");
}

/** A socket path in `directory` for `name`; a name that would not fit into sun_path is replaced by its digest. */
export function socketPathIn(directory: string, name: string): string {
  const path = join(directory, `${name}.sock`);
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES) return path;
  return join(directory, `${createHash("sha256").update(name).digest("hex").slice(0, 16)}.sock`);
}

/** Makes `directory` with mode 0700 or checks that it is a real directory of ours that nobody else may enter. Throws DirectoryError. */
function makePrivateDirectory(directory: string): void {
  try {
    mkdirSync(directory, { mode: 0o700 });
    chmodSync(directory, 0o700); // whatever the umask took away
  } catch (cause) {
    if (!(cause instanceof Error && "code" in cause && cause.code === "EEXIST")) throw cause;
  }
  const found = lstatSync(directory);
  const refuse = (what: string, hint: string): never => {
    throw new DirectoryError("directory-unsafe", `${directory} ${what}`, { hint });
  };
  if (found.isSymbolicLink()) refuse("is a symbolic link", "Remove the link; agentid makes a folder of its own there.");
  if (!found.isDirectory()) refuse("is not a folder", "Move it away; agentid makes a folder of its own there.");
  if (found.uid !== ownUid()) {
    refuse(`belongs to user ${found.uid}, not to you`, "Remove it, or run agentid as its owner.");
  }
  if ((found.mode & 0o077) !== 0) {
    refuse("can be entered by other users", `Close it: chmod 700 ${directory} (and see what was changed in it)`);
  }
}

function runtimeBases(environment: Environment): string[] {
  const xdg = environment.XDG_RUNTIME_DIR;
  const temporary = environment.TMPDIR;
  return [
    ...(xdg !== undefined && isAbsolute(xdg) && isOwnDirectory(xdg) ? [join(xdg, "agentid")] : []),
    join(temporary !== undefined && isAbsolute(temporary) ? temporary : tmpdir(), `agentid-${ownUid()}`),
  ];
}

function shortBase(): string {
  return `/tmp/agentid-${ownUid()}`;
}

function isOwnDirectory(directory: string): boolean {
  try {
    const found = lstatSync(directory);
    return found.isDirectory() && found.uid === ownUid() && (found.mode & 0o022) === 0;
  } catch {
    return false; // a variable that points nowhere is as good as none
  }
}

function realPath(path: string): string {
  return existsSync(path) ? realpathSync(path) : path;
}

function ownUid(): number {
  return process.geteuid?.() ?? userInfo().uid;
}
