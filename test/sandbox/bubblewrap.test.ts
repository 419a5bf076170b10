import { expect, it } from "vitest";
import { bubblewrapArguments } from "../../src/sandbox/bubblewrap.js";
import { seatbeltProfile } from "../../src/sandbox/seatbelt.js";
import { INSIDE, type SandboxView } from "../../src/sandbox/view.js";

const view: SandboxView = {
  mounts: [
    { show: "write", source: "/p/out", at: "/p/out" },
    { show: "empty", at: "/p", sealed: true },
    { show: "empty", at: "/home/u", sealed: false },
    { show: "read", source: "/usr", at: "/usr" },
    { show: "link", at: "/bin", to: "usr/bin" },
    { show: "read", source: '/p/src "x"', at: '/p/src "x"' },
    { show: "read", source: "/run/u/w.sock", at: INSIDE.workloadApi },
  ],
  workingDirectory: "/p",
};

it("bubblewrap mounts parents before what stands in them, and seals last", () => {
  const args = bubblewrapArguments(view, { seccompFd: 4, disableUserNamespaces: true });
  const text = args.join(" ");
  for (const kind of ["user", "pid", "net", "ipc", "uts"]) expect(args).toContain(`--unshare-${kind}`);
  for (const option of ["--die-with-parent", "--cap-drop ALL", "--disable-userns", "--seccomp 4", "--chdir /p"])
    expect(text).toContain(option);
  const order = ["--tmpfs /p ", "--bind /p/out /p/out", "--remount-ro /p ", "--remount-ro / "].map((part) =>
    text.indexOf(part),
  );
  expect(order).toEqual(order.toSorted((a, b) => a - b));
  expect(order.every((at) => at > 0)).toBe(true);
  expect(text).toContain("--symlink usr/bin /bin");
  expect(text).not.toContain("--remount-ro /home/u");
  expect(bubblewrapArguments(view, { seccompFd: 4, disableUserNamespaces: false })).not.toContain("--disable-userns");
});

it("the profile of macOS denies by default and opens the same paths, the relay's ports and one socket", () => {
  const profile = seatbeltProfile(view, { ports: [20001, 20002], workloadApi: "/private/var/w.sock" });
  const lines = profile.split("\n");
  expect(lines.slice(0, 2)).toEqual(["(version 1)", "(deny default)"]);
  expect(profile.match(/network-outbound/g)).toHaveLength(3);
  expect(lines).toContain('(allow network-outbound (remote ip "localhost:20001"))');
  expect(profile).toContain('(allow network-outbound\n  (literal "/private/var/w.sock"))');
  expect(profile).toContain('(allow file-write*\n  (subpath "/p/out"))');
  expect(profile).toContain('(subpath "/p/src \\"x\\"")');
  // Neither our paths inside, which macOS has not, nor the keychain, nor the home.
  expect(profile).not.toMatch(/\/run\/agentid|SecurityServer|securityd|\/home\/u|network-inbound|network-bind/);
  let depth = 0;
  for (const bracket of profile.replace(/"(\\.|[^"])*"/g, "").match(/[()]/g) ?? []) {
    depth += bracket === "(" ? 1 : -1;
    expect(depth).toBeGreaterThanOrEqual(0);
  }
  expect(depth).toBe(0);
});
