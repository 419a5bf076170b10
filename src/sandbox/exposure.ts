import { join } from "node:path";
import { isWithin } from "./paths.js";
import type { Mount } from "./view.js";

export interface FolderEntry {
  readonly name: string;
  /** `other`: a socket, a pipe, a device. */
  readonly kind: "file" | "folder" | "link" | "other";
  /** Where a link leads, as it is written. */
  readonly to?: string;
}

export type ListFolder = (path: string) => readonly FolderEntry[];

/**
 * The mounts that show `path` and nothing of `hidden`. A folder that holds something hidden is taken apart: an empty folder with each of its other entries
 * mounted alone. Covering the hidden thing instead would not last: whoever removes or replaces a covered file outside takes the cover away inside.
 * For the same reason a link is made anew and never followed.
 */
export function showing(path: string, hidden: readonly string[], list: ListFolder): readonly Mount[] {
  if (hidden.some((one) => isWithin(one, path))) return [];
  const below = hidden.filter((one) => isWithin(path, one));
  if (below.length === 0) return [{ show: "read", source: path, at: path }];
  return [
    { show: "empty", at: path, sealed: true },
    ...list(path).flatMap((entry): readonly Mount[] => {
      const inside = join(path, entry.name);
      if (hidden.some((one) => isWithin(one, inside))) return [];
      if (entry.kind === "link") return [{ show: "link", at: inside, to: entry.to ?? "" }];
      if (entry.kind === "folder") return showing(inside, below, list);
      return entry.kind === "file" ? [{ show: "read", source: inside, at: inside }] : [];
    }),
  ];
}
