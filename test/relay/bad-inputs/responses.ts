/** What a caller gets where its service answers with these bytes: the answer, or nothing that could be taken for one. */
export type Answered =
  | {
      readonly is: "answered";
      readonly status?: number;
      readonly lacks?: readonly RegExp[];
      readonly has?: readonly RegExp[];
      readonly body?: string;
    }
  /** 502, and on record; nothing of the service's bytes. */
  | { readonly is: "refused" }
  /** The head was out: the connection is cut, so that half an answer is not taken for one; the leg before it says 502 where its own is not. */
  | { readonly is: "cut"; readonly lacks?: RegExp };

export interface BadResponse {
  readonly what: string;
  readonly bytes: string;
  readonly expected: Answered;
}

const OK = "HTTP/1.1 200 OK\r\n";
const SOUND = `${OK}Content-Length: 5\r\n\r\nsound`;
const refused: Answered = { is: "refused" };
const cut: Answered = { is: "cut" };
const sound = (lacks: readonly RegExp[] = [], has: readonly RegExp[] = []): Answered => ({
  ...{ is: "answered", status: 200, body: "sound", lacks, has },
});

const response = (what: string, bytes: string, expected: Answered): BadResponse => ({ what, bytes, expected });
const header = (what: string, line: string, expected: Answered): BadResponse =>
  response(what, `${OK}${line}\r\nContent-Length: 5\r\n\r\nsound`, expected);
const chunked = (what: string, body: string, expected: Answered): BadResponse =>
  response(what, `${OK}Transfer-Encoding: chunked\r\n\r\n${body}`, expected);
const json = (what: string, headers: string, body: string, expected: Answered): BadResponse => ({
  what,
  bytes: `${OK}${headers}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  expected,
});
const JSON_TYPE = "Content-Type: application/json\r\n";

/** The service, or what has taken it over, attacks the relay and the caller. */
export const badResponses: readonly BadResponse[] = [
  response("no HTTP at all", "220 mail.example ESMTP\r\n", refused),
  response("HTTP/0.9", "sound", refused),
  // What is not part of an answer's meaning is written anew.
  response("HTTP/2 by its number", SOUND.replace("1.1", "2.0"), sound([/HTTP\/2/])),
  response("a status of four digits", SOUND.replace("200", "2000"), refused),
  response("a status of two digits", SOUND.replace("200", "20"), refused),
  response("a status that is no number", SOUND.replace("200", "2x0"), refused),
  response("a control in the reason", SOUND.replace("OK", "O\x01K"), sound([], [/^HTTP\/1\.1 200 OK\r$/m])),
  response("two lengths", `${OK}Content-Length: 5\r\nContent-Length: 6\r\n\r\nsound!`, refused),
  response(
    "a length and chunks",
    `${OK}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsound\r\n0\r\n\r\n`,
    refused,
  ),
  response("a signed length", `${OK}Content-Length: +5\r\n\r\nsound`, refused),
  response("a negative length", `${OK}Content-Length: -5\r\n\r\nsound`, refused),
  response("a length beyond 2^64", `${OK}Content-Length: 99999999999999999999\r\n\r\nsound`, refused),
  response("a space before a colon", `${OK}Content-Length : 5\r\n\r\nsound`, refused),
  header("a header without a colon", "X-Thing", refused),
  header("a NUL in a header", "X-Thing: a\0b", refused),
  header("a bare carriage return in a header", "X-Thing: a\rX-Injected: b", refused),
  header("headers of 40 KiB", `X-Big: ${"x".repeat(40_000)}`, refused),
  header("5,000 headers", Array.from({ length: 5_000 }, (_, index) => `X-H${index}: 1`).join("\r\n"), refused),
  response(
    "another protocol that was not asked for",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    refused,
  ),
  response(
    "a flood of interim answers",
    `${"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(2_000)}${SOUND}`,
    sound([/early hints/i, /^link:/im]),
  ),
  chunked("a huge chunk", "fffffffffffffffff\r\nsound", cut),
  chunked("a negative chunk", "-5\r\nsound\r\n0\r\n\r\n", cut),
  chunked("a chunk that is longer than it says", "1\r\nsound\r\n0\r\n\r\n", cut),
  response(
    "a request or an answer too many behind the answer",
    `${SOUND}${SOUND.replace("200 OK", "201 Poisoned")}`,
    sound([/poisoned/i]),
  ),
  header(
    "hop-by-hop headers",
    "Keep-Alive: timeout=900\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: X-A",
    sound([/^(?:proxy-authenticate|upgrade|trailer):/im, /timeout=900/]),
  ),
  header("a header that Connection names", "Connection: X-Secret\r\nX-Secret: 1", sound([/^x-secret:/im])),
  header("a decision of its own", "Agentid-Decision: forged", sound([/forged/])),
  chunked("a credential in a trailer", "5\r\nsound\r\n0\r\nAuthorization: x\r\nAgentid-Decision: forged\r\n\r\n", {
    is: "answered",
    status: 200,
    lacks: [/^authorization:/im, /forged/],
  }),
  // To other names, cookies and servers a caller goes by itself or not at all: the relay passes on what it was told and follows nothing.
  response(
    "a redirect to another host",
    "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 5\r\n\r\nsound",
    {
      ...{ is: "answered", status: 307, has: [/^location: http:\/\/127\.0\.0\.1:1\/x\r$/im], body: "sound" },
    },
  ),
  header(
    "two cookies stay two",
    "Set-Cookie: a=1\r\nSet-Cookie: b=2",
    sound([], [/^set-cookie: a=1\r\n(?:.*\r\n)*?set-cookie: b=2\r$/im]),
  ),
  header(
    "a challenge that points elsewhere",
    'WWW-Authenticate: Bearer resource_metadata="https://evil.example"',
    sound([], [/^www-authenticate: Bearer/im]),
  ),
  header(
    "a compressed body that nobody unpacks",
    "Content-Encoding: gzip",
    sound([], [/^content-encoding: gzip\r$/im]),
  ),
];

/** Nothing of it goes out that could be taken for an answer. */
const unseen: Answered = { is: "cut", lacks: /get_invoice|stolen/ };

const TOOLS = '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"get_invoice"},{"name":"drop_tables"}]}}';

/** Answers to `tools/list`, which the relay reads. */
export const badLists: readonly BadResponse[] = [
  json("a compressed list", `${JSON_TYPE}Content-Encoding: gzip\r\n`, TOOLS, refused),
  json("a list in another media type", "Content-Type: text/html\r\n", TOOLS, refused),
  json("a list that is no JSON", JSON_TYPE, TOOLS.slice(1), cut),
  json("a list larger than 16 MiB", JSON_TYPE, TOOLS.replace("get_invoice", "x".repeat(17 * 1024 * 1024)), cut),
  json("a list with a decision of its own", `${JSON_TYPE}Agentid-Decision: forged\r\n`, TOOLS, {
    ...{ is: "answered", status: 200, lacks: [/forged/, /drop_tables/], has: [/get_invoice/] },
  }),
  json("a list inside a batch", JSON_TYPE, `[${TOOLS}]`, unseen),
  json("a list under another id", JSON_TYPE, TOOLS.replace('"id":1', '"id":2'), unseen),
  json(
    "a list under another id in an event",
    "Content-Type: text/event-stream\r\n",
    `data: ${TOOLS.replace('"id":1', '"id":2')}\n\n`,
    unseen,
  ),
  json(
    "a list in an event, behind a request of the server's",
    "Content-Type: text/event-stream\r\n",
    `data: {"jsonrpc":"2.0","id":9,"method":"roots/list"}\n\ndata: ${TOOLS}\n\n`,
    {
      ...{ is: "answered", status: 200, lacks: [/drop_tables/], has: [/get_invoice/, /roots\/list/] },
    },
  ),
];

const STREAM_TYPE = "Content-Type: text/event-stream\r\n";
const rpc = (id: string, rest = '"result":{"content":"stolen"}') =>
  `{"jsonrpc":"2.0"${id === "" ? "" : `,"id":${id}`},${rest}}`;
const bad = (what: string, body: string, expected = unseen): BadResponse => json(what, JSON_TYPE, body, expected);
const good = (what: string, body: string): BadResponse =>
  json(what, JSON_TYPE, body, { is: "answered", status: 200, body, has: [/^content-length: /im] });
const events = (what: string, bodies: readonly string[], expected: Answered): BadResponse =>
  json(what, STREAM_TYPE, bodies.map((body) => `event: message\ndata: ${body}\n\n`).join(""), expected);
const ERROR = '"error":{"code":-32700,"message":"stolen"}';
const LARGE = "x".repeat(2 * 1024 * 1024);

/** Answers to `tools/call` with the id 1: they answer that and nothing else. Each bad one stands beside the good one that it differs from. */
export const badAnswers: readonly BadResponse[] = [
  good("a response under the id that was asked", rpc("1")),
  bad("a response under another id", rpc("2")),
  bad("a response under the id as text", rpc('"1"')),
  bad("a response under the id in a list", rpc("[1]")),
  bad("a response under true", rpc("true")),
  bad("a response under a number that is nearly the id", rpc("1.0000001")),
  good("a response under the id in another form", rpc("1.0")),
  bad("a result under null", rpc("null")),
  bad("a result under no id", rpc("")),
  good("an error under null", rpc("null", ERROR)),
  good("an error under no id", rpc("", ERROR)),
  bad("an error under another id", rpc("2", ERROR)),
  bad("two ids of which the first is right", '{"id":1,"result":"stolen","id":2}'),
  bad("two ids of which the last is right", '{"id":2,"result":"stolen","id":1}'),
  bad("an id in another case beside the right one", '{"id":1,"result":"stolen","ID":2}'),
  bad("an escaped id beside the right one", '{"id":1,"result":"stolen","\\u0069d":2}'),
  good("an escaped name of the id", '{"\\u0069d":1,"result":"fine"}'),
  good("ids of another kind inside", rpc("1", '"result":{"id":2,"x":[{"id":3}],"y":"\\"id\\":4"}')),
  bad("the right id inside alone", rpc("2", '"result":{"id":1,"x":"stolen"}')),
  good("an error of null beside a result", rpc("1", '"result":{},"error":null')),
  bad("a result and an error", rpc("1", `"result":"stolen",${ERROR}`)),
  bad("neither result nor error", rpc("1", '"x":"stolen"')),
  bad("a request of the server's", rpc("1", '"method":"sampling/createMessage","params":{"x":"stolen"}')),
  bad("a request with a result", rpc("1", '"method":"x","result":"stolen"')),
  bad("a batch of one", `[${rpc("1")}]`),
  bad("two messages", rpc("1") + rpc("2")),
  bad("text behind the message", `${rpc("1")}x`),
  bad("a byte order mark before it", `\xef\xbb\xbf${rpc("1")}`),
  bad("a bare string", '"stolen"'),
  bad("an empty message behind it", `${rpc("1")}{}`),
  bad("half of a message", rpc("1").slice(0, -1)),
  bad("half of a message, of which the rest is not needed", '{"id":1,"result":"stolen",'),
  bad("what is not JSON", "<p>stolen</p>"),
  bad("another id behind two megabytes", `{"result":"${LARGE}","id":2}`, cut),
  good("the id behind two megabytes", `{"result":"${LARGE}","id":1}`),
  json("another media type", "Content-Type: text/plain\r\n", rpc("1"), refused),
  json("an encoded answer", `${JSON_TYPE}Content-Encoding: gzip\r\n`, rpc("1"), refused),
  events("a response under another id in an event", [rpc("2")], unseen),
  events("a response under null in an event", [rpc("null")], unseen),
  events("a batch in an event", [`[${rpc("1")}]`], unseen),
  events("what is not JSON in an event", ["stolen"], unseen),
  events("a request with a result in an event", [rpc("9", '"method":"x","result":"stolen"')], unseen),
  events(
    "a request and a notification of the server's, and the response, in events",
    ['{"jsonrpc":"2.0","id":9,"method":"roots/list"}', '{"jsonrpc":"2.0","method":"notifications/message"}', rpc("1")],
    { is: "answered", status: 200, has: [/roots\/list/, /notifications\/message/, /"id":1,"result"/] },
  ),
  response(
    "an error of HTTP with a response under another id",
    `HTTP/1.1 400 Bad Request\r\n${JSON_TYPE}Content-Length: ${rpc("2", ERROR).length}\r\n\r\n${rpc("2", ERROR)}`,
    unseen,
  ),
  response(
    "an error of HTTP in words of its own",
    `HTTP/1.1 400 Bad Request\r\n${JSON_TYPE}Content-Length: 24\r\n\r\n{"error":"x","error":""}`,
    { is: "answered", status: 400, body: '{"error":"x","error":""}' },
  ),
];
