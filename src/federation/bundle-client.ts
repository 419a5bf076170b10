import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { CodedError, codeOf, messageOf } from "../coded-error.js";
import { request as httpRequest } from "../platform/node-http.js";
import { presentedChain } from "../spiffe/presented-chain.js";
import { parseSpiffeBundle, type SpiffeBundle } from "../spiffe/spiffe-bundle.js";
import type { SpiffeId } from "../spiffe/spiffe-id.js";
import { verifyX509Svid } from "../spiffe/x509-svid.js";
import { isInside, isInsideAddress, leadsInside, lookupOutside } from "./inside-address.js";

/** Who must answer. */
export type EndpointAuthentication =
  /** By the Web PKI: Node's own authorities and `NODE_EXTRA_CA_CERTS`; `authorities` (PEM) instead of those, in tests. */
  | { readonly profile: "https_web"; readonly authorities?: readonly string[] }
  /** By an X.509-SVID with exactly this ID, which leads to one of these roots of its trust domain. */
  | { readonly profile: "https_spiffe"; readonly endpointId: SpiffeId; readonly authorities: readonly Buffer[] };

export interface FetchBundleOptions {
  readonly authentication: EndpointAuthentication;
  readonly now: () => number;
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 10_000;
const MOST_BYTES = 1024 * 1024;
const MOST_REDIRECTS = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/**
 * The bundle that the endpoint at `url` publishes now (Federation §5.2). Redirects are followed, each to an endpoint that proves itself the same way,
 * and never remembered. Throws CodedError `endpoint-unreachable`, `endpoint-untrusted`, `endpoint-answer`, `endpoint-redirect`, `endpoint-timeout`,
 * and BundleError.
 */
export async function fetchBundle(url: string, options: FetchBundleOptions): Promise<SpiffeBundle> {
  const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
  const timeout = AbortSignal.timeout(timeoutMs);
  const signal = options.signal === undefined ? timeout : AbortSignal.any([timeout, options.signal]);
  try {
    return parseSpiffeBundle(await followRedirects(new URL(url), { ...options, signal }));
  } catch (thrown) {
    if (!timeout.aborted) throw thrown;
    throw new CodedError("endpoint-timeout", `${url} did not answer within ${timeoutMs / 1000} s`, { cause: thrown });
  }
}

type Fetching = FetchBundleOptions & { readonly signal: AbortSignal };

async function followRedirects(first: URL, options: Fetching): Promise<string> {
  // An endpoint outside must not lead us to what only this machine or its network can reach.
  const mayGoInside = await isInsideAddress(first.hostname);
  let url = first;
  for (let redirects = 0; redirects <= MOST_REDIRECTS; redirects += 1) {
    const answer = await get(url, options, mayGoInside);
    if (typeof answer === "string") return answer;
    if (answer.protocol !== "https:" || answer.username !== "" || answer.password !== "") {
      throw new CodedError("endpoint-redirect", `${url.href} redirects to ${answer.protocol}//, which is not followed`);
    }
    url = answer;
  }
  throw new CodedError("endpoint-redirect", `${first.href} redirects more than ${MOST_REDIRECTS} times`);
}

/** The body, or where the answer points instead. */
async function get(url: URL, options: Fetching, mayGoInside: boolean): Promise<string | URL> {
  const socket = await connectVerified(url, options, mayGoInside);
  try {
    const response = await sendGet(url, socket, options.signal);
    const { statusCode = 0, headers } = response;
    if (REDIRECTS.has(statusCode) && headers.location !== undefined) return locationOf(headers.location, url);
    if (statusCode !== 200)
      throw new CodedError("endpoint-answer", `${url.href} answered ${statusCode} instead of 200`);
    return await readText(response, url);
  } catch (thrown) {
    if (thrown instanceof CodedError) throw thrown;
    throw new CodedError("endpoint-unreachable", `${url.href}: ${messageOf(thrown)}`, { cause: thrown });
  } finally {
    socket.destroy();
  }
}

function locationOf(location: string, from: URL): URL {
  try {
    return new URL(location, from);
  } catch (cause) {
    throw new CodedError("endpoint-redirect", `${from.href} redirects to what is no address`, { cause });
  }
}

/** A connection whose peer is who it must be; nothing was sent to anybody else, and nothing of theirs was read. */
function connectVerified(url: URL, options: Fetching, mayGoInside: boolean): Promise<TLSSocket> {
  const { authentication, signal } = options;
  const host = url.hostname.replace(/^\[|\]$/g, "");
  if (!mayGoInside && isIP(host) !== 0 && isInside(host)) return Promise.reject(leadsInside(host));
  return new Promise((resolve, reject) => {
    const web = authentication.profile === "https_web";
    const socket = connectTls({
      host,
      port: url.port === "" ? 443 : Number(url.port),
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(mayGoInside ? {} : { lookup: lookupOutside }),
      ...(web && authentication.authorities ? { ca: [...authentication.authorities] } : {}),
      minVersion: "TLSv1.2",
      ALPNProtocols: ["http/1.1"],
      // With https_spiffe the verification below counts, against the bundle of the endpoint's own trust domain.
      rejectUnauthorized: web,
    });
    const fail = (error: CodedError) => {
      socket.destroy();
      reject(error);
    };
    const aborted = () => fail(new CodedError("endpoint-unreachable", `${url.href}: given up`));
    if (signal.aborted) aborted();
    signal.addEventListener("abort", aborted, { once: true });
    socket.once("close", () => signal.removeEventListener("abort", aborted));
    socket.on("error", (error) => fail(connectionError(url, error)));
    socket.once("secureConnect", () => {
      const refusal = refusalOf(socket, options);
      if (refusal === undefined) resolve(socket);
      else fail(new CodedError("endpoint-untrusted", `${url.href} is not who it must be: ${refusal}`));
    });
  });
}

function refusalOf(socket: TLSSocket, { authentication, now }: Fetching): string | undefined {
  // A resumed session carries no chain. It cannot happen here; if it does, nothing passes (D12).
  if (socket.isSessionReused()) return "a resumed TLS session is not accepted";
  if (authentication.profile === "https_web") return socket.authorized ? undefined : String(socket.authorizationError);
  const { endpointId, authorities } = authentication;
  try {
    const { id } = verifyX509Svid(
      presentedChain(socket),
      (trustDomain) => (trustDomain.equals(endpointId.trustDomain) ? authorities : undefined),
      new Date(now()),
    );
    return id.equals(endpointId) ? undefined : `it is ${id}, not ${endpointId}`;
  } catch (thrown) {
    return messageOf(thrown);
  }
}

/** OpenSSL's and Node's codes for a peer that could not be verified. */
const VERIFICATION_CODES =
  /^(CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|ERR_TLS_CERT_ALTNAME|INVALID_CA|HOSTNAME_MISMATCH|ERROR_IN_CERT_|PATH_LENGTH)/;

function connectionError(url: URL, error: Error): CodedError {
  if (error instanceof CodedError) return error;
  const code = VERIFICATION_CODES.test(codeOf(error)) ? "endpoint-untrusted" : "endpoint-unreachable";
  return new CodedError(code, `${url.href}: ${messageOf(error)}`, { cause: error });
}

function sendGet(url: URL, socket: TLSSocket, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      method: "GET",
      path: `${url.pathname}${url.search}`,
      headers: { host: url.host, accept: "application/json", connection: "close" },
      createConnection: () => socket,
      signal,
    });
    request.once("response", resolve);
    request.on("error", reject);
    request.end();
  });
}

async function readText(response: IncomingMessage, url: URL): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MOST_BYTES) {
      throw new CodedError("endpoint-answer", `${url.href} answered with more than ${MOST_BYTES} bytes`);
    }
    chunks.push(chunk);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks));
  } catch (cause) {
    throw new CodedError("endpoint-answer", `${url.href} answered with what is not UTF-8`, { cause });
  }
}
