import { type Dispatcher, Pool } from "undici";
import { CodedError, messageOf } from "../../coded-error.js";
import { parseStrictJson } from "../../http/strict-json.js";

/** A decision point on the other end of a connection. */
export interface RemoteServer {
  /** The body of a 200. Rejects with CodedError `engine-unreachable`, `engine-timeout`, `engine-refused`, `engine-answer`. */
  post(path: string, body: string, headers?: Readonly<Record<string, string>>): Promise<RemoteAnswer>;
  get(path: string): Promise<RemoteAnswer>;
}

export interface RemoteAnswer {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: unknown;
}

export interface RemoteServerOptions {
  /** `https://…`, `http://` on this machine, `unix:/absolute/path`. */
  readonly url: string;
  readonly timeoutMillis: number;
  /** Bearer token. */
  readonly token: string | undefined;
  /** PEM. */
  readonly ca: string | undefined;
}

const MAX_ANSWER_BYTES = 256 * 1024;
const CONNECTIONS = 16;

/** Connections are kept and used again. A redirect is an answer like any other that is not 200: nobody but the configured server is asked. */
export function remoteServer({ url, timeoutMillis, token, ca }: RemoteServerOptions): RemoteServer {
  const socketPath = url.startsWith("unix:") ? url.slice("unix:".length) : undefined;
  const origin = socketPath === undefined ? new URL(url).origin : "http://localhost";
  let pool: Pool | undefined;
  // No TLS session is resumed: each connection verifies the server anew.
  const connect = {
    ...(socketPath !== undefined && { socketPath }),
    ...(ca !== undefined && { ca }),
    maxCachedSessions: 0,
  };

  const call = async (
    method: "GET" | "POST",
    path: string,
    body: string | null,
    more: Readonly<Record<string, string>>,
  ): Promise<RemoteAnswer> => {
    // Made at the first question: a policy that is only checked connects to nobody.
    pool ??= new Pool(origin, { connections: CONNECTIONS, pipelining: 1, connect });
    const headers = {
      accept: "application/json",
      ...(body !== null && { "content-type": "application/json" }),
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...more,
    };
    // One deadline over everything: connecting, waiting, and an answer that drips.
    const signal = AbortSignal.timeout(timeoutMillis);
    try {
      const response = await pool.request({ method, path, headers, body, signal });
      return { headers: response.headers, body: await bodyOf(response) };
    } catch (thrown) {
      if (thrown instanceof CodedError) throw thrown;
      if (signal.aborted) throw new CodedError("engine-timeout", `no answer within ${timeoutMillis} ms`);
      throw new CodedError("engine-unreachable", `cannot be asked: ${messageOf(thrown) || String(thrown)}`, {
        cause: thrown,
      });
    }
  };

  return {
    post: (path, body, headers = {}) => call("POST", path, body, headers),
    get: (path) => call("GET", path, null, {}),
  };
}

async function bodyOf({ statusCode, headers, body }: Dispatcher.ResponseData): Promise<unknown> {
  // What is left of an answer may still fail when nobody reads it any more.
  body.on("error", () => undefined);
  if (statusCode !== 200) {
    // Read to its end, the connection can be used again.
    await body.dump({ limit: MAX_ANSWER_BYTES }).catch(() => undefined);
    throw new CodedError("engine-refused", `answered with status ${statusCode}`);
  }
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_ANSWER_BYTES)
      throw new CodedError("engine-answer", `its answer is larger than ${MAX_ANSWER_BYTES} bytes`);
    chunks.push(chunk);
  }
  const type = String(headers["content-type"] ?? "");
  if (!/^application\/json\s*(;|$)/i.test(type)) throw new CodedError("engine-answer", "its answer is not JSON");
  try {
    // Of a decision that is given twice JavaScript would take the last.
    return parseStrictJson(Buffer.concat(chunks));
  } catch (cause) {
    throw new CodedError("engine-answer", `its answer is not JSON that all read alike: ${messageOf(cause)}`, { cause });
  }
}
