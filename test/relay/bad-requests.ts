/** One way to make two parsers read a request differently: which class, the bytes, and the one cause for which it is refused. */
export interface BadRequest {
  readonly class: string;
  readonly what: string;
  /** The request line's target, extra header lines and body; or `raw`, the whole request with `HOST` for the right host. */
  readonly target?: string;
  readonly method?: string;
  readonly headers?: readonly string[];
  readonly body?: string;
  readonly raw?: string;
  readonly status: number;
  /** `code` of the problem details; Node's parser refuses some before we see them (`http-malformed`). */
  readonly code: string;
}

const path = (what: string, target: string, code: string): BadRequest => ({
  class: "path confusion",
  what,
  target,
  status: 400,
  code,
});

export const badPaths: readonly BadRequest[] = [
  path("an empty segment at the start (another host to WHATWG URL)", "//evil/v1/x", "target-empty-segment"),
  path("an empty segment inside", "/v1//x", "target-empty-segment"),
  path("a dot segment", "/v1/./x", "target-dot-segment"),
  path("a parent segment", "/v1/../admin", "target-dot-segment"),
  path("a parent segment at the end", "/v1/..", "target-dot-segment"),
  path("an encoded parent segment", "/v1/%2e%2e/admin", "target-dot-segment"),
  path("a half-encoded parent segment", "/v1/.%2E/admin", "target-dot-segment"),
  path("a segment with a trailing dot", "/v1/x./y", "target-trailing-dot"),
  path("an encoded slash", "/v1/..%2fadmin", "target-encoded-separator"),
  path("an encoded backslash", "/v1/..%5cadmin", "target-encoded-separator"),
  path("a backslash", "/v1/\\..\\admin", "target-backslash"),
  path("a path parameter", "/v1/x;y", "target-parameter"),
  path("a path parameter behind dots (Tomcat)", "/v1/..;/admin", "target-parameter"),
  path("an encoded semicolon", "/v1/x%3by", "target-encoded-separator"),
  path("an encoded NUL", "/v1/x%00.png", "target-encoded-control"),
  path("an encoded line feed", "/v1/x%0ay", "target-encoded-control"),
  path("a double encoding", "/v1/%252e%252e/admin", "target-double-encoding"),
  path("a plain letter encoded", "/v1/%70ay", "target-encoded-unreserved"),
  path("an overlong UTF-8 slash", "/v1/%c0%af", "target-utf8"),
  path("a lone surrogate", "/v1/%ed%a0%80", "target-utf8"),
  path("a percent sign without digits", "/v1/%zz", "target-escape"),
  path("a percent sign at the end", "/v1/x%", "target-escape"),
  path("a fragment", "/v1/x#y", "target-fragment"),
  path("a raw byte above ASCII", "/v1/\xe9", "http-malformed"),
  path("a character that URLs do not have", "/v1/<x>", "target-character"),
  path("a query key given twice", "/v1/x?a=1&a=2", "query-duplicate-key"),
  path("a query key given twice, once encoded", "/v1/x?a=1&%61=2", "query-duplicate-key"),
  path("a semicolon as separator of the query", "/v1/x?a=1;a=2", "query-semicolon"),
  path("an encoded NUL in the query", "/v1/x?a=%00", "target-encoded-control"),
  path("a malformed escape in the query", "/v1/x?a=%", "target-escape"),
  path("an absolute-form target", "http://127.0.0.1/v1/x", "target-form"),
  path("an absolute-form target of another host", "http://evil.example/v1/x", "target-form"),
  { ...path("the asterisk form", "*", "target-form"), method: "OPTIONS" },
];

const duplicate = (header: string, value: string): BadRequest => ({
  class: "duplicate header",
  what: header,
  headers: [`${header}: ${value}`, `${header}: other`],
  status: 400,
  code: "header-duplicate",
});

export const badHeaders: readonly BadRequest[] = [
  duplicate("Authorization", "Bearer a"),
  duplicate("Content-Type", "application/json"),
  duplicate("DPoP", "a"),
  duplicate("Mcp-Session-Id", "a"),
  duplicate("Cookie", "a=1"),
  { class: "duplicate header", what: "Host", headers: ["Host: evil.example"], status: 400, code: "header-duplicate" },
  {
    class: "duplicate header",
    what: "an underscore twin",
    headers: ["Content_Type: text/x"],
    status: 400,
    code: "header-underscore-twin",
  },
  {
    class: "framing",
    what: "an unknown transfer encoding",
    method: "POST",
    headers: ["Transfer-Encoding: xchunked"],
    body: "x",
    status: 400,
    code: "transfer-encoding",
  },
  {
    class: "framing",
    what: "two transfer encodings",
    method: "POST",
    headers: ["Transfer-Encoding: gzip, chunked"],
    body: "0\r\n\r\n",
    status: 400,
    code: "transfer-encoding",
  },
  {
    class: "framing",
    what: "Content-Length with Transfer-Encoding",
    method: "POST",
    headers: ["Content-Length: 3", "Transfer-Encoding: chunked"],
    body: "0\r\n\r\n",
    status: 400,
    code: "http-malformed",
  },
  {
    class: "framing",
    what: "two lengths",
    method: "POST",
    headers: ["Content-Length: 1", "Content-Length: 2"],
    body: "xx",
    status: 400,
    code: "http-malformed",
  },
  {
    class: "framing",
    what: "a signed length",
    method: "POST",
    headers: ["Content-Length: +1"],
    body: "x",
    status: 400,
    code: "http-malformed",
  },
  { class: "framing", what: "a space before the colon", headers: ["X-Thing : y"], status: 400, code: "http-malformed" },
  {
    class: "framing",
    what: "a folded header",
    headers: ["X-Thing: y", " folded"],
    status: 400,
    code: "http-malformed",
  },
  { class: "framing", what: "a NUL in a header", headers: ["X-Thing: a\0b"], status: 400, code: "http-malformed" },
  {
    class: "framing",
    what: "a bare line feed",
    raw: "GET /v1/x HTTP/1.1\nHost: HOST\n\n",
    status: 400,
    code: "http-malformed",
  },
  { class: "framing", what: "no Host", raw: "GET /v1/x HTTP/1.1\r\n\r\n", status: 421, code: "host-unknown" },
  {
    class: "framing",
    what: "HTTP/2 by prior knowledge",
    raw: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    status: 400,
    code: "http-malformed",
  },
  {
    class: "framing",
    what: "more headers than any client sends",
    headers: Array.from({ length: 120 }, (_, n) => `X-H${n}: 1`),
    status: 431,
    code: "header-count",
  },
  {
    class: "framing",
    what: "headers of 40 KiB",
    headers: [`X-Big: ${"x".repeat(40_000)}`],
    status: 431,
    code: "header-count",
  },
  {
    class: "method",
    what: "CONNECT",
    raw: "CONNECT evil.example:443 HTTP/1.1\r\nHost: HOST\r\n\r\n",
    status: 501,
    code: "upgrade-refused",
  },
  { class: "method", what: "TRACE", method: "TRACE", status: 501, code: "method-refused" },
  {
    class: "method",
    what: "Upgrade",
    headers: ["Connection: Upgrade", "Upgrade: h2c"],
    status: 501,
    code: "upgrade-refused",
  },
];

const rebinding = (host: string): BadRequest => ({
  class: "DNS rebinding",
  what: `Host: ${host}`,
  raw: `GET /v1/x HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
  status: 421,
  code: "host-unknown",
});

export const badOrigins: readonly BadRequest[] = [
  rebinding("evil.example"),
  rebinding("127.0.0.1"),
  rebinding("127.0.0.1:1"),
  rebinding("localhost.:PORT"),
  rebinding("user@127.0.0.1:PORT"),
  rebinding("2130706433:PORT"),
  rebinding("[::ffff:127.0.0.1]:PORT"),
  {
    class: "CSRF",
    what: "a foreign Origin",
    headers: ["Origin: http://evil.example"],
    status: 403,
    code: "origin-foreign",
  },
  {
    class: "CSRF",
    what: "Origin: null (a sandboxed page)",
    headers: ["Origin: null"],
    status: 403,
    code: "origin-foreign",
  },
  {
    class: "CSRF",
    what: "our host as Origin on another port",
    headers: ["Origin: http://127.0.0.1:1"],
    status: 403,
    code: "origin-foreign",
  },
  {
    class: "CSRF",
    what: "a cross-site request without Origin",
    headers: ["Sec-Fetch-Site: cross-site"],
    status: 403,
    code: "origin-foreign",
  },
];
