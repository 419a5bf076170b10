import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { z } from "zod";
import { CodedError, codeOf, messageOf } from "../coded-error.js";
import type { AgentidEvent } from "../control-api/events.js";
import { type Problem, type RouteName, routes } from "../control-api/routes.js";
import { checkRequestHead } from "../http/request-headers.js";
import { parseStrictJson } from "../http/strict-json.js";
import { createServer } from "../platform/node-http.js";
import { descriptorOf } from "../platform/socket-descriptor.js";
import { listenPrivately } from "./private-socket.js";

/** Who asks: the descriptor of the connection, for which the kernel names the process at its other end. */
export interface ControlPeer {
  readonly fd: number;
}

/** By what right a process asks. `agent`: it descends from an agent, and may ask for nothing but a launch. */
export type ControlRight = "administrator" | "agent";

/** A process that may ask, and by what right. */
export interface AdmittedPeer extends ControlPeer {
  readonly right: ControlRight;
}

/** One function a route. Inputs are validated before they arrive. */
export type ControlHandlers = {
  readonly [Name in Exclude<RouteName, "events">]: (
    input: z.output<(typeof routes)[Name]["input"]>,
    peer: AdmittedPeer,
  ) => Promise<z.input<(typeof routes)[Name]["output"]>> | z.input<(typeof routes)[Name]["output"]>;
};

export interface ControlServerOptions {
  /** A route that is not among them is not found. */
  readonly handlers: Partial<ControlHandlers>;
  readonly subscribe?: (since: number | undefined, listener: (event: AgentidEvent) => void) => () => void;
  /** Throws CodedError `not-administrator` with the reason; asked for every request, not once a connection (D25), and again when its body has come. */
  readonly admit: (peer: ControlPeer, route: RouteName) => ControlRight;
}

export interface ControlServer {
  listen(path: string): Promise<void>;
  close(): Promise<void>;
}

const MAX_BODY_BYTES = 1024 * 1024;
/** A subscriber that reads so slowly that this much is waiting for it is cut off; it can come back with `since`. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024;

const HTTP_STATUS: Readonly<Record<string, number>> = {
  "bad-request": 400,
  "not-administrator": 403,
  "launch-refused": 403,
  "identity-unknown": 404,
  "decision-unknown": 404,
  "process-gone": 404,
  "no-pending-reload": 409,
  "reload-changed": 409,
  "pin-failed": 409,
  "bundle-unknown": 404,
  "bundle-own": 409,
  "bundle-federated": 409,
  "bundle-malformed": 400,
  "bundle-certificate": 400,
  "bundle-sequence": 400,
  "bundle-refresh-hint": 400,
  "bundle-trust-domain": 400,
  "secret-unknown": 404,
  "secret-missing": 404,
  "secret-elsewhere": 409,
  "secret-unreadable": 502,
  "secret-malformed": 400,
  "no-keychain": 409,
  "federation-unknown": 404,
  "authority-unknown": 404,
  "authority-state": 409,
  "authority-too-fresh": 409,
  "not-revoked": 409,
  "not-found": 404,
};

/**
 * The control socket: HTTP/1.1 with JSON for the owner of the trust domain, never for an agent (D25).
 * It listens with mode 0600, and believes only the kernel about who asks.
 */
export function createControlServer(options: ControlServerOptions): ControlServer {
  const streams = new Set<ServerResponse>();
  const server: Server = createServer({ requestTimeout: 30_000, headersTimeout: 10_000 }, (request, response) => {
    answer(request, response).catch((thrown: unknown) => sendProblem(response, thrown));
  });

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A page in a browser cannot reach a Unix socket, a proxy to it could: no Origin has business here (D16).
    if (request.headers.origin !== undefined || !isOurHost(request.headers.host)) {
      throw new CodedError("bad-request", "the control API is not for browsers");
    }
    checkHead(request);
    // As it is, not as a URL parser would have it: "//x/v1/status" and "/v1/./status" are no routes.
    const [path = "", query] = (request.url ?? "").split(/\?(.*)/s);
    const name = routeNamed(request.method ?? "", path);
    const admitted = (): AdmittedPeer => {
      const peer = { fd: descriptorOf(request.socket) };
      return { ...peer, right: options.admit(peer, name) };
    };
    let peer = admitted();
    const route = routes[name];
    let raw: unknown = Object.fromEntries(new URLSearchParams(query));
    if (route.method !== "GET") {
      if (query !== undefined) throw new CodedError("bad-request", `${name} takes its input in the body`);
      raw = await readJson(request);
      // A body may take its time, and its sender becomes an agent meanwhile.
      peer = admitted();
    }
    const parsed = route.input.safeParse(raw);
    if (!parsed.success) throw new CodedError("bad-request", parsed.error.issues.map(describeIssue).join("; "));
    if (name === "events") return streamEvents(request, response, (parsed.data as { since?: number }).since);
    const handler = options.handlers[name] as ((input: unknown, peer: AdmittedPeer) => unknown) | undefined;
    if (handler === undefined) throw new CodedError("not-found", `${name} is not answered here`);
    const output = await handler(parsed.data, peer);
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify(output));
  }

  function streamEvents(request: IncomingMessage, response: ServerResponse, since: number | undefined): void {
    const { subscribe } = options;
    if (subscribe === undefined) throw new CodedError("not-found", "events are not told here");
    response.writeHead(200, { "content-type": "application/x-ndjson", "cache-control": "no-store" });
    response.flushHeaders();
    streams.add(response);
    const unsubscribe = subscribe(since, (event) => {
      if (response.writableLength > MAX_WAITING_BYTES) response.destroy();
      else response.write(`${JSON.stringify(event)}\n`);
    });
    request.on("close", () => {
      unsubscribe();
      streams.delete(response);
    });
  }

  return {
    listen: (path) => listenPrivately(server, path),
    close() {
      for (const stream of streams) stream.end();
      return new Promise((resolve) => {
        server.close(() => resolve());
        server.closeIdleConnections();
        setTimeout(() => server.closeAllConnections(), 250).unref();
      });
    },
  };
}

function routeNamed(method: string, path: string): RouteName {
  for (const [name, route] of Object.entries(routes)) {
    if (route.method === method && route.path === path) return name as RouteName;
  }
  throw new CodedError("not-found", `no route ${method} ${path}`);
}

function isOurHost(host: string | undefined): boolean {
  return host === "agentid" || host === "localhost";
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw new CodedError("bad-request", `body is larger than ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk);
  }
  if (size === 0) return {};
  try {
    return parseStrictJson(Buffer.concat(chunks));
  } catch (cause) {
    throw new CodedError("bad-request", `body is not JSON: ${messageOf(cause)}`, { cause });
  }
}

function checkHead(request: IncomingMessage): void {
  try {
    checkRequestHead(request);
  } catch (cause) {
    throw new CodedError("bad-request", messageOf(cause), { cause });
  }
}

function sendProblem(response: ServerResponse, thrown: unknown): void {
  const code = codeOf(thrown);
  const status = HTTP_STATUS[code] ?? 500;
  const hint = thrown instanceof CodedError ? thrown.hint : undefined;
  const problem: Problem = {
    type: `urn:agentid:problem:${code}`,
    title: code,
    status,
    code,
    detail: messageOf(thrown),
    ...(hint === undefined ? {} : { hint }),
  };
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response.writeHead(status, { "content-type": "application/problem+json", connection: "close" });
  response.end(JSON.stringify(problem));
}

function describeIssue(issue: { path: PropertyKey[]; message: string }): string {
  return issue.path.length === 0 ? issue.message : `${issue.path.map(String).join(".")}: ${issue.message}`;
}
