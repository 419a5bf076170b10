import { canonicalize } from "json-canonicalize";
import { type Change, type Comparison, differing, keysOfBoth, ownOf, summary } from "./change.js";
import type { Lock, LockedIdentity } from "./config.js";
import type { PinnedTools } from "./tool-pin.js";

/** Compares what two locks let run. An identity without an entry cannot be launched, so a removed entry narrows. */
export function compareLocks(old: Lock, next: Lock): Comparison {
  const names = [...new Set([...Object.keys(old.identities), ...Object.keys(next.identities)])].sort();
  return summary([
    ...names.flatMap((name): readonly Change[] => {
      const before = entryOf(old, name);
      const after = entryOf(next, name);
      if (before === undefined) return [{ line: `+ lock.${name}`, widens: true }];
      if (after === undefined) return [{ line: `- lock.${name}`, widens: false }];
      return lockedChanges(`lock.${name}`, before, after);
    }),
    ...toolChanges(old.tools ?? {}, next.tools ?? {}),
  ]);
}

/** A tool that is not pinned may say anything; a new pin only holds it to what it says. */
function toolChanges(old: PinnedTools, next: PinnedTools): readonly Change[] {
  return keysOfBoth(old, next).flatMap((service) => {
    const [before, after] = [ownOf(old, service) ?? {}, ownOf(next, service) ?? {}];
    return keysOfBoth(before, after).flatMap((tool): readonly Change[] => {
      const at = `lock.tools.${service}.${tool}`;
      const [was, is] = [ownOf(before, tool), ownOf(after, tool)];
      if (was === undefined) return [{ line: `+ ${at}: ${is?.sha256}`, widens: false }];
      if (is === undefined) return [{ line: `- ${at}: ${was.sha256}`, widens: true }];
      const schemas = [was, is].map(({ inputSchema }) => canonicalize(inputSchema));
      return [
        ...differing(at, was.sha256, is.sha256, true),
        ...differing(`${at}.inputSchema`, schemas[0], schemas[1], true),
      ];
    });
  });
}

function entryOf(lock: Lock, name: string): LockedIdentity | undefined {
  return Object.hasOwn(lock.identities, name) ? lock.identities[name] : undefined;
}

function lockedChanges(at: string, old: LockedIdentity, next: LockedIdentity): readonly Change[] {
  const files = [...new Set([...Object.keys(old.files), ...Object.keys(next.files)])].sort();
  return [
    ...differing(`${at}.exe.path`, old.exe.path, next.exe.path, true),
    ...differing(`${at}.exe.sha256`, old.exe.sha256, next.exe.sha256, true),
    ...files.flatMap((file): readonly Change[] => {
      const before = Object.hasOwn(old.files, file) ? old.files[file] : undefined;
      const after = Object.hasOwn(next.files, file) ? next.files[file] : undefined;
      if (before === undefined) return [{ line: `+ ${at}.files.${file}: ${after}`, widens: false }];
      // A file that is no longer pinned may hold anything.
      if (after === undefined) return [{ line: `- ${at}.files.${file}: ${before}`, widens: true }];
      return differing(`${at}.files.${file}`, before, after, true);
    }),
  ];
}
