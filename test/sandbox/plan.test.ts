import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { hostFiles } from "../../src/sandbox/host-files.js";
import { planSandbox, type SandboxWish } from "../../src/sandbox/plan.js";
import { leadsOut, privatePathsOf } from "../../src/sandbox/private-paths.js";
import { INSIDE } from "../../src/sandbox/view.js";

const base = realpathSync(mkdtempSync(join(tmpdir(), "plan-")));
afterAll(() => rmSync(base, { recursive: true }));
const home = join(base, "home");
const project = join(home, "shop");

for (const path of [
  ...["agentid.yaml", "agentid.lock", "policies/a.yaml", ".agentid/keys/ca", ".env", "src/a.py", "out/x"].map((name) =>
    join(project, name),
  ),
  ...[".pyenv/versions/3.12/bin/python3.12", ".local/bin/tool", ".local/share/keyrings/login", ".ssh/id"].map((name) =>
    join(home, name),
  ),
]) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, "");
}
chmodSync(join(home, ".ssh"), 0o700);
symlinkSync("src", join(project, "linked-policies"));
symlinkSync(join(home, ".ssh"), join(project, "keys"));

const wish: SandboxWish = {
  projectDirectory: project,
  homes: [home],
  hidden: [join(project, ".agentid")],
  protected: [join(project, "agentid.yaml"), join(project, "agentid.lock"), join(project, "policies")],
  workingDirectory: project,
  executable: "/usr/bin/python3",
  files: [join(project, "src/a.py")],
  read: [],
  write: [join(project, "out")],
  workloadApi: "/run/user/1/w.sock",
  door: "/run/user/1/d.sock",
};
const plan = (changes: Partial<SandboxWish> = {}) => planSandbox({ ...wish, ...changes }, hostFiles);
const shown = (changes: Partial<SandboxWish> = {}) =>
  plan(changes).view.mounts.map((mount) => `${mount.show} ${mount.at}`);

describe("what a sandbox shows", () => {
  it("an empty home, the project without its secrets, the system, our two sockets, and what may be written", () => {
    const mounts = shown();
    expect(mounts).toContain(`empty ${home}`);
    expect(mounts).toContain(`empty ${project}`);
    for (const name of ["agentid.yaml", "agentid.lock", "policies", "src"])
      expect(mounts).toContain(`read ${join(project, name)}`);
    expect(mounts).toContain(`write ${join(project, "out")}`);
    expect(mounts).toContain(`link ${join(project, "keys")}`);
    expect(mounts).toContain("read /usr");
    expect(mounts).toContain(`read ${INSIDE.workloadApi}`);
    expect(mounts).toContain(`read ${INSIDE.door}`);
    expect(mounts.filter((mount) => /\.agentid|\.env|\.ssh|shadow/.test(mount))).toEqual([]);
  });

  it("an environment file only where it is named", () => {
    expect(shown({ read: [join(project, ".env")] })).toContain(`read ${join(project, ".env")}`);
  });

  it("of an interpreter outside the system its own folder, and of one among everything else the file alone", () => {
    const pyenv = join(home, ".pyenv/versions/3.12");
    expect(shown({ executable: join(pyenv, "bin/python3.12") })).toContain(`read ${pyenv}`);
    const tool = join(home, ".local/bin/tool");
    expect(shown({ executable: tool })).toContain(`read ${tool}`);
    expect(shown({ executable: tool }).filter((mount) => mount.includes(".local"))).toEqual([`read ${tool}`]);
  });

  it("a pinned file stays read-only inside a folder that may be written", () => {
    expect(shown({ write: [join(project, "src")] })).toContain(`read ${join(project, "src/a.py")}`);
    expect(shown()).not.toContain(`read ${join(project, "src/a.py")}`);
  });

  it("what must not be seen and written, for the check afterwards", () => {
    const { hidden, readOnly, writable } = plan();
    expect(hidden).toEqual(
      expect.arrayContaining([join(project, ".agentid"), join(home, ".ssh"), join(project, ".env")]),
    );
    expect(readOnly).toEqual([...wish.protected]);
    expect(writable).toEqual(wish.write);
  });

  const refused: readonly [Partial<SandboxWish>, RegExp][] = [
    [{ write: [project] }, /holds/],
    [{ write: [home] }, /holds/],
    [{ write: ["/"] }, /holds/],
    [{ write: [join(project, "policies")] }, /stays closed/],
    [{ write: [join(project, "policies/a.yaml")] }, /stays closed/],
    [{ write: [join(project, ".agentid/keys")] }, /stays closed/],
    [{ read: [join(home, ".ssh")] }, /stays closed/],
    [{ read: [join(home, ".ssh/id")] }, /stays closed/],
    [{ read: [join(project, "keys")] }, /symbolic link/],
    [{ read: [join(project, "keys/id")] }, /symbolic link/],
    [{ read: [join(project, "nowhere")] }, /does not exist/],
    [{ read: ["/run"] }, /stays closed/],
    // Where the policies lead, when they are a link.
    [{ protected: [join(project, "linked-policies")], write: [join(project, "src")] }, /stays closed/],
    [{ workingDirectory: "/srv" }, /not visible/],
  ];
  it.each(refused)("refuses %j", (changes, why) => {
    expect(() => plan(changes)).toThrow(why);
  });
});

describe("variables that lead out", () => {
  it.each([
    "SSH_AUTH_SOCK",
    "TMUX",
    "TMUX_PANE",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "DBUS_SESSION_BUS_ADDRESS",
    "DOCKER_HOST",
    "AWS_PROFILE",
    "KUBECONFIG",
    "https_proxy",
    "AGENTID_CONTROL",
    "XDG_RUNTIME_DIR",
    "VSCODE_GIT_IPC_HANDLE",
    "BUILDKITE_AGENT_SOCKET",
  ])("%s", (name) => expect(leadsOut(name)).toBe(true));
  it.each(["PATH", "HOME", "LANG", "TERM", "AGENTID_URL_PAYMENTS", "XDG_CONFIG_HOME", "VIRTUAL_ENV", "TERM_PROGRAM"])(
    "but not %s",
    (name) => expect(leadsOut(name)).toBe(false),
  );
});

it("hides in each home what tools keep credentials in", () => {
  expect(privatePathsOf(["/home/u", "/root"])).toEqual(
    expect.arrayContaining(["/home/u/.ssh", "/home/u/.aws", "/home/u/Library/Keychains", "/root/.kube"]),
  );
});
