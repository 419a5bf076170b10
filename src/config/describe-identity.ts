import type { IdentityConfig, LaunchConfig } from "./config.js";

/** What a process must be to have `identity`, in one line: `launch python3 agents/billing.py`, `user dev, exe /usr/bin/node`. */
export function describeIdentity(identity: IdentityConfig): string {
  const { facts, launch, service } = identity;
  const parts = [
    launch && `launch ${describeLaunch(launch)}`,
    facts.user !== undefined && `user ${facts.user}`,
    facts.uid !== undefined && `uid ${facts.uid}`,
    facts.group !== undefined && `group ${facts.group}`,
    facts.gid !== undefined && `gid ${facts.gid}`,
    facts.supplementaryGroup !== undefined && `supplementary group ${facts.supplementaryGroup}`,
    facts.supplementaryGid !== undefined && `supplementary gid ${facts.supplementaryGid}`,
    facts.exePath !== undefined && `exe ${facts.exePath}`,
    facts.exeSha256 !== undefined && `sha256 ${facts.exeSha256}`,
    facts.systemdUnit !== undefined && `systemd unit ${facts.systemdUnit}`,
    facts.systemdUserUnit !== undefined && `systemd user unit ${facts.systemdUserUnit}`,
    facts.cgroup !== undefined && `cgroup ${facts.cgroup}`,
    facts.containerId !== undefined && `container ${facts.containerId}`,
    facts.podUid !== undefined && `pod ${facts.podUid}`,
    facts.signingTeam !== undefined && `signed by team ${facts.signingTeam}`,
    facts.signingIdentifier !== undefined && `signed as ${facts.signingIdentifier}`,
    facts.parentExePath !== undefined && `parent ${facts.parentExePath}`,
    facts.parentExeSha256 !== undefined && `parent sha256 ${facts.parentExeSha256}`,
    service !== undefined && `service ${service}`,
    identity.shadow === true && "in shadow: what no rule allows is let through",
  ];
  return parts.filter((part) => typeof part === "string").join(", ") || "agentid itself";
}

/** `python3 agents/billing.py, its children too, in instances, may launch agents/research`. */
export function describeLaunch({ argv, children, instances, subagents, sandbox }: LaunchConfig): string {
  const more = [
    children && "its children too",
    instances && "in instances",
    subagents.length > 0 && `may launch ${subagents.join(" and ")}`,
    sandbox !== undefined && "in a sandbox",
  ];
  return [formatCommand(argv), ...more.filter((part) => typeof part === "string")].join(", ");
}

/** A command for people; what holds more than plain characters is quoted, so that two commands never look the same. */
export function formatCommand(argv: readonly string[]): string {
  return argv.map((item) => (/^[\w@%+=:,./-]+$/.test(item) ? item : JSON.stringify(item))).join(" ");
}
