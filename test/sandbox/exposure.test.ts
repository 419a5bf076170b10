import { basename, dirname } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type FolderEntry, type ListFolder, showing } from "../../src/sandbox/exposure.js";
import { isWithin } from "../../src/sandbox/paths.js";
import { inMountOrder, type Mount } from "../../src/sandbox/view.js";

/** A tree of folders (objects), files (true), links (where to) and sockets (null). */
interface Tree {
  readonly [name: string]: Tree | true | string | null;
}

function lister(root: Tree) {
  return (path: string): readonly FolderEntry[] => {
    let at: Tree[string] | undefined = root;
    for (const step of path.split("/").filter((name) => name !== "")) {
      at = typeof at === "object" && at !== null ? at[step] : undefined;
    }
    if (typeof at !== "object" || at === null) return [];
    return Object.entries(at).map(([name, what]) => {
      if (what === true) return { name, kind: "file" };
      if (what === null) return { name, kind: "other" };
      return typeof what === "string" ? { name, kind: "link", to: what } : { name, kind: "folder" };
    });
  };
}

/** What stands at `path` inside: decided by the deepest mount above it. Below a file or a link there is nothing of this place. */
function seenAt(mounts: readonly Mount[], path: string, list: ListFolder): "outside" | "nothing" {
  const above = inMountOrder(mounts).findLast((mount) => isWithin(mount.at, path));
  if (above === undefined || above.show === "empty") return "nothing";
  const isFolder = list(dirname(above.at)).some(({ name, kind }) => name === basename(above.at) && kind === "folder");
  return above.at === path || (above.show === "read" && isFolder) ? "outside" : "nothing";
}

const names = fc.constantFrom("a", "b", "c", ".env");
const { tree } = fc.letrec<{ tree: Tree; leaf: Tree[string] }>((tie) => ({
  leaf: fc.oneof({ maxDepth: 3 }, fc.constantFrom<Tree[string][]>(true, null, "../a"), tie("tree")),
  tree: fc.dictionary(names, tie("leaf"), { maxKeys: 4 }),
}));
const path = fc.array(names, { minLength: 1, maxLength: 4 }).map((steps) => `/${steps.join("/")}`);

describe("a folder that holds something hidden", () => {
  it("is taken apart: nothing hidden and nothing below it is ever mounted, whatever else is", () => {
    let hiddenBelow = 0;
    fc.assert(
      fc.property(tree, path, fc.array(path, { maxLength: 4 }), (root, shown, hidden) => {
        const mounts = showing(shown, hidden, lister(root));
        for (const one of hidden) {
          expect(seenAt(mounts, one, lister(root))).toBe("nothing");
          if (isWithin(shown, one)) hiddenBelow += 1;
        }
      }),
      { numRuns: 2_000 },
    );
    expect(hiddenBelow).toBeGreaterThan(100);
  });

  it("shows everything else but sockets and devices, and never follows a link", () => {
    const root: Tree = {
      p: {
        ".agentid": { key: true },
        run: { "x.sock": null },
        src: { deep: { f: true } },
        link: "/home/u/.ssh",
        "s.sock": null,
        f: true,
      },
    };
    const mounts = showing("/p", ["/p/.agentid", "/p/src/deep/g"], lister(root));
    expect(mounts).toEqual([
      { show: "empty", at: "/p", sealed: true },
      { show: "read", source: "/p/run", at: "/p/run" },
      { show: "empty", at: "/p/src", sealed: true },
      { show: "empty", at: "/p/src/deep", sealed: true },
      { show: "read", source: "/p/src/deep/f", at: "/p/src/deep/f" },
      { show: "link", at: "/p/link", to: "/home/u/.ssh" },
      { show: "read", source: "/p/f", at: "/p/f" },
    ]);
    expect(showing("/p", [], lister(root))).toEqual([{ show: "read", source: "/p", at: "/p" }]);
    expect(showing("/p/.agentid/key", ["/p/.agentid"], lister(root))).toEqual([]);
  });
});
