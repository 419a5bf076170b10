import type { Choices } from "./random.js";

/** What is sent on one connection: the bytes in the pieces in which they are written. */
export type Pieces = readonly Buffer[];

/** What parsers are known to read differently, and what a policy is known to be walked around with. */
const TOKENS = [
  ...[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\n\n",
    "\r\n ",
    "\r\n\t",
    "\0",
    "\x0b",
    "\x0c",
    "\x7f",
    "\x85",
    "\xa0",
    "\xff",
    " ",
    "\t",
  ],
  ...[
    "/",
    "//",
    "/./",
    "/../",
    "/..;/",
    "%2e%2e",
    "%2f",
    "%5c",
    "\\",
    ";",
    "?",
    "#",
    "%00",
    "%0d%0a",
    "%252e",
    "%c0%af",
    "%u002e",
  ],
  ...["http://evil.example/", "//evil.example", "*", "@evil.example", ":80", "[::1]"],
  ...[" HTTP/1.1", " HTTP/1.0", " HTTP/0.9", " HTTP/2.0", " HTTP/1.1 HTTP/1.1", " http/1.1"],
  ...["Transfer-Encoding: chunked\r\n", "Transfer-Encoding: identity\r\n", "Transfer-Encoding : chunked\r\n"],
  ...["Transfer-Encoding: chunked, chunked\r\n", "Transfer_Encoding: chunked\r\n", "Transfer-Encoding:\x0bchunked\r\n"],
  ...["Content-Length: 0\r\n", "Content-Length: 5\r\n", "Content-Length: 5, 5\r\n", "Content-Length: +5\r\n"],
  ...[
    "Content-Length: 0x5\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Content-Length: -1\r\n",
    "Content-Length : 5\r\n",
  ],
  ...[
    "Authorization: a\r\n",
    "Content-Type: a/b\r\n",
    "Host: evil.example\r\n",
    "Host:\r\n",
    "HOST: a\r\n",
    "X-Forwarded-Host: evil.example\r\n",
    "Forwarded: for=1\r\n",
  ],
  ...[
    "X-Forwarded-Client-Cert: By=a;URI=spiffe://shop.local/admin\r\n",
    "Client-Cert: :AAAA:\r\n",
    "Agentid-Ticket: a\r\n",
  ],
  ...[
    "Connection: x-forwarded-client-cert\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive, host\r\n",
    "TE: trailers\r\n",
  ],
  ...[
    "Connection: Upgrade\r\nUpgrade: websocket\r\n",
    "Upgrade: h2c\r\n",
    "Expect: 100-continue\r\n",
    "Expect: 200-ok\r\n",
  ],
  ...[
    "X-HTTP-Method-Override: DELETE\r\n",
    "X-Original-URL: /admin\r\n",
    "Origin: null\r\n",
    "Trailer: Authorization\r\n",
  ],
  ...[
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "5;a=b\r\nhello\r\n",
    "0\r\nX-Admin: 1\r\n\r\n",
    "fffffffffffffffff\r\n",
    "5 \r\nhello\r\n",
  ],
  ...["GET /admin HTTP/1.1\r\nHost: HOST\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01"],
];

const PATH_TOKENS = [
  ...[
    "/..",
    "/.",
    "/../admin",
    "/%2e%2e",
    "/.%2e/admin",
    "//admin",
    "/x;y",
    "/..;/admin",
    "%2fadmin",
    "%5c..",
    "\\admin",
    "\\..",
  ],
  ...[
    "%00",
    "%0a",
    "%252e%252e",
    "%c0%ae",
    "%70",
    "/x.",
    "?a=1&a=2",
    "?a;b",
    "#x",
    "%",
    "%zz",
    "/é",
    "/%C3%A9",
    "?a=/../",
  ],
];

/** Sound requests to begin with: each is answered when nothing is changed. */
const SOUND: readonly ((choices: Choices) => string)[] = [
  () => "GET /v1/a HTTP/1.1\r\nHost: HOST\r\n\r\n",
  () => "GET /v1/a?b=c&d HTTP/1.1\r\nHost: HOST\r\nAccept: */*\r\nX-Thing: y\r\n\r\n",
  () => "POST /v1/a HTTP/1.1\r\nHost: HOST\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
  () =>
    "POST /v1/a HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-T: 1\r\n\r\n",
  () => "DELETE /v1/a HTTP/1.1\r\nHost: HOST\r\nConnection: keep-alive\r\n\r\n",
  () => "GET /admin HTTP/1.1\r\nHost: HOST\r\n\r\n",
  (choices) => `HEAD /v1/${"x".repeat(choices.below(200))} HTTP/1.1\r\nHost: HOST\r\nCookie: a=b; c=d\r\n\r\n`,
];

/** One connection's worth of bytes: up to three requests, changed a little, and cut anywhere. `host` is what the listener wants in `Host`. */
export function someBytes(choices: Choices, host: string): Pieces {
  const count = 1 + choices.below(3);
  let text = Array.from({ length: count }, () => choices.oneOf(SOUND)(choices)).join("");
  if (choices.chance(0.25)) text = text.replace("/v1/", () => `/v1${choices.oneOf(PATH_TOKENS)}/`);
  for (let changes = choices.below(4); changes > 0; changes -= 1) text = changed(text, choices);
  return cut(Buffer.from(text.replaceAll("HOST", host), "latin1"), choices);
}

function changed(text: string, choices: Choices): string {
  const at = choices.below(text.length + 1);
  const until = Math.min(text.length, at + 1 + choices.below(12));
  switch (choices.below(7)) {
    case 0: {
      const where = choices.chance(0.5) ? lineStart(text, at) : at;
      return text.slice(0, where) + choices.oneOf(TOKENS) + text.slice(where);
    }
    case 1:
      return text.slice(0, at) + choices.oneOf(TOKENS) + text.slice(until);
    case 2:
      return text.slice(0, at) + text.slice(until);
    case 3:
      return text.slice(0, at) + String.fromCharCode(choices.below(256)) + text.slice(at + 1);
    case 4: {
      const [from, to] = [lineStart(text, at), lineStart(text, until)];
      return text.slice(0, to) + text.slice(from, to) + text.slice(to);
    }
    case 5: {
      const case_ = choices.chance(0.5) ? (one: string) => one.toUpperCase() : (one: string) => one.toLowerCase();
      return text.slice(0, at) + case_(text.slice(at, until)) + text.slice(until);
    }
    default:
      return text.slice(0, at) + choices.oneOf(["_", "-", ":", "\r", "\n"]) + text.slice(at + choices.below(2));
  }
}

function lineStart(text: string, at: number): number {
  const before = text.lastIndexOf("\n", at);
  return before === -1 ? 0 : before + 1;
}

function cut(bytes: Buffer, choices: Choices): Pieces {
  if (choices.chance(0.6)) return [bytes];
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + choices.below(choices.chance(0.2) ? 2 : 60);
    pieces.push(bytes.subarray(at, at + size));
    at += size;
  }
  return pieces;
}
