import { inMountOrder, type Mount, type SandboxView } from "./view.js";

/**
 * The arguments of bubblewrap that make this view: an empty root, own user, PID, network, IPC, UTS and cgroup namespaces, no capability, and the end of
 * everything inside when its parent ends. `seccompFd` is the descriptor that holds the filter of `seccomp.ts`.
 */
export function bubblewrapArguments(
  view: SandboxView,
  options: { readonly seccompFd: number; readonly disableUserNamespaces: boolean },
): readonly string[] {
  const sealed = view.mounts.flatMap((mount) => (mount.show === "empty" && mount.sealed ? [mount.at] : []));
  return [
    ...isolation(options.disableUserNamespaces),
    ...["--seccomp", String(options.seccompFd)],
    ...["--proc", "/proc", "--dev", "/dev"],
    ...["--perms", "1777", "--tmpfs", "/tmp", "--perms", "1777", "--tmpfs", "/var/tmp"],
    ...inMountOrder(view.mounts).flatMap(argumentsOf),
    // Last, when every place to mount on has been made.
    ...[...sealed, "/"].flatMap((at) => ["--remount-ro", at]),
    ...["--chdir", view.workingDirectory],
  ];
}

function isolation(disableUserNamespaces: boolean): readonly string[] {
  return [
    ...["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"],
    ...(disableUserNamespaces ? ["--disable-userns"] : []),
    ...["--die-with-parent", "--cap-drop", "ALL"],
  ];
}

/** A run of nothing: whether bubblewrap can make a sandbox on this machine. */
export function probeArguments(disableUserNamespaces: boolean): readonly string[] {
  return [...isolation(disableUserNamespaces), "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"];
}

function argumentsOf(mount: Mount): readonly string[] {
  switch (mount.show) {
    case "read":
      return ["--ro-bind", mount.source, mount.at];
    case "write":
      return ["--bind", mount.source, mount.at];
    case "link":
      return ["--symlink", mount.to, mount.at];
    case "empty":
      return ["--tmpfs", mount.at];
  }
}
