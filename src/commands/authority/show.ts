import type { AuthorityReport } from "../../control-api/authority-routes.js";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class AuthorityShow extends AgentidCommand {
  static override summary = "Show the trust domain's authorities: who signs, who will, who has signed";

  async run(): Promise<unknown> {
    const { flags } = await this.parse(AuthorityShow);
    const { authorities } = await runningDaemon(flags.project).call("authorities", {});
    this.log(authorities.map(authorityText).join("\n"));
    return { authorities };
  }
}

/** Three lines: what it is, and the names that its keys have in bundles and headers. */
function authorityText({ state, keyId, jwtKeyId, witKeyId, notAfter, upstream }: AuthorityReport): string {
  return [
    `${state.padEnd(9)} X.509 ${keyId}   until ${notAfter}${upstream ? ", below the upstream authority" : ""}`,
    `          JWT   ${jwtKeyId}`,
    ...(witKeyId === undefined ? [] : [`          WIT   ${witKeyId}`]),
  ].join("\n");
}
