import { join } from "node:path";
import { Flags } from "@oclif/core";
import { makePrivateFolder, writeWholeFile } from "../../client/spiffe/export/write-file.js";
import type { JwtSvid } from "../../client/spiffe/index.js";
import { createWorkloadApiClient, type WorkloadApiClient, type X509Context } from "../../client/spiffe/index.js";
import { pickSvid } from "../../client/spiffe/pick-svid.js";
import { findWorkloadApi } from "../../client/workload-api-address.js";
import { displayText } from "../../control-api/display-text.js";
import { encodePem } from "../../spiffe/pem.js";
import { AgentidCommand } from "../base-command.js";

export default class SvidFetch extends AgentidCommand {
  static override summary = "Fetch this process's X.509-SVIDs, or with --audience a JWT-SVID, from a Workload API";
  static override description =
    "Asks any SPIFFE Workload API, as every workload does: what comes back is what this process is entitled to. A token is printed alone, for $(…).";
  static override flags = {
    write: Flags.string({
      summary: "folder for svid.pem, key.pem (0600) and bundle.pem, or token.jwt",
      helpValue: "DIR",
    }),
    audience: Flags.string({ summary: "who the token is for; can be given several times", multiple: true }),
    id: Flags.string({
      summary: "which identity: SPIFFE ID, path, last segment or hint (default: the default identity)",
    }),
    socket: Flags.string({
      summary: "address of the Workload API (default: SPIFFE_ENDPOINT_SOCKET, else the project's)",
    }),
  };
  static override examples = [
    "<%= config.bin %> svid fetch --write /tmp/svid",
    'curl -H "Authorization: Bearer $(<%= config.bin %> svid fetch --audience orders)" …',
  ];

  async run(): Promise<unknown> {
    const { flags } = await this.parse(SvidFetch);
    const client = createWorkloadApiClient({ socketPath: findWorkloadApi(flags.socket, flags.project, process.env) });
    try {
      if (flags.audience === undefined) return this.x509(await client.fetchX509Context(), flags);
      return this.jwt(await fetchToken(client, flags.audience, flags.id), flags.write);
    } finally {
      client.close();
    }
  }

  private x509(context: X509Context, { id, write }: { id?: string | undefined; write?: string | undefined }): unknown {
    const picked = pickSvid(context.svids, id);
    const shown = id === undefined ? context.svids : [picked];
    for (const svid of shown) {
      const hint = svid.hint === "" ? "" : `, hint ${displayText(svid.hint, 60)}`;
      const role = svid === context.svids[0] ? "  (default)" : "";
      this.log(`${svid.id}${role}\n  serial ${svid.serial}, until ${svid.notAfter.toISOString()}${hint}`);
    }
    const trusted = [...context.bundles].map(([name, roots]) => `${name} (${roots.length})`);
    this.log(`trusted: ${trusted.join(", ")}`);
    const written = write === undefined ? [] : writeX509(write, picked, context);
    for (const path of written) this.log(`wrote ${path}`);
    return {
      svids: shown.map((svid) => ({
        spiffeId: svid.id,
        hint: svid.hint,
        serial: svid.serial,
        notBefore: svid.notBefore,
        notAfter: svid.notAfter,
        default: svid === context.svids[0],
      })),
      trustDomains: Object.fromEntries([...context.bundles].map(([name, roots]) => [name, roots.length])),
      written,
    };
  }

  private jwt({ id, token, audience, expiresAt }: JwtSvid, write: string | undefined): unknown {
    if (write === undefined) {
      this.log(token);
      return { spiffeId: id, audience, expiresAt, token };
    }
    makePrivateFolder(write);
    const path = join(write, "token.jwt");
    writeWholeFile(path, token, true);
    this.log(`wrote ${path}`);
    return { spiffeId: id, audience, expiresAt, written: [path] };
  }
}

async function fetchToken(client: WorkloadApiClient, audience: readonly string[], wanted: string | undefined) {
  const named = wanted === undefined || wanted.startsWith("spiffe://");
  const id = named ? wanted : pickSvid((await client.fetchX509Context()).svids, wanted).id;
  const [svid] = await client.fetchJwtSvids({ audience, id });
  // The client refuses an answer without any.
  return svid as JwtSvid;
}

function writeX509(folder: string, svid: X509Context["svids"][number], { bundles }: X509Context): string[] {
  makePrivateFolder(folder);
  const certificates = (ders: readonly Buffer[]) => ders.map((der) => encodePem("CERTIFICATE", der)).join("");
  const own = svid.id.trustDomain.name;
  const files: [string, string, boolean][] = [
    ["key.pem", encodePem("PRIVATE KEY", svid.privateKey.export({ type: "pkcs8", format: "der" })), true],
    ["svid.pem", certificates(svid.certificates), false],
    ["bundle.pem", certificates(bundles.get(own) ?? []), false],
    // Never merged: who verifies with one file trusts one trust domain.
    ...[...bundles]
      .filter(([name]) => name !== own)
      .map(([name, roots]): [string, string, boolean] => [`bundle-${name}.pem`, certificates(roots), false]),
  ];
  return files.map(([name, contents, secret]) => {
    const path = join(folder, name);
    writeWholeFile(path, contents, secret);
    return path;
  });
}
