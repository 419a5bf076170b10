import { statSync } from "node:fs";
import type { Clock } from "../platform/clock.js";
import { loadUpstreamAuthority, type UpstreamAuthority, type UpstreamAuthorityFiles } from "./upstream-authority.js";

/** The upstream authority as it lies on disk now. */
export interface UpstreamFiles {
  /** Undefined where none is configured. */
  readonly current: UpstreamAuthority | undefined;
  /** Looks at the files, and at what is configured, again. True if `current` has changed. */
  refresh(): boolean;
}

/**
 * Loads the files that `configured` names, now and whenever they change. At first they must be good: throws what `loadUpstreamAuthority` throws.
 * Later a file that is not good (half of a pair was replaced, say) is a problem, told once for each state of the files, and the last good one stays.
 */
export function openUpstreamFiles(options: {
  readonly configured: () => UpstreamAuthorityFiles | undefined;
  readonly clock: Clock;
  readonly onProblem: (thrown: unknown) => void;
}): UpstreamFiles {
  const { configured, clock, onProblem } = options;
  let seen = stateOf(configured());
  let current = load(configured());

  function load(files: UpstreamAuthorityFiles | undefined): UpstreamAuthority | undefined {
    return files === undefined ? undefined : loadUpstreamAuthority(files, clock.now());
  }

  return {
    get current() {
      return current;
    },
    refresh() {
      const files = configured();
      const state = stateOf(files);
      if (state === seen) return false;
      seen = state;
      try {
        current = load(files);
        return true;
      } catch (thrown) {
        onProblem(thrown);
        return false;
      }
    },
  };
}

/** Changes whenever one of the files is written or replaced, or another one is named. */
function stateOf(files: UpstreamAuthorityFiles | undefined): string {
  if (files === undefined) return "";
  return [files.certificate, files.key].map((path) => `${path} ${fileState(path)}`).join("\n");
}

function fileState(path: string): string {
  const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stats === undefined ? "absent" : [stats.dev, stats.ino, stats.size, stats.mtimeNs, stats.ctimeNs].join(" ");
}
