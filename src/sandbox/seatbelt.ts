import { INSIDE, type SandboxView } from "./view.js";

export const SANDBOX_EXEC = "/usr/bin/sandbox-exec";

/** What every program on macOS reads while it starts. */
const SYSTEM = [
  ...["/usr", "/bin", "/sbin", "/System", "/Library/Frameworks", "/Library/Apple", "/opt/homebrew", "/opt/local"],
  ...[
    "/private/etc/ssl",
    "/private/etc/hosts",
    "/private/etc/services",
    "/private/etc/passwd",
    "/private/etc/localtime",
  ],
  ...["/private/var/db/timezone", "/private/var/db/dyld", "/dev"],
];
/** None of them is the keychain (com.apple.SecurityServer, securityd), the pasteboard, launchd or the window server. */
const SERVICES = [
  "com.apple.system.logger",
  "com.apple.system.notification_center",
  "com.apple.system.opendirectoryd.libinfo",
  "com.apple.trustd.agent",
];

/**
 * A profile of macOS for the same view: everything is denied but what it names. Paths are those outside, since macOS mounts nothing.
 * Not verified on a machine.
 */
export function seatbeltProfile(
  view: SandboxView,
  reach: { readonly ports: readonly number[]; readonly workloadApi: string },
): string {
  const own = view.mounts.filter(
    (mount) => !mount.at.startsWith(`${INSIDE.library}/`) && !mount.at.startsWith("/run/agentid/"),
  );
  const paths = (show: "read" | "write") => own.flatMap((mount) => (mount.show === show ? [mount.source] : []));
  const apart = own.flatMap((mount) => (mount.show === "empty" && mount.sealed ? [mount.at] : []));
  return [
    "(version 1)",
    "(deny default)",
    "(allow process-exec process-fork)",
    "(allow signal (target same-sandbox))",
    "(allow process-info* (target same-sandbox))",
    "(allow sysctl-read)",
    "(allow file-read-metadata)",
    rule("allow file-read*", [...SYSTEM, ...paths("read"), ...paths("write")].map(subpath)),
    ...(apart.length === 0 ? [] : [rule("allow file-read-data", apart.map(literal))]),
    // No temporary folder: those of this user hold everybody's sockets and files, and macOS cannot give an empty one.
    ...(paths("write").length === 0 ? [] : [rule("allow file-write*", paths("write").map(subpath))]),
    rule("allow file-write-data", ["/dev/null", "/dev/zero", "/dev/tty"].map(literal)),
    '(allow file-ioctl (literal "/dev/tty"))',
    rule(
      "allow mach-lookup",
      SERVICES.map((service) => `(global-name ${quoted(service)})`),
    ),
    ...reach.ports.map((port) => `(allow network-outbound (remote ip "localhost:${port}"))`),
    rule("allow network-outbound", [literal(reach.workloadApi)]),
    "",
  ].join("\n");
}

function rule(head: string, what: readonly string[]): string {
  return `(${head}${what.map((one) => `\n  ${one}`).join("")})`;
}

const subpath = (path: string): string => `(subpath ${quoted(path)})`;
const literal = (path: string): string => `(literal ${quoted(path)})`;

function quoted(text: string): string {
  return `"${text.replace(/["\\]/g, "\\$&")}"`;
}
