import type { RefusalCode } from "./refusal.js";

/** Of one request. */
export const MAX_HEADER_BYTES = 32 * 1024;

/** Why what came on a connection is no request, as its caller is told. */
export interface Unreadable {
  readonly status: number;
  readonly title: string;
  readonly code: RefusalCode;
  readonly reason: string;
}

export const NO_FORWARD_PROXY: Unreadable = {
  status: 501,
  title: "Not Implemented",
  code: "upgrade-refused",
  reason: "CONNECT is refused: the relay is no forward proxy",
};

export const TOO_SLOW: Unreadable = {
  status: 408,
  title: "Request Timeout",
  code: "http-malformed",
  reason: "the request did not arrive in time",
};

/** What the code of the parser's error says of the request. */
export function unreadableBy(code: string): Unreadable {
  if (code === "HPE_HEADER_OVERFLOW") {
    const reason = `the headers are larger than ${MAX_HEADER_BYTES / 1024} KiB`;
    return { status: 431, title: "Request Header Fields Too Large", code: "header-count", reason };
  }
  if (code === "HPE_INVALID_TRANSFER_ENCODING") {
    const reason = "a body is framed by its length, or in chunks and by nothing else (RFC 9112 §6.1)";
    return { status: 400, title: "Bad Request", code: "transfer-encoding", reason };
  }
  const reason = `the request is not HTTP/1.1 as RFC 9112 has it (${code})`;
  return { status: 400, title: "Bad Request", code: "http-malformed", reason };
}
