import type { RelationshipReport } from "../../control-api/federation-routes.js";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class FederateShow extends AgentidCommand {
  static override summary = "Show where this trust domain's bundle is published and which others are followed";

  async run(): Promise<unknown> {
    const { flags } = await this.parse(FederateShow);
    const shown = await runningDaemon(flags.project).call("federation", {});
    const { endpoint, oidc, relationships } = shown;
    if (endpoint !== undefined) {
      const as = endpoint.spiffeId === undefined ? "" : ` as ${endpoint.spiffeId}`;
      this.log(`bundle endpoint  ${endpoint.url}  ${endpoint.profile}${as}`);
    }
    if (oidc !== undefined) this.log(`OIDC issuer      ${oidc.issuer}  served on ${oidc.listen}`);
    for (const relationship of relationships) this.log(relationshipText(relationship));
    if (endpoint === undefined && oidc === undefined && relationships.length === 0) {
      this.log("nothing: agentid.yaml has no federation and no oidc");
    }
    return shown;
  }
}

function relationshipText(one: RelationshipReport): string {
  const as = one.endpointSpiffeId === undefined ? "" : ` as ${one.endpointSpiffeId}`;
  const trusted = (one.bundle?.x509Authorities ?? 0) > 0 || (one.bundle?.jwtKeys ?? 0) > 0;
  const lines = [
    `${one.trustDomain}  ${trusted ? "trusted" : "not trusted: nothing of it is known"}`,
    `  endpoint  ${one.url}  ${one.profile}${as}`,
    `  bundle    ${one.bundle?.sequence === undefined ? "" : `sequence ${one.bundle.sequence}, `}${
      one.lastSuccess === undefined ? "not fetched since the start" : `fetched ${one.lastSuccess}`
    }, next ${one.nextAt}, every ${one.refreshSeconds} s`,
  ];
  if (one.problem !== undefined) lines.push(`  problem   ${one.problem.message}`);
  return lines.join("\n");
}
