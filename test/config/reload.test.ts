import { describe, expect, it } from "vitest";
import { type ReloadEvent, type ReloadState, reloadStarted, reloadTransition } from "../../src/config/reload.js";

interface Project {
  readonly name: string;
  readonly config: { readonly reload: "confirm" | "auto" };
}

const project = (name: string, reload: "confirm" | "auto" = "confirm"): Project => ({ name, config: { reload } });
const good = (next: Project, widened: boolean, revision = 1): ReloadEvent<Project> => ({
  kind: "saved-good",
  next,
  widened,
  changes: [`to ${next.name}`],
  revision,
});
const broken: ReloadEvent<Project> = { kind: "saved-broken", error: new Error("line 3") };

const one = project("one");
const two = project("two");
const three = project("three");
const current: ReloadState<Project> = reloadStarted(one);
const waiting: ReloadState<Project> = { kind: "waiting", current: one, next: two, changes: ["to two"], revision: 1 };
const failed: ReloadState<Project> = { kind: "failed", current: one, error: new Error("line 1") };

describe("every arrow", () => {
  it.each([
    ["current, narrower → current", current, good(two, false), { kind: "current", current: two }],
    ["current, wider → waiting, the old one in force", current, good(two, true), waiting],
    [
      "current, broken → failed, the last good in force",
      current,
      broken,
      { kind: "failed", current: one, error: broken.error },
    ],
    [
      "waiting, narrower than what is in force → current",
      waiting,
      good(three, false),
      { kind: "current", current: three },
    ],
    [
      "waiting, wider → waiting for the new one",
      waiting,
      good(three, true, 2),
      { kind: "waiting", current: one, next: three, changes: ["to three"], revision: 2 },
    ],
    [
      "waiting, broken → failed, and nothing waits",
      waiting,
      broken,
      { kind: "failed", current: one, error: broken.error },
    ],
    ["waiting, accepted → current", waiting, { kind: "accepted" }, { kind: "current", current: two }],
    [
      "waiting, accepted as shown → current",
      waiting,
      { kind: "accepted", revision: 1 },
      { kind: "current", current: two },
    ],
    [
      "waiting, refused → current, the old one",
      waiting,
      { kind: "refused", revision: 1 },
      { kind: "current", current: one },
    ],
    ["failed, narrower → current", failed, good(two, false), { kind: "current", current: two }],
    ["failed, wider → waiting", failed, good(two, true), waiting],
    [
      "failed, broken → failed with the new error",
      failed,
      broken,
      { kind: "failed", current: one, error: broken.error },
    ],
  ] satisfies [string, ReloadState<Project>, ReloadEvent<Project>, ReloadState<Project>][])(
    "%s",
    (_, state, event, next) => {
      expect(reloadTransition<Project>(state, event)).toEqual(next);
    },
  );

  it.each([
    ["current, accepted", current, { kind: "accepted" }, "reload-not-waiting"],
    ["current, refused", current, { kind: "refused" }, "reload-not-waiting"],
    ["failed, accepted", failed, { kind: "accepted", revision: 1 }, "reload-not-waiting"],
    ["failed, refused", failed, { kind: "refused" }, "reload-not-waiting"],
    ["waiting, something else accepted", waiting, { kind: "accepted", revision: 0 }, "reload-changed"],
    ["waiting, something else refused", waiting, { kind: "refused", revision: 2 }, "reload-changed"],
  ] satisfies [string, ReloadState<Project>, ReloadEvent<Project>, string][])(
    "%s: %o is refused",
    (_, state, event, code) => {
      expect(() => reloadTransition<Project>(state, event)).toThrow(expect.objectContaining({ code }));
    },
  );
});

describe("who decides whether a widening waits", () => {
  it("what is in force, so that a save cannot switch its own confirmation off", () => {
    expect(reloadTransition(current, good(project("two", "auto"), true)).kind).toBe("waiting");
  });

  it("with reload: auto in force a widening applies", () => {
    const auto = reloadStarted(project("one", "auto"));
    expect(reloadTransition(auto, good(two, true))).toEqual({ kind: "current", current: two });
  });
});
