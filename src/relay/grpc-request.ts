import { checkHostAndOrigin, type ListenerNames } from "../http/host-check.js";
import { Refusal } from "../http/refusal.js";
import { checkRequestHeaders, headerOf, type RawHeaders } from "../http/request-headers.js";
import { forwardableRequestHeaders } from "./headers.js";
import { parseRequestTarget, type RequestTarget } from "./request-target.js";

/** The head of a gRPC call in the one form that is decided on and forwarded. */
export interface GrpcRequest {
  readonly method: "POST";
  readonly target: RequestTarget;
  /** Without pseudo-header fields. */
  readonly raw: RawHeaders;
  /** `grpc-timeout` as it came. */
  readonly timeout: string | undefined;
}

/** RFC 9113 §8.3.1. A request has each once, and before every other field. */
const PSEUDO = [":method", ":scheme", ":authority", ":path"] as const;
/** RFC 9113 §8.2.2. */
const CONNECTION_SPECIFIC = new Set([
  "connection",
  "http2-settings",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
]);
export const MAX_HEAD_BYTES = 32 * 1024;
const CONTENT_TYPE = /^application\/grpc(?:\+[a-z0-9.+-]+)?(?:\s*;.*)?$/i;
const METHOD_PATH = /^\/[A-Za-z0-9_.-]+\/[A-Za-z0-9_.-]+$/;

/** True if the caller speaks gRPC, and is answered in it. */
export function asksInGrpc(raw: RawHeaders): boolean {
  return CONTENT_TYPE.test(headerOf(raw, "content-type") ?? "");
}

/**
 * Reads the head of a call as it came over HTTP/2. Throws Refusal for whatever two parsers could read differently: nghttp2 has refused most of it before,
 * and this does not count on that.
 */
export function parseGrpcRequest(raw: RawHeaders, scheme: "http" | "https", names: ListenerNames): GrpcRequest {
  if (sizeOf(raw) > MAX_HEAD_BYTES) {
    throw new Refusal("header-count", 431, `the head is larger than ${MAX_HEAD_BYTES / 1024} KiB`);
  }
  const pseudo = new Map<string, string>();
  const fields: string[] = [];
  for (let index = 0; index < raw.length; index += 2) {
    const [name = "", value = ""] = [raw[index], raw[index + 1]];
    if (name.startsWith(":")) {
      if (fields.length > 0) throw malformed("a pseudo-header field comes after other fields");
      if (pseudo.has(name)) throw malformed(`${name} is given twice`);
      pseudo.set(name, value);
    } else fields.push(name, value);
  }
  const method = pseudo.get(":method");
  // RFC 9113 §8.5, RFC 8441: a tunnel.
  if (method === "CONNECT" || pseudo.has(":protocol")) {
    throw new Refusal("upgrade-refused", 501, "CONNECT is refused: the relay is no forward proxy");
  }
  const strange = [...pseudo.keys()].find((name) => !(PSEUDO as readonly string[]).includes(name));
  if (strange !== undefined) throw malformed(`${strange} is no pseudo-header field of a request`);
  if (pseudo.get(":scheme") !== scheme) throw malformed(`:scheme must be ${scheme} here`);
  checkFields(fields);
  const authority = pseudo.get(":authority");
  if (authority === undefined) throw malformed("the request names no :authority");
  const host = headerOf(fields, "host");
  if (host !== undefined && host !== authority) {
    throw new Refusal("host-unknown", 421, "Host and :authority name different servers");
  }
  checkHostAndOrigin(host === undefined ? ["host", authority, ...fields] : fields, names);
  if (method !== "POST") throw new Refusal("method-refused", 405, "a call of gRPC is a POST");
  const target = parseRequestTarget(pseudo.get(":path") ?? "");
  if (!METHOD_PATH.test(target.raw)) {
    throw new Refusal("target-form", 400, "a call of gRPC has the path /package.Service/Method");
  }
  if (!asksInGrpc(fields)) throw new Refusal("content-type", 415, "this service speaks gRPC: application/grpc");
  return { method, target, raw: fields, timeout: headerOf(fields, "grpc-timeout") };
}

/** As SETTINGS_MAX_HEADER_LIST_SIZE counts (RFC 9113 §6.5.2): unpacked. Node announces a limit and does not hold to it. */
function sizeOf(raw: RawHeaders): number {
  return raw.reduce((size, part) => size + part.length + 16, 0);
}

function checkFields(fields: RawHeaders): void {
  for (let index = 0; index < fields.length; index += 2) {
    const [name = "", value = ""] = [fields[index], fields[index + 1]];
    if (name !== name.toLowerCase()) throw malformed("the name of a field is in upper case");
    if (CONNECTION_SPECIFIC.has(name)) throw malformed(`${name} has no place in HTTP/2`);
    if (name === "te" && value !== "trailers") throw malformed("te can only be trailers");
  }
  checkRequestHeaders(fields);
}

/** Trailers that may go on. Throws Refusal for those that say what only a head may say: who calls, how long a body is, where it goes. */
export function checkRequestTrailers(raw: RawHeaders): readonly string[] {
  const kept = forwardableRequestHeaders(raw);
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index] ?? "";
    if (name.startsWith(":") || ONLY_IN_HEADS.has(name) || !kept.includes(name)) {
      throw malformed(`${name} has no place in trailers`);
    }
  }
  checkRequestHeaders(raw);
  return kept;
}

const ONLY_IN_HEADS = new Set([
  "authorization",
  "content-encoding",
  "content-length",
  "content-type",
  "cookie",
  "dpop",
  "grpc-encoding",
  "grpc-timeout",
  "host",
  "traceparent",
]);

function malformed(message: string): Refusal {
  return new Refusal("http-malformed", 400, message);
}
