import { once } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { launchGrant, launchRequest, type Problem } from "../../src/control-api/routes.js";
import { atEnd, temporaryFolder } from "../attestation/processes.js";

/** What a launch is answered with: environment settings, or a refusal. */
export type Answer = { readonly setEnv?: Record<string, string>; readonly keepEnv?: string[] } | Problem;

export interface ControlServer {
  /** For AGENTID_CONTROL. */
  readonly address: string;
  readonly path: string;
  /** The launches asked for, in order. */
  readonly asked: { name: string; argv: string[]; workingDirectory: string }[];
}

/** The one route of the control API that `agentid run` needs, over a real Unix socket, speaking the real schemas. */
export async function controlServer(answer: Answer = {}): Promise<ControlServer> {
  const path = join(temporaryFolder(), "control.sock");
  const asked: ControlServer["asked"] = [];
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const launch = launchRequest.parse(JSON.parse(Buffer.concat(chunks).toString("utf8")));
    asked.push(launch);
    if ("code" in answer) {
      response.writeHead(answer.status, { "content-type": "application/problem+json" }).end(JSON.stringify(answer));
      return;
    }
    const grant = launchGrant.parse({
      identity: launch.name,
      spiffeId: `spiffe://shop.local/${launch.name}`,
      setEnv: answer.setEnv ?? {},
      keepEnv: answer.keepEnv ?? [],
    });
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(grant));
  });
  server.listen(path);
  await once(server, "listening");
  atEnd(() => {
    server.closeAllConnections();
    server.close();
  });
  return { address: `unix://${path}`, path, asked };
}
