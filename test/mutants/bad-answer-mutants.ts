import type { Mutant } from "./mutants.ts";

const LISTENERS = "test/relay/bad-inputs/other-listeners.test.ts";

const of =
  (file: string, test: string) =>
  ([id, check, find, replace = ""]: readonly [string, string, string, string?]): Mutant => ({
    ...{ id, check, file, find, replace, tests: [test] },
  });

/** Checks of answers: that they do not lead around the relay, and answer what was asked. */
export const badAnswerMutants: readonly Mutant[] = [
  ...(
    [
      [
        "own-address-location",
        "a redirect of a service to itself leads to the relay",
        '  ["location", referenceFrom],\n',
        '  ["no-header", referenceFrom],\n',
      ],
      ["own-address-content", "Content-Location names the relay", '  ["content-location", referenceFrom],\n'],
      ["own-address-link", "Link leads to the relay", '  ["link", linksFrom],\n'],
      ["own-address-link-string", "what stands in a string of Link is left alone", '"(?:[^"\\\\]|\\\\.)*"?|', ""],
      ["own-address-refresh", "Refresh leads to the relay", '  ["refresh", refreshFrom],\n'],
      [
        "own-address-alias",
        "another name of this machine leads to the service too",
        " || (there.isLocal && isThisMachine(host))",
      ],
      [
        "own-address-unspecified",
        "the unspecified address is this machine",
        'is === "loopback" || is === "unspecified"',
        'is === "loopback"',
      ],
      [
        "own-address-mapped",
        "IPv4-mapped loopback is this machine",
        'host.replace(/^::ffff:7f[0-9a-f]{2}:[0-9a-f]{1,4}$/, "127.0.0.1")',
        "host",
      ],
      ["own-address-dot", "a dot at the end is the same name", 'url.hostname.replace(/\\.$/, "")', "url.hostname"],
      ["own-address-port", "another port is another place", " || portOf(url) !== portOf(there.url)"],
      ["own-address-socket", "a service on a socket has one name", 'upstream.kind !== "unix" && '],
      [
        "own-address-scheme",
        "a reference without a scheme is resolved as the caller does",
        "  if (!/^(?:http|ws)s?:$/.test(url.protocol)",
        "  if (false",
      ],
      ["own-address-base", "what is put before each path comes off", 'target?.basePath ?? ""', '""'],
      [
        "own-address-beside",
        "a path that begins like the target's is another",
        "}/`) ? path.slice",
        "}`) ? path.slice",
      ],
      [
        "own-address-ws",
        "a WebSocket's redirect stays one",
        'url.protocol.startsWith("ws") ? WEB_SOCKET[here.scheme] : here.scheme',
        "here.scheme",
      ],
      ["own-address-inbound", "the inbound leg is https", 'leg === "inbound" ? "https" : "http"', '"http"'],
    ] as const
  ).map(of("src/relay/own-address.ts", "test/relay/own-address.test.ts")),
  ...([["alt-svc", "an answer says of no other place to ask at", 'name === "alt-svc" || ']] as const).map(
    of("src/relay/headers.ts", "test/relay/own-address.test.ts"),
  ),
  ...(
    [
      [
        "own-address-websocket",
        "a refused WebSocket leads to the relay",
        "named(answerHeaders(exchange, plain))",
        "answerHeaders(exchange, plain)",
      ],
    ] as const
  ).map(of("src/relay/forward-websocket.ts", "test/relay/own-address.test.ts")),
  ...(
    [
      [
        "answer-other-id",
        "a response answers the id that was asked",
        "this.#asked !== undefined && id === this.#asked",
        "true",
      ],
      ["answer-null-id", "only errors answer nobody", 'isNull ? outcomes[0] === "error"', "isNull ? true"],
      [
        "answer-one-outcome",
        "a response has one outcome",
        "if (outcomes.length !== 1) throw",
        "if (outcomes.length === 0) throw",
      ],
      [
        "answer-request",
        "a request is no answer",
        'this.#place === "answer" || outcomes.length > 0',
        "outcomes.length > 0",
      ],
      ["answer-request-outcome", "a request has no outcome", " || outcomes.length > 0) throw", ") throw"],
      [
        "answer-member-twice",
        "a member that is said twice has two readings",
        "if (this.#members.has(name)) throw",
        "if (false) throw",
      ],
      [
        "answer-member-case",
        "members that differ by case are one to some",
        "String(parsed(this.#taken())).toLowerCase()",
        "String(parsed(this.#taken()))",
      ],
      [
        "answer-escaped-member",
        "an escaped name is the same name",
        "String(parsed(this.#taken()))",
        "this.#taken().slice(1, -1)",
      ],
      [
        "answer-batch",
        "an answer is one message",
        "else if (!BLANKS.has(byte)) throw",
        "else if (byte !== OPEN_LIST && byte !== CLOSE_LIST && !BLANKS.has(byte)) throw",
      ],
      [
        "answer-behind",
        "nothing stands behind the message",
        "byte === OPEN_OBJECT && !this.#isOver",
        "byte === OPEN_OBJECT",
      ],
      ["answer-half", "half of a message is none", "if (!this.#isOver) throw", "if (false) throw"],
      ["answer-events", "events are held against the id too", "for (const event of whole) checkEvent(event, asked);"],
      [
        "answer-error-status",
        "an error of HTTP answers what was asked, if it is JSON-RPC",
        "if (!this.#isOther && this.#inner.isJsonRpc) this.#inner.end();",
      ],
    ] as const
  ).map(of("src/relay/json-rpc-answer.ts", "test/relay/bad-inputs/responses.test.ts")),
  ...(
    [
      [
        "answer-waits",
        "the last bytes wait until the id is known",
        "      last = chunk;\n      return before;",
        "      last = undefined;\n      return before ?? chunk;",
      ],
    ] as const
  ).map(of("src/relay/json-rpc-answer.ts", "test/relay/json-rpc-answer.test.ts")),
  ...(
    [
      [
        "answer-other-type",
        "a call is answered in JSON or in events",
        "(message === undefined || asked !== undefined)",
        "message === undefined",
      ],
    ] as const
  ).map(of("src/relay/next-hop.ts", "test/relay/bad-inputs/responses.test.ts")),
  {
    id: "answer-kept",
    check: "an answer that its caller was refused is not kept for the next one",
    file: "src/relay/durable-answer.ts",
    find: "if (!isAnswer(this.#status, this.#headers, body, id)) return this.#call.lost();",
    replace: "",
    tests: ["test/relay/durable-mcp.test.ts"],
  },
  {
    id: "connect-idle",
    check: "a tunnel on which nothing comes ends",
    file: "src/relay/connect-proxy.ts",
    find: "connection.relayTo(service, named.connections?.idleSeconds)",
    replace: "connection.relayTo(service, undefined)",
    tests: ["test/relay/tunnel-flow.test.ts"],
  },
  {
    id: "connect-backpressure",
    check: "a side of a tunnel that does not read makes the other one wait",
    file: "src/relay/byte-relay.ts",
    find: "const goesOn = sink.write(chunk);",
    replace: "const goesOn = sink.write(chunk) || true;",
    tests: ["test/relay/tunnel-flow.test.ts"],
  },
  ...(
    [
      ["grpc-pseudo-late", "pseudo-header fields come first", "if (fields.length > 0) throw", "if (false) throw"],
      ["grpc-pseudo-twice", "a pseudo-header field comes once", "if (pseudo.has(name)) throw", "if (false) throw"],
      [
        "grpc-pseudo-strange",
        "other pseudo-header fields are refused",
        "if (strange !== undefined) throw",
        "if (false) throw",
      ],
      [
        "grpc-upper-case",
        "names of fields are in lower case",
        "if (name !== name.toLowerCase()) throw",
        "if (false) throw",
      ],
      [
        "grpc-connection",
        "fields of a connection are refused",
        "if (CONNECTION_SPECIFIC.has(name)) throw",
        "if (false) throw",
      ],
      ["grpc-te", "te is trailers", 'if (name === "te" && value !== "trailers") throw', "if (false) throw"],
      [
        "grpc-trailer-pseudo",
        "trailers have no pseudo-header fields",
        'name.startsWith(":") || ONLY_IN_HEADS',
        "ONLY_IN_HEADS",
      ],
    ] as const
  ).map(of("src/relay/grpc-request.ts", "test/relay/grpc-request.test.ts")),
  ...(
    [
      ["grpc-method", "a call of gRPC is a POST", 'if (method !== "POST") throw', "if (false) throw"],
      [
        "grpc-authority",
        "a call names its authority",
        'if (authority === undefined) throw malformed("the request names no :authority");',
        'if (authority === undefined) return parseGrpcRequest([":authority", headerOf(fields, "host") ?? "", ...raw], scheme, names);',
      ],
    ] as const
  ).map(of("src/relay/grpc-request.ts", LISTENERS)),
  ...([["connect-port", "a port is at most 65535", " || Number(port) > 65_535"]] as const).map(
    of("src/relay/connect-target.ts", LISTENERS),
  ),
];
