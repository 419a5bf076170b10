import type { BundleReport } from "../../control-api/federation-routes.js";
import { AgentidCommand } from "../base-command.js";
import { runningDaemon } from "../running-daemon.js";

export default class BundleList extends AgentidCommand {
  static override summary = "List the trust domains whose bundles are known";

  async run(): Promise<unknown> {
    const { flags } = await this.parse(BundleList);
    const list = await runningDaemon(flags.project).call("bundles", {});
    for (const bundle of list.bundles) this.log(bundleLine(bundle));
    return list;
  }
}

const SOURCES = { own: "this trust domain", command: "set by command", endpoint: "followed" } as const;

function bundleLine(bundle: BundleReport): string {
  const { trustDomain, source, sequence, x509Authorities, jwtKeys, notAfter } = bundle;
  return [
    trustDomain.padEnd(24),
    SOURCES[source].padEnd(18),
    x509Authorities === 0 ? "no X.509 authority: not trusted" : `${x509Authorities} X.509, until ${notAfter}`,
    `${jwtKeys} JWT`,
    ...(sequence === undefined ? [] : [`sequence ${sequence}`]),
  ].join("  ");
}
