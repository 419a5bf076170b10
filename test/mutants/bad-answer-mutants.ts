import type { Mutant } from "./mutants.ts";

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
  ...(
    [["alt-svc", "an answer says of no other place to ask at", '    if (name === "alt-svc") continue;\n']] as const
  ).map(of("src/relay/headers.ts", "test/relay/own-address.test.ts")),
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
];
