import { basename, dirname, join } from "node:path";
import { type FolderEntry, showing } from "./exposure.js";
import { isWithin } from "./paths.js";
import { isEnvironmentFile, privatePathsOf } from "./private-paths.js";
import { INSIDE, type Mount, type SandboxView } from "./view.js";

/** What of the file system is asked while a view is made; `host-files.ts` asks the real one. */
export interface HostFiles {
  /** Undefined where there is nothing, or nothing for us to see. Links are not followed. */
  kindOf(path: string): FolderEntry["kind"] | undefined;
  list(path: string): readonly FolderEntry[];
  readLink(path: string): string;
  /** Without symbolic links, also for a path that does not exist yet: as far as it does. */
  real(path: string): string;
}

/** All paths absolute. */
export interface SandboxWish {
  readonly projectDirectory: string;
  readonly homes: readonly string[];
  /** Never shown, beside what every home hides: `.agentid`, the folder of the sockets, private keys, the sockets of services. */
  readonly hidden: readonly string[];
  /** Never writable: the configuration, the policies, the lock. */
  readonly protected: readonly string[];
  readonly workingDirectory: string;
  /** The executable that will run, and the files that are pinned with it. */
  readonly executable: string;
  readonly files: readonly string[];
  readonly read: readonly string[];
  readonly write: readonly string[];
  readonly workloadApi: string;
  readonly door: string;
  readonly launchSocket?: string | undefined;
}

/** Made of one wish and the file system as it is: what will be visible, and what must not be, for the check afterwards. */
export interface SandboxPlan {
  readonly view: SandboxView;
  readonly hidden: readonly string[];
  readonly readOnly: readonly string[];
  readonly writable: readonly string[];
}

/** A wish that cannot be granted: what is wrong, for people. */
export class SandboxWishError extends Error {
  override readonly name = "SandboxWishError";
}

const SYSTEM_FOLDERS = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];
/** What programs look up in /etc; nothing that says who may log in, and no host's keys. */
const SETTINGS = [
  ...["passwd", "group", "nsswitch.conf", "host.conf", "hosts", "gai.conf", "protocols", "services", "shells"],
  ...["ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "timezone", "locale.conf"],
  ...["os-release", "lsb-release", "debian_version", "mime.types", "magic", "terminfo", "inputrc", "fonts", "xdg"],
  ...["ssl/certs", "ssl/openssl.cnf", "ca-certificates", "pki/tls/certs", "pki/tls/cert.pem", "pki/ca-trust"],
  ...["java", "python3", "node", "perl", "papersize", "profile", "bash.bashrc"],
].map((name) => join("/etc", name));

/** Throws SandboxWishError. */
export function planSandbox(wish: SandboxWish, files: HostFiles): SandboxPlan {
  const environmentFiles = files
    .list(wish.projectDirectory)
    .map(({ name }) => join(wish.projectDirectory, name))
    .filter((path) => isEnvironmentFile(basename(path)) && !wish.read.includes(path) && !wish.write.includes(path));
  const named = [...privatePathsOf(wish.homes), ...wish.hidden, ...environmentFiles];
  // A path of the machine hides what is below it, except where the project itself lives there (a project in /run/user).
  const hidden = [...new Set([...named, ...named.map(files.real)])].filter(
    (path) => !isWithin(path, wish.projectDirectory),
  );
  const guarded = [...new Set([...wish.protected, ...wish.protected.map(files.real)])];
  const shown = [
    ...system(files),
    ...[...new Set([wish.projectDirectory, ...runtimeOf(wish), ...filesToShow(wish)])].flatMap((path) =>
      showing(path, hidden, files.list),
    ),
    ...wish.read.flatMap((path) => {
      checkWish(path, "read", hidden, files);
      return showing(path, hidden, files.list);
    }),
    ...wish.write.map((path): Mount => {
      checkWish(path, "write", [...hidden, ...guarded], files);
      return { show: "write", source: path, at: path };
    }),
  ];
  if (!shown.some((mount) => mount.show !== "link" && isWithin(mount.at, wish.workingDirectory))) {
    throw new SandboxWishError(`its folder ${wish.workingDirectory} is not visible inside: add it to \`read\``);
  }
  const view: SandboxView = {
    mounts: [
      ...wish.homes
        .filter((home) => home !== wish.projectDirectory && home !== "/")
        .map((at): Mount => ({ show: "empty", at, sealed: false })),
      ...withoutRepeats(shown),
      { show: "read", source: wish.workloadApi, at: INSIDE.workloadApi },
      ...(wish.launchSocket === undefined
        ? []
        : [{ show: "read" as const, source: wish.launchSocket, at: INSIDE.launchSocket }]),
      { show: "read", source: wish.door, at: INSIDE.door },
    ],
    workingDirectory: wish.workingDirectory,
  };
  const exists = (path: string): boolean => files.kindOf(path) !== undefined && files.real(path) === path;
  return { view, hidden: hidden.filter(exists), readOnly: guarded.filter(exists), writable: wish.write };
}

function system(files: HostFiles): readonly Mount[] {
  return [...SYSTEM_FOLDERS, ...SETTINGS].flatMap((path): readonly Mount[] => {
    const kind = files.kindOf(path);
    if (kind === undefined) return [];
    // /bin of a merged system leads to usr/bin and must go on doing so; a setting like /etc/localtime is shown where it stands.
    if (kind === "link" && !path.startsWith("/etc/")) return [{ show: "link", at: path, to: files.readLink(path) }];
    return [{ show: "read", source: files.real(path), at: path }];
  });
}

/** The installation of an interpreter that does not come from the system (pyenv, nvm, a clone's Node): its prefix, or where that holds more, the file alone. */
function runtimeOf({ executable, homes, projectDirectory }: SandboxWish): readonly string[] {
  if (SYSTEM_FOLDERS.some((folder) => isWithin(folder, executable))) return [];
  const folder = dirname(executable);
  const prefix = dirname(folder);
  const holdsMore =
    !["bin", "sbin"].includes(basename(folder)) ||
    prefix.split("/").length < 3 ||
    isWithin(prefix, projectDirectory) ||
    homes.some((home) => isWithin(prefix, home) || prefix === join(home, ".local"));
  return [holdsMore ? executable : prefix];
}

/** Pinned files that the project's folder does not show, and those that a writable folder would open. */
function filesToShow({ files, projectDirectory, write }: SandboxWish): readonly string[] {
  return files.filter((file) => !isWithin(projectDirectory, file) || write.some((folder) => isWithin(folder, file)));
}

function checkWish(path: string, wish: "read" | "write", closed: readonly string[], files: HostFiles): void {
  const kind = files.kindOf(path);
  if (kind === undefined) throw new SandboxWishError(`${wish} names ${path}, which does not exist`);
  // An agent that may write beside it could lead the link elsewhere before its next launch.
  if (files.real(path) !== path) {
    throw new SandboxWishError(
      `${wish} names ${path}, which is or goes through a symbolic link: write ${files.real(path)}`,
    );
  }
  if (kind === "other") throw new SandboxWishError(`${wish} names ${path}, which is neither a file nor a folder`);
  const around = closed.find((one) => isWithin(one, path));
  if (around !== undefined) throw new SandboxWishError(`${wish} names ${path}, which stays closed (${around})`);
  const held =
    wish === "write" ? closed.find((one) => isWithin(path, one) && files.kindOf(one) !== undefined) : undefined;
  if (held !== undefined) {
    throw new SandboxWishError(`write names ${path}, which holds ${held}: name the folders beside it instead`);
  }
}

/** The same place named twice is shown once, writable if one of them says so. */
function withoutRepeats(mounts: readonly Mount[]): readonly Mount[] {
  const byPlace = new Map<string, Mount>();
  for (const mount of mounts) {
    const there = byPlace.get(mount.at);
    // A folder that was taken apart stays so: what it hides is hidden whoever names it.
    if (there === undefined || (mount.show === "write" && there.show === "read")) byPlace.set(mount.at, mount);
  }
  return [...byPlace.values()];
}
