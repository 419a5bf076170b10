import { lstatSync, readdirSync, readlinkSync, realpathSync, type Stats } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { FolderEntry } from "./exposure.js";
import type { HostFiles } from "./plan.js";

/** The real file system. */
export const hostFiles: HostFiles = {
  kindOf,
  list(path) {
    return namesIn(path).flatMap((name): readonly FolderEntry[] => {
      const inside = join(path, name);
      const kind = kindOf(inside);
      if (kind === undefined) return [];
      return [kind === "link" ? { name, kind, to: readlinkSync(inside) } : { name, kind }];
    });
  },
  readLink: (path) => readlinkSync(path),
  real,
};

function namesIn(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch {
    return []; // not a folder, or closed to us: then it is closed inside as well
  }
}

function kindOf(path: string): FolderEntry["kind"] | undefined {
  let found: Stats;
  try {
    found = lstatSync(path);
  } catch {
    return undefined; // not there, or not for us to see
  }
  if (found.isSymbolicLink()) return "link";
  if (found.isDirectory()) return "folder";
  return found.isFile() ? "file" : "other";
}

function real(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(real(parent), basename(path));
  }
}
