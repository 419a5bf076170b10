import { CodedError } from "../coded-error.js";

/** Why the relay itself, not a rule, refuses a request. One code for each cause; test vectors name them. */
export type RefusalCode =
  | "target-form"
  | "target-too-long"
  | "target-character"
  | "target-fragment"
  | "target-backslash"
  | "target-escape"
  | "target-encoded-separator"
  | "target-encoded-control"
  | "target-encoded-unreserved"
  | "target-double-encoding"
  | "target-utf8"
  | "target-look-alike"
  | "target-dot-segment"
  | "target-empty-segment"
  | "target-trailing-dot"
  | "target-parameter"
  | "query-duplicate-key"
  | "query-semicolon"
  | "method-refused"
  | "host-unknown"
  | "authority-form"
  | "host-mismatch"
  | "connect-body"
  | "connect-only"
  | "target-unknown"
  | "origin-foreign"
  | "header-duplicate"
  | "header-underscore-twin"
  | "header-count"
  | "transfer-encoding"
  | "expectation"
  | "upgrade-refused"
  | "websocket-handshake"
  | "http-version"
  | "http-malformed"
  | "content-type"
  | "content-encoding"
  | "body-too-large"
  | "body-slow"
  | "long-bodies"
  | "json-malformed"
  | "json-utf8"
  | "json-bom"
  | "json-duplicate-key"
  | "json-ambiguous-key"
  | "json-depth"
  | "json-keys"
  | "json-values"
  | "json-number"
  | "json-surrogate"
  | "jsonrpc-batch"
  | "jsonrpc-invalid"
  | "mcp-header-mismatch"
  | "request-invalid"
  | "page-invalid"
  | "route-unknown"
  | "client-unknown"
  | "no-identity"
  | "process-changed"
  | "certificate-expired"
  | "certificate-refused"
  | "handshake-failed"
  | "connection-limit"
  | "decision-failed"
  | "record-unwritable"
  | "not-ready"
  | "idempotency-key"
  | "key-reused"
  | "in-flight"
  | "outcome-unknown"
  | "answer-too-large"
  | "durable-busy"
  | "durable-store"
  | "upstream-unreachable"
  | "upstream-failed"
  | "upstream-timeout"
  | "upstream-response"
  | "denied"
  | "protocol-unknown"
  | "preface-malformed"
  | "ticket-refused"
  | "connections-exhausted"
  | "connection-closed"
  | "upstream-unverified"
  | "address-refused"
  | "secret-missing"
  | "secret-unusable"
  | "caller-gone";

/** The relay refuses, or cannot complete, a request: what the caller is told, as RFC 9457 problem details. */
export class Refusal extends CodedError<RefusalCode> {
  override readonly name = "Refusal";
  /** HTTP status of the answer. */
  readonly status: number;
  /** JSON-RPC error code, where the request was an MCP message (JSON-RPC 2.0 §5.1; MCP 2026-07-28 −32020). */
  readonly jsonRpcCode: number | undefined;

  constructor(
    code: RefusalCode,
    status: number,
    message: string,
    options: { cause?: unknown; jsonRpcCode?: number } = {},
  ) {
    super(code, message, options.cause === undefined ? {} : { cause: options.cause });
    this.status = status;
    this.jsonRpcCode = options.jsonRpcCode;
  }
}
