import { Flags } from "@oclif/core";
import { createWorkloadApiClient, type X509Context } from "../../client/spiffe/index.js";
import { findWorkloadApi } from "../../client/workload-api-address.js";
import { displayText } from "../../control-api/display-text.js";
import { AgentidCommand } from "../base-command.js";

export default class SvidWatch extends AgentidCommand {
  static override summary = "Print one line for each update of this process's X.509-SVIDs and bundles, until Ctrl-C";
  static override flags = {
    socket: Flags.string({
      summary: "address of the Workload API (default: SPIFFE_ENDPOINT_SOCKET, else the project's)",
    }),
    count: Flags.integer({ summary: "end after this many updates", min: 1 }),
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(SvidWatch);
    const client = createWorkloadApiClient({ socketPath: findWorkloadApi(flags.socket, flags.project, process.env) });
    let updates = 0;
    try {
      await new Promise<void>((resolve, reject) => {
        client.watchX509Context({
          onUpdate: (context) => {
            this.print(updateEvent(context), updateLine(context));
            if (++updates === flags.count) resolve();
          },
          onProblem: ({ code, message }, retryInMs) => {
            const again = retryInMs === undefined ? "" : `; again in ${Math.round(retryInMs)} ms`;
            this.print({ event: "problem", code, message, retryInMs }, `problem: ${displayText(message)}${again}`);
          },
          onEnd: reject,
        });
      });
    } finally {
      client.close();
    }
  }

  private print(event: object, line: string): void {
    const time = new Date().toISOString();
    process.stdout.write(`${this.jsonEnabled() ? JSON.stringify({ time, ...event }) : `${time}  ${line}`}\n`);
  }
}

function updateEvent({ svids, bundles }: X509Context): object {
  return {
    event: "update",
    svids: svids.map(({ id, hint, serial, notBefore, notAfter }) => ({
      spiffeId: id,
      hint,
      serial,
      notBefore,
      notAfter,
    })),
    trustDomains: Object.fromEntries([...bundles].map(([name, roots]) => [name, roots.length])),
  };
}

function updateLine({ svids, bundles }: X509Context): string {
  const held = svids.map(({ id, serial, notAfter }) => `${id} ${serial.slice(0, 8)} until ${notAfter.toISOString()}`);
  const trusted = [...bundles].map(([name, roots]) => `${name} (${roots.length})`);
  return `${held.join("; ")}   trusted: ${trusted.join(", ")}`;
}
