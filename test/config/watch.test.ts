import { mkdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { watchProject } from "../../src/config/watch.js";
import { type Clock, systemClock } from "../../src/platform/clock.js";
import { project } from "./project.js";

const FILES = { "agentid.yaml": "trustDomain: a\n", "policies/a.yaml": "rules: []\n" };

/** A quiet time ten times as long, so that a busy machine does not tear apart what a test saves together. */
const patient: Clock = {
  now: systemClock.now,
  after: (delayMs, callback) => systemClock.after(delayMs * 10, callback),
};

/** A watched project: `next` is the next call's files, relative to the project. */
async function watched(files: Readonly<Record<string, string>> = FILES, policies = "policies", clock = systemClock) {
  const directory = await project(files);
  const calls: string[][] = [];
  const errors: unknown[] = [];
  const watch = watchProject({
    config: { projectDirectory: directory, policiesDirectory: resolve(directory, policies) },
    onChange: (changed) => {
      calls.push(changed.map((file) => relative(directory, file)));
    },
    onError: (error) => errors.push(error),
    clock,
  });
  onTestFinished(() => watch.close());
  await watch.ready;
  let seen = 0;
  return {
    directory,
    watch,
    calls,
    errors,
    file: (name: string) => join(directory, name),
    save: (name: string, text = "# saved\n") => writeFile(join(directory, name), text),
    async next(): Promise<readonly string[]> {
      await vi.waitFor(() => expect(calls.length).toBeGreaterThan(seen), { timeout: 5000, interval: 10 });
      return calls[seen++] ?? [];
    },
  };
}

describe("what is seen", () => {
  it("a file saved in place", async () => {
    const { save, next } = await watched();
    await save("agentid.yaml");
    expect(await next()).toEqual(["agentid.yaml"]);
  });

  it("a file replaced by renaming, again and again", async () => {
    const { save, file, next } = await watched();
    for (const round of ["first", "second", "third"]) {
      await save(".agentid.yaml.tmp", `# ${round}\n`);
      await rename(file(".agentid.yaml.tmp"), file("agentid.yaml"));
      expect(await next()).toEqual(["agentid.yaml"]);
    }
  });

  it("a file moved away and written anew, as vim does with a backup", async () => {
    const { save, file, next } = await watched();
    await rename(file("policies/a.yaml"), file("policies/a.yaml~"));
    await save("policies/a.yaml");
    await rm(file("policies/a.yaml~"));
    expect(await next()).toEqual(["policies/a.yaml"]);
    await save("policies/a.yaml", "# in place\n");
    expect(await next()).toEqual(["policies/a.yaml"]);
  });

  it("several files saved together, as one change", async () => {
    const { save, next, calls } = await watched(FILES, "policies", patient);
    await Promise.all(
      ["agentid.yaml", "agentid.lock", "entities.yaml", "policies/a.yaml", "policies/b.yml"].map((name) => save(name)),
    );
    expect(await next()).toEqual([
      "agentid.lock",
      "agentid.yaml",
      "entities.yaml",
      "policies/a.yaml",
      "policies/b.yml",
    ]);
    expect(calls).toHaveLength(1);
  });

  it("a lock that appears and goes", async () => {
    const { save, file, next } = await watched();
    await save("agentid.lock");
    expect(await next()).toEqual(["agentid.lock"]);
    await rm(file("agentid.lock"));
    expect(await next()).toEqual(["agentid.lock"]);
  });

  it("a policies folder that appears later, several folders down, and what is saved in it then", async () => {
    const { save, file, next } = await watched({ "agentid.yaml": "" }, "config/rules");
    await mkdir(file("config/rules/deep"), { recursive: true });
    await save("config/rules/deep/a.yaml");
    expect(await next()).toEqual(["config/rules/deep/a.yaml"]);
    await save("config/rules/deep/a.yaml", "# again\n");
    expect(await next()).toEqual(["config/rules/deep/a.yaml"]);
  });

  it("a policies folder replaced by another", async () => {
    const { file, next } = await watched({ ...FILES, "other/b.yaml": "" }, "policies", patient);
    await rename(file("policies"), file("gone"));
    await rename(file("other"), file("policies"));
    expect(await next()).toEqual(["policies/a.yaml", "policies/b.yaml"]);
  });

  it("a policies folder outside of the project", async () => {
    const outside = await project({ "a.yaml": "" });
    const { next, directory } = await watched(FILES, outside);
    await writeFile(join(outside, "a.yaml"), "# saved\n");
    expect(await next()).toEqual([relative(directory, join(outside, "a.yaml"))]);
  });

  it("another policies folder, after a reload that names one", async () => {
    const { save, next, watch, directory, file } = await watched({ ...FILES, "rules/b.yaml": "" });
    await watch.update({ projectDirectory: directory, policiesDirectory: file("rules") });
    await save("policies/a.yaml");
    await save("rules/b.yaml");
    expect(await next()).toEqual(["rules/b.yaml"]);
    await save("agentid.yaml");
    expect(await next()).toEqual(["agentid.yaml"]);
  });

  it("a linked file's content, saved behind the link", async () => {
    const target = await project({ "real.yaml": "" });
    const directory = await project({ "agentid.yaml": "" });
    await mkdir(join(directory, "policies"));
    await symlink(join(target, "real.yaml"), join(directory, "policies/a.yaml"));
    const changed = new Promise<readonly string[]>((resolve, reject) => {
      const watch = watchProject({
        config: { projectDirectory: directory, policiesDirectory: join(directory, "policies") },
        onChange: resolve,
        onError: reject,
      });
      onTestFinished(() => watch.close());
      void watch.ready.then(() => writeFile(join(target, "real.yaml"), "# saved\n"));
    });
    expect(await changed).toEqual([join(directory, "policies/a.yaml")]);
  });
});

describe("what is not seen", () => {
  it("editors' temporary files, other files, other folders", async () => {
    const { save, next, calls, file } = await watched(FILES, "policies", patient);
    await mkdir(file("node_modules/x"), { recursive: true });
    await Promise.all(
      [
        "4913",
        ".agentid.yaml.swp",
        "agentid.yaml~",
        "#agentid.yaml#",
        "other.yaml",
        "node_modules/x/agentid.yaml",
        "policies/.a.yaml.swp",
        "policies/a.yaml~",
        "policies/#a.yaml#",
        "policies/.b.yaml",
        "policies/4913",
        "policies/readme.md",
      ].map((name) => save(name)),
    );
    await save("agentid.yaml");
    // The positive control comes alone.
    expect(await next()).toEqual(["agentid.yaml"]);
    expect(calls).toHaveLength(1);
  });

  it("anything after close", async () => {
    const { save, watch, calls } = await watched();
    await save("agentid.yaml");
    await watch.close();
    await save("policies/a.yaml");
    const { save: saveElsewhere, next } = await watched();
    await saveElsewhere("agentid.yaml");
    await next();
    expect(calls).toEqual([]);
  });
});

describe("calls", () => {
  it("never overlap; what comes meanwhile makes one more", async () => {
    const directory = await project(FILES);
    const log: string[] = [];
    let release: () => void = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const watch = watchProject({
      config: { projectDirectory: directory, policiesDirectory: join(directory, "policies") },
      onChange: async (files) => {
        log.push(`begin ${files.map((file) => relative(directory, file)).join(" ")}`);
        if (log.length === 1) await held;
        log.push("end");
      },
      onError: (error) => log.push(String(error)),
      clock: patient,
    });
    onTestFinished(() => watch.close());
    await watch.ready;
    await writeFile(join(directory, "agentid.yaml"), "# one\n");
    await vi.waitFor(() => expect(log).toHaveLength(1), { timeout: 5000 });
    await writeFile(join(directory, "agentid.yaml"), "# two\n");
    await writeFile(join(directory, "policies/a.yaml"), "# two\n");
    release();
    await vi.waitFor(() => expect(log).toHaveLength(4), { timeout: 5000 });
    expect(log).toEqual(["begin agentid.yaml", "end", "begin agentid.yaml policies/a.yaml", "end"]);
  });

  it("that fail are reported, and the watch goes on", async () => {
    const directory = await project(FILES);
    const errors: unknown[] = [];
    let calls = 0;
    const watch = watchProject({
      config: { projectDirectory: directory, policiesDirectory: join(directory, "policies") },
      onChange: () => {
        calls += 1;
        throw new Error("broken");
      },
      onError: (error) => errors.push(error),
    });
    onTestFinished(() => watch.close());
    await watch.ready;
    for (const round of [1, 2]) {
      await writeFile(join(directory, "agentid.yaml"), `# ${round}\n`);
      await vi.waitFor(() => expect(errors).toHaveLength(round), { timeout: 5000 });
    }
    expect(calls).toBe(2);
  });
});
