import { readFileSync, statSync } from "node:fs";
import { userInfo } from "node:os";

/** Names of users and groups by number. */
export interface AccountNames {
  user(uid: number): string | undefined;
  group(gid: number): string | undefined;
}

/**
 * Names from passwd(5) and group(5) files, read again when they change. Accounts that only a directory service knows have no name here, except the
 * daemon's own user, whom the C library was asked for.
 */
export function accountNames(files = { passwd: "/etc/passwd", group: "/etc/group" }): AccountNames {
  const passwd = numberedNames(files.passwd);
  const group = numberedNames(files.group);
  const self = ownName();
  return {
    user: (uid) => passwd().get(uid) ?? (self?.uid === uid ? self.name : undefined),
    group: (gid) => group().get(gid),
  };
}

/** Both files have the name in the first and the number in the third field. */
function numberedNames(path: string): () => ReadonlyMap<number, string> {
  let names: ReadonlyMap<number, string> = new Map();
  let version: string | undefined;
  let checkedAt = Number.NEGATIVE_INFINITY;
  return () => {
    // Looking once a second keeps a stat off the path of every attestation.
    const now = performance.now();
    if (now - checkedAt < 1000) return names;
    checkedAt = now;
    try {
      const { mtimeNs, ino } = statSync(path, { bigint: true });
      const found = `${ino}:${mtimeNs}`;
      if (found !== version) {
        names = parse(readFileSync(path, "utf8"));
        version = found;
      }
    } catch {
      names = new Map(); // without the file nobody has a name; the numbers remain
    }
    return names;
  };
}

function parse(text: string): ReadonlyMap<number, string> {
  const names = new Map<number, string>();
  for (const line of text.split("\n")) {
    const [name, , number] = line.split(":");
    // The first line with a number wins, as in getpwuid.
    if (name && number && /^\d+$/.test(number) && !names.has(Number(number))) names.set(Number(number), name);
  }
  return names;
}

function ownName(): { uid: number; name: string } | undefined {
  try {
    const { uid, username } = userInfo();
    return { uid, name: username };
  } catch {
    return undefined; // a user without an account (a container's arbitrary UID)
  }
}
