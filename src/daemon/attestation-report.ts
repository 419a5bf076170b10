import type { Caller, CallerLaunch } from "../attestation/caller.js";
import { launchedName } from "../attestation/launched-process.js";
import { selectorsOf } from "../attestation/selectors.js";
import type { AttestationReport } from "../control-api/routes.js";
import type { IdentityRegistry } from "../identity/entitlement.js";

/** What `agentid attest PID` shows: facts with where they come from, selectors, identities that follow, and those that nearly do. */
export function attestationReport(caller: Caller, registry: IdentityRegistry): AttestationReport {
  const { facts } = caller;
  const shown: [name: string, value: string | undefined, source: string][] = [
    ["uid", String(facts.uid), "/proc/PID/status"],
    ["user", facts.user, "/etc/passwd"],
    ["gid", String(facts.gid), "/proc/PID/status"],
    ["group", facts.group, "/etc/group"],
    ["groups", facts.supplementaryGids.join(" ") || undefined, "/proc/PID/status"],
    ["path", facts.exePath, "/proc/PID/exe"],
    ["sha256", facts.exeSha256, "the open executable"],
    ["launch", caller.launch && launchedName(caller.launch), launchSource(caller.launch)],
    ["launched by", caller.launch?.launchedBy.join(", ") || undefined, "the record of the launch"],
    [
      "command",
      facts.commandLine.join(" ") || undefined,
      "/proc/PID/cmdline; a process can rewrite it: never evidence",
    ],
  ];
  const { granted, missed } = registry.entitlementsOf(caller);
  return {
    pid: facts.pid,
    facts: shown.flatMap(([name, value, source]) => (value === undefined ? [] : [{ name, value, source }])),
    missing: Object.entries(facts.missing).map(([name, reason]) => ({ name, reason })),
    selectors: [...selectorsOf(facts)],
    identities: granted.map(({ identity, evidence }) => ({
      name: identity.name,
      spiffeId: identity.id.toString(),
      evidence,
    })),
    missed: missed.map(({ identity, failed, detail }) => ({ name: identity.name, failed, detail })),
  };
}

function launchSource(launch: CallerLaunch | undefined): string {
  return launch?.evidence === "parent"
    ? `descends from process ${launch.pid}, which agentid run launched`
    : "agentid run";
}
