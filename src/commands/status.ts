import type { Status as StatusReport } from "../control-api/routes.js";
import { AgentidCommand } from "./base-command.js";
import { runningDaemon } from "./running-daemon.js";

export default class Status extends AgentidCommand {
  static override summary = "Show the running trust domain: identities, services, policy, problems";

  async run(): Promise<StatusReport> {
    const { flags } = await this.parse(Status);
    const status = await runningDaemon(flags.project).call("status", {});
    this.log(statusText(status));
    return status;
  }
}

function statusText(status: StatusReport): string {
  const lines = [
    `${status.trustDomain}  running since ${status.startedAt}, pid ${status.pid}${status.ephemeral ? ", ephemeral" : ""}`,
    `  Workload API  ${status.workloadApi}`,
    `  AuthZEN       ${[status.authzen.socket, status.authzen.url].filter((each) => each !== undefined).join("  ")}`,
    `  policy        ${status.policy.digest.slice(0, 8)}, ${status.policy.rules} rules in ${status.policy.files} files`,
    `  authority     valid until ${status.authority.notAfter}, next ${status.authority.rotateAt}`,
    `  calls         ${status.counts.calls}, ${status.counts.denied} denied`,
    `  record        ${status.recordSize} entries, head ${status.recordHead}`,
    "identities",
    ...status.identities.map(({ spiffeId, how, notAfter, pids }) => {
      const held = pids.length > 0 ? `, pid ${pids.join(" ")}` : "";
      return `  ${spiffeId}   ${how}${notAfter === undefined ? "" : `, until ${notAfter}`}${held}`;
    }),
    "services",
    ...status.services.map(({ name, url, mtls, upstream, state, reachableAround }) => {
      const around = reachableAround ? "  (can be called around the relay)" : "";
      return `  ${name.padEnd(12)} ${state.padEnd(8)} ${url}  mutual TLS ${mtls}  → ${upstream}${around}`;
    }),
    ...(status.egress === undefined ? [] : ["egress"]),
    ...(status.egress ?? []).map(({ name, url, target, secrets, byConnect }) => {
      const added = secrets.length === 0 ? "" : `  with the secret ${secrets.join(", ")}`;
      return `  ${name.padEnd(12)} ${byConnect === true ? "CONNECT " : ""}${url}  → ${target}${added}`;
    }),
  ];
  for (const { spiffeId, name, until } of status.revoked ?? []) {
    const end = until === undefined ? "" : until === "restart" ? " until the next start" : ` until ${until}`;
    lines.push(`revoked  ${spiffeId}${end}   (agentid revoke --undo ${name})`);
  }
  for (const { severity, message } of status.problems) lines.push(`${severity}: ${message}`);
  if (status.pendingReload) {
    lines.push("changes that widen permissions wait: agentid reload accept, or agentid reload refuse");
    lines.push(...status.pendingReload.changes.map((change) => `  ${change}`));
  }
  return lines.join("\n");
}
