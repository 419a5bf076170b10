import { Args, Flags } from "@oclif/core";
import { type ExportFormatName, encodeExport, exportFormats } from "../../client/spiffe/export/export-formats.js";
import { writeWholeFile } from "../../client/spiffe/export/write-file.js";
import { createWorkloadApiClient } from "../../client/spiffe/index.js";
import { pickSvid } from "../../client/spiffe/pick-svid.js";
import { findWorkloadApi } from "../../client/workload-api-address.js";
import { CodedError } from "../../coded-error.js";
import { AgentidCommand } from "../base-command.js";
import { readInput } from "../input-file.js";

const names = Object.keys(exportFormats) as ExportFormatName[];

export default class SvidExport extends AgentidCommand {
  static override summary = "Write this process's SVID or its trust for a program that does not speak the Workload API";
  static override description =
    `What is written is a copy that nobody renews: it ends with the SVID's lifetime.\n\nFormats:\n${names
      .map((name) => `  ${name.padEnd(10)}  ${exportFormats[name].summary}`)
      .join("\n")}`;
  static override args = {
    name: Args.string({ description: "which identity of this process: SPIFFE ID, path, last segment or hint" }),
  };
  static override flags = {
    current: Flags.boolean({ summary: "the default identity of this process" }),
    format: Flags.option({ summary: "what to write", options: names, required: true })(),
    out: Flags.string({
      summary: "file to write; with a private key in it, readable by you alone",
      required: true,
      helpValue: "FILE",
    }),
    "passphrase-file": Flags.string({
      summary: "file whose first line protects p8, p12 and truststore",
      helpValue: "FILE",
    }),
    socket: Flags.string({
      summary: "address of the Workload API (default: SPIFFE_ENDPOINT_SOCKET, else the project's)",
    }),
  };
  static override examples = [
    "<%= config.bin %> svid export billing --format p12 --passphrase-file pass --out billing.p12",
    "<%= config.bin %> svid export --current --format truststore --passphrase-file pass --out trust.p12",
  ];

  async run(): Promise<unknown> {
    const { args, flags } = await this.parse(SvidExport);
    if ((args.name === undefined) !== (flags.current === true)) {
      throw new CodedError("bad-request", "name one identity, or say --current");
    }
    const passphrase = flags["passphrase-file"] === undefined ? undefined : await firstLine(flags["passphrase-file"]);
    const client = createWorkloadApiClient({ socketPath: findWorkloadApi(flags.socket, flags.project, process.env) });
    try {
      const { svids, bundles } = await client.fetchX509Context();
      const svid = pickSvid(svids, args.name);
      const trustDomain = svid.id.trustDomain.name;
      const jwtKeys = flags.format === "jwks" ? (await client.fetchJwtBundles()).get(trustDomain) : undefined;
      const parts = { svid, authorities: bundles.get(trustDomain) ?? [], jwtKeys: jwtKeys ?? { keys: [] } };
      writeWholeFile(flags.out, encodeExport(flags.format, parts, passphrase), exportFormats[flags.format].secret);
      this.log(`${flags.out}: ${exportFormats[flags.format].summary}; ${svid.id} until ${svid.notAfter.toISOString()}`);
      return { spiffeId: svid.id, format: flags.format, written: flags.out, notAfter: svid.notAfter };
    } finally {
      client.close();
    }
  }
}

async function firstLine(path: string): Promise<string> {
  return (await readInput(path)).toString("utf8").split(/\r?\n/, 1)[0] ?? "";
}
