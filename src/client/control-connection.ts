import type { IncomingMessage } from "node:http";
import { CodedError, codeOf, messageOf } from "../coded-error.js";
import { problem } from "../control-api/routes.js";
import { request as httpRequest } from "../platform/node-http.js";

export interface ControlRequest {
  readonly socketPath: string;
  readonly method: "GET" | "POST";
  readonly path: string;
  /** Sent as the query string of a GET, as the JSON body of a POST. */
  readonly input: Record<string, unknown>;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Sends one request over the owner's Unix socket and resolves with a successful answer, its body still to be read.
 *
 * @throws CodedError `daemon-not-running`, `control-not-permitted`, `control-connection-lost`, or the code of the
 * daemon's problem document; an abort by `signal` is thrown as it is
 */
export async function sendControlRequest(request: ControlRequest): Promise<IncomingMessage> {
  const response = await exchange(request);
  if (response.statusCode === 200 || response.statusCode === 204) return response;
  throw problemError(response.statusCode ?? 0, await readText(response));
}

/** The whole body as text. @throws CodedError `control-connection-lost` */
export async function readText(response: IncomingMessage): Promise<string> {
  response.setEncoding("utf8");
  let text = "";
  try {
    for await (const chunk of response) text += chunk;
  } catch (thrown) {
    throw connectionError("", thrown);
  }
  return text;
}

function exchange(request: ControlRequest): Promise<IncomingMessage> {
  const isGet = request.method === "GET";
  const query = isGet ? queryString(request.input) : "";
  const body = isGet ? undefined : JSON.stringify(request.input);
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest({
      socketPath: request.socketPath,
      method: request.method,
      path: request.path + query,
      // One connection a request: the peer credentials that the daemon checked belong to this request alone.
      agent: false,
      headers: {
        host: "localhost",
        accept: "application/json, application/x-ndjson, application/problem+json",
        ...(body === undefined
          ? {}
          : { "content-type": "application/json", "content-length": Buffer.byteLength(body).toString() }),
      },
      ...(request.signal === undefined ? {} : { signal: request.signal }),
    });
    outgoing.once("response", resolve);
    outgoing.once("error", (thrown) => {
      reject(request.signal?.aborted === true ? thrown : connectionError(request.socketPath, thrown));
    });
    outgoing.end(body);
  });
}

function queryString(input: Record<string, unknown>): string {
  const pairs = Object.entries(input)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]): [string, string] => [name, String(value)]);
  return pairs.length === 0 ? "" : `?${new URLSearchParams(pairs)}`;
}

/** What a failure of the socket means to a person. */
export function connectionError(socketPath: string, thrown: unknown): CodedError {
  switch (codeOf(thrown)) {
    case "ENOENT":
    case "ECONNREFUSED":
      return new CodedError("daemon-not-running", "no agentid daemon is running for this project", {
        hint: "start one with `agentid dev`, or in the background with `agentid up`",
        cause: thrown,
      });
    case "EACCES":
    case "EPERM":
      return new CodedError("control-not-permitted", `this user may not open the control socket ${socketPath}`.trim(), {
        hint: "the control socket belongs to the user who started the daemon",
        cause: thrown,
      });
    default:
      return new CodedError("control-connection-lost", `the daemon closed the connection: ${messageOf(thrown)}`, {
        cause: thrown,
      });
  }
}

function problemError(statusCode: number, body: string): CodedError {
  const parsed = problem.safeParse(parseJson(body));
  if (!parsed.success) {
    return new CodedError("control-answer-invalid", `the daemon answered ${statusCode} without a problem document`);
  }
  const { code, detail, hint } = parsed.data;
  return new CodedError(code, detail, hint === undefined ? {} : { hint });
}

/** The value of a JSON text, `undefined` where it is none. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
