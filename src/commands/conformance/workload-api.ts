import { writeFileSync } from "node:fs";
import { Flags } from "@oclif/core";
import { workloadEndpoint } from "../../client/spiffe/endpoint.js";
import { waitingClock } from "../../client/spiffe/workload-api-client.js";
import { commandHooks } from "../../conformance/hooks.js";
import { conformanceJunit, conformanceReport, conformanceTable } from "../../conformance/report.js";
import { runConformance } from "../../conformance/suite.js";
import { AgentidCommand, EXIT } from "../base-command.js";

export default class ConformanceWorkloadApi extends AgentidCommand {
  static override summary = "Check any SPIFFE Workload API against the standard, statement by statement";
  static override description =
    `Asks as an ordinary workload, so the server must give this process an identity; with two identities, hints and a federated trust domain more can be told. What a client cannot bring about needs commands of the operator, run by the shell. Exit code ${EXIT.failed} if a statement of level M or I does not hold.`;
  static override examples = [
    "<%= config.bin %> <%= command.id %>",
    "<%= config.bin %> <%= command.id %> --socket unix:///tmp/spire-agent/public/api.sock --junit conformance.xml",
    `<%= config.bin %> <%= command.id %> --rotate-command 'agentid rotate' --remove-command 'agentid revoke "$SPIFFE_ID" --until-restart' --restore-command 'agentid revoke --undo "$SPIFFE_ID"'`,
  ];
  static override flags = {
    socket: Flags.string({
      summary: "the Workload API: unix:///path or tcp://ip:port (default: SPIFFE_ENDPOINT_SOCKET)",
      helpValue: "ADDRESS",
    }),
    only: Flags.string({ multiple: true, summary: "run this check only; may be given again", helpValue: "ID" }),
    junit: Flags.string({ summary: "write the results as JUnit XML", helpValue: "FILE" }),
    "rotate-command": Flags.string({ summary: "replaces this process's X.509-SVIDs", helpValue: "CMD" }),
    "remove-command": Flags.string({
      summary: "takes the identity $SPIFFE_ID away from this process",
      helpValue: "CMD",
      dependsOn: ["restore-command"],
    }),
    "restore-command": Flags.string({
      summary: "gives the identity $SPIFFE_ID back",
      helpValue: "CMD",
      dependsOn: ["remove-command"],
    }),
    "federated-socket": Flags.string({
      summary: "the Workload API of a federated trust domain that gives this process an identity as well",
      helpValue: "ADDRESS",
    }),
    timeout: Flags.integer({
      summary: "seconds that a call may take; what a command brings about may take six times as long",
      default: 5,
      min: 1,
      max: 600,
    }),
  };

  async run(): Promise<unknown> {
    const { flags } = await this.parse(ConformanceWorkloadApi);
    const { address, target } = workloadEndpoint(flags.socket);
    const federated = flags["federated-socket"];
    const results = await runConformance(
      {
        target,
        clock: waitingClock,
        deadlineMs: flags.timeout * 1000,
        changeDeadlineMs: flags.timeout * 6000,
        hooks: commandHooks(
          {
            rotate: flags["rotate-command"],
            remove: flags["remove-command"],
            restore: flags["restore-command"],
          },
          waitingClock,
        ),
        printedAddress: process.env.SPIFFE_ENDPOINT_SOCKET,
        federatedTarget: federated === undefined ? undefined : workloadEndpoint(federated).target,
      },
      flags.only,
    );
    const report = conformanceReport(address, results);
    this.log(conformanceTable(report));
    if (flags.junit !== undefined) writeFileSync(flags.junit, conformanceJunit(report));
    if (!report.conformant) process.exitCode = EXIT.failed;
    return report;
  }
}
