import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer, type IncomingMessage, type RequestListener } from "node:http";
import { createServer, type ServerOptions } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import type { EgressTarget } from "../../src/config/config.js";
import { partsOfValue } from "../../src/config/egress-values.js";
import { SpiffeId } from "../../src/spiffe/spiffe-id.js";
import { createWebAuthority } from "../federation/web-certificates.js";
import { shop } from "./running-relay.js";

/** What arrived at a server outside: what was refused must never be among it. */
export interface Arrived {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage["headers"];
  readonly rawHeaders: readonly string[];
  readonly body: string;
  readonly serverName: string | false | null | undefined;
}

/** A vendor's API as it is out there: HTTPS with a certificate of an authority of its own for 127.0.0.1 and `names`. */
export interface Outside {
  readonly port: number;
  /** PEM file of its authority. */
  readonly ca: string;
  readonly arrived: Arrived[];
  /** The body of the newest request, as far as it has come. */
  arriving: string;
  answer: RequestListener;
  close(): void;
}

export async function runOutside(options: { names?: readonly string[]; tls?: ServerOptions; plain?: boolean } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "agentid-outside-"));
  const authority = await createWebAuthority();
  const { cert, key } = await authority.issue(folder, options.names);
  const ca = join(folder, "ca.pem");
  writeFileSync(ca, authority.pem);
  const listener: RequestListener = (request, response) => {
    const { method = "", url = "", headers, rawHeaders, socket } = request;
    const chunks: Buffer[] = [];
    outside.arriving = "";
    request.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      outside.arriving += chunk.toString();
    });
    request.on("end", () => {
      const serverName = (socket as TLSSocket).servername as Arrived["serverName"];
      outside.arrived.push({ method, url, headers, rawHeaders, body: Buffer.concat(chunks).toString(), serverName });
      outside.answer(request, response);
    });
  };
  const server =
    options.plain === true
      ? createHttpServer(listener)
      : createServer({ cert, key: readFileSync(key), ...options.tls }, listener);
  server.on("tlsClientError", () => undefined);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const outside: Outside = {
    port: (server.address() as AddressInfo).port,
    ca,
    arrived: [],
    arriving: "",
    answer: (_request, response) => response.end("outside"),
    close() {
      server.closeAllConnections();
      server.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
  return outside;
}

/** The target `name` at `host`, which by default is on this machine and may be there. */
export function target(
  name: string,
  outside: Pick<Outside, "port" | "ca">,
  { header = {}, ...more }: Partial<EgressTarget> & { header?: Readonly<Record<string, string>> } = {},
): EgressTarget {
  return {
    name,
    id: SpiffeId.of(shop, `egress/${name}`),
    scheme: "https",
    host: "127.0.0.1",
    port: outside.port,
    basePath: "",
    headers: Object.entries(header).map(([header, value]) => ({ name: header, value: partsOfValue(value) })),
    ca: outside.ca,
    private: true,
    listenPort: undefined,
    ...more,
  };
}

/** As `agentid.yaml` writes it. */
export function secret(name: string): string {
  return `\${secret:${name}}`;
}
