import type { Mutant } from "./mutants.ts";

const REQUESTS = "test/relay/bad-inputs/requests.test.ts";
const RESPONSES = "test/relay/bad-inputs/responses.test.ts";
const DECIDED = "test/relay/bad-inputs/as-decided.test.ts";

/** Of what may pass the relay at all, each check switched off: id, what it checks, and what is put for what. */
const in_ =
  (file: string, tests: readonly string[] = [REQUESTS]) =>
  ([id, check, find, replace = ""]: readonly [string, string, string, string?]): Mutant => ({
    ...{ id, check, file, find, replace, tests },
  });

export const badInputMutants: readonly Mutant[] = [
  ...(
    [
      [
        "host-case",
        "a Host is compared without regard to case",
        "allowed.hosts.has(host.toLowerCase())",
        "[...allowed.hosts].some((one) => host.startsWith(one))",
      ],
      [
        "origin-without-origin",
        "a browser that leaves Origin out is known by Sec-Fetch-Site",
        'if (site !== undefined && site !== "same-origin" && site !== "none") {',
        "if (false) {",
      ],
      [
        "origin-same-site",
        "another port's page is another's",
        'site !== "same-origin" && site',
        'site !== "same-origin" && site !== "same-site" && site',
      ],
    ] as const
  ).map(in_("src/http/host-check.ts")),
  ...(
    [
      [
        "http-version",
        "HTTP/0.9 and 2.0 on a request line are refused",
        'if (httpVersion !== "1.1" && httpVersion !== "1.0") {',
        "if (false) {",
      ],
      [
        "http-10-coding",
        "HTTP/1.0 has no transfer encoding",
        'if (httpVersion === "1.0" && headerOf',
        "if (false && headerOf",
      ],
      ["header-count", "more than 100 headers are refused", "if (raw.length / 2 > MAX_HEADERS) {", "if (false) {"],
      [
        "header-duplicate",
        "a header of which a second would be a second meaning is refused",
        "if (seen.includes(name)) throw",
        "if (false) throw",
      ],
      ["header-twin", "a header that CGI takes for another is refused", "if (isTwin) throw", "if (false) throw"],
      [
        "header-twin-any",
        "any other character makes a twin",
        '/[^a-z0-9-]/.test(name) ? name.replaceAll(/[^a-z0-9-]/g, "-") : name',
        'name.replaceAll("_", "-")',
      ],
      [
        "header-mcp-param-single",
        "an Mcp-Param header given twice is refused",
        "SINGLE.has(name) || name.startsWith(MCP_PARAMETER)",
        "SINGLE.has(name)",
      ],
      [
        "transfer-coding",
        "the only transfer encoding is chunked",
        'if (name === "transfer-encoding" && raw',
        'if (name === "" && raw',
      ],
      [
        "expectation",
        "an unknown expectation is refused on record",
        'if (name === "expect" && raw',
        'if (name === "" && raw',
      ],
      ["upgrade", "a switch of protocols is refused", 'if (name === "upgrade") {', 'if (name === "") {'],
    ] as const
  ).map(in_("src/http/request-headers.ts")),
  ...(
    [["json-depth", "nesting is bounded", "if (depth > MAX_DEPTH) throw", "if (depth > 10 ** 9) throw"]] as const
  ).map(in_("src/http/strict-json.ts")),
  ...(
    [
      [
        "json-bom",
        "a byte order mark is refused",
        "if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) {",
        "if (false) {",
      ],
      ["json-utf8", "what is no UTF-8 is refused, not repaired", "fatal: true", "fatal: false"],
    ] as const
  ).map(in_("src/http/body-bytes.ts")),
  ...(
    [
      ["json-one-text", "nothing follows the document", "if (this.at !== this.text.length) throw", "if (false) throw"],
      ["json-duplicate-key", "a key given twice is refused", "if (key in object) throw", "if (false) throw"],
      ["json-proto", "__proto__ is refused", 'if (key === "__proto__") throw', "if (false) throw"],
      ["json-case", "keys that differ by case are refused", "if (!folded.addKey(key)) {", "if (false) {"],
      ["json-fold", "keys are folded up, then down", "key.toUpperCase().toLowerCase()", "key.toLowerCase()"],
      ["json-surrogate", "half a surrogate pair is refused", "if (!value.isWellFormed()) throw", "if (false) throw"],
      [
        "json-number",
        "a number that parsers round is refused",
        "if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value))) {",
        "if (false) {",
      ],
      [
        "json-infinite",
        "a number beyond a double is refused",
        "!Number.isFinite(value) || ",
        "value !== Infinity && value !== -Infinity && ",
      ],
      [
        "json-number-form",
        "numbers are those of RFC 8259",
        "const NUMBER = /-?(?:0|[1-9][0-9]*)(?:",
        "const NUMBER = /[-+]?(?:[0-9]*)(?:",
      ],
    ] as const
  ).map(in_("src/http/json-tokens.ts")),
  ...(
    [
      ["target-length", "a long target is refused", "if (raw.length > MAX_TARGET_LENGTH) {", "if (false) {"],
      ["target-form", "absolute targets are refused", 'if (!raw.startsWith("/")) {', "if (false) {"],
      ["target-fragment", "a fragment is refused", 'if (raw.includes("#")) throw', "if (false) throw"],
      [
        "target-query-fragment",
        "a fragment behind the query is refused",
        'if (query.includes("#")) throw',
        "if (false) throw",
      ],
      ["target-backslash", "a backslash is refused", 'if (path.includes("\\\\")) throw', "if (false) throw"],
      [
        "target-query-backslash",
        "a backslash in the query is refused",
        'if (query.includes("\\\\")) throw',
        "if (false) throw",
      ],
      ["target-parameter", "a path parameter is refused", 'if (path.includes(";")) throw', "if (false) throw"],
      ["target-character", "what URLs do not have is refused", "if (!PATH.test(path)) throw", "if (false) throw"],
      [
        "target-query-character",
        "what queries do not have is refused",
        "if (!QUERY.test(query)) throw",
        "if (false) throw",
      ],
      ["target-empty-segment", "an empty segment is refused", 'if (path.includes("//")) throw', "if (false) throw"],
      [
        "target-trailing",
        "a dot or a space at a segment's end is refused",
        "if (/(?:\\.|%20)$/.test(segment)) throw",
        "if (false) throw",
      ],
      ["target-trailing-space", "a space at a segment's end is refused", "/(?:\\.|%20)$/", "/\\.$/"],
      ["target-escape", "an escape has two digits", "if (!/^[0-9A-Fa-f]{2}$/.test(digits)) throw", "if (false) throw"],
      [
        "target-control",
        "an encoded control is refused, of C1 too",
        "if (/\\p{Cc}/u.test(decoded)) throw",
        "if (false) throw",
      ],
      [
        "target-separator",
        "an encoded separator is refused",
        'if (character === "/" || character === "\\\\" || character === ";") {',
        "if (false) {",
      ],
      [
        "target-encoded-dots",
        "an encoded dot segment is refused as one",
        'if (character === "." && dotSegmentAround(path, at)) {',
        "if (false) {",
      ],
      [
        "target-unreserved",
        "an encoded letter is refused",
        "if (/[A-Za-z0-9\\-._~]/.test(character)) {",
        "if (false) {",
      ],
      [
        "target-double-encoding",
        "a double encoding is refused",
        'if (character === "%" && /^',
        'if (character === "" && /^',
      ],
      [
        "target-look-alike",
        "what normalises to ASCII is refused",
        'if (/[\\0-\\x7f]/.test(character.normalize("NFKC"))) {',
        "if (false) {",
      ],
      ["query-semicolon", "a semicolon in the query is refused", 'if (query.includes(";")) throw', "if (false) throw"],
      [
        "query-duplicate",
        "a key of the query given twice is refused",
        "if (readings.has(folded) || readings.has(base) || (base === folded && lists.has(base))) {",
        "if (false) {",
      ],
      [
        "query-case",
        "keys of the query that differ by case are refused",
        "const folded = key.toLowerCase();",
        "const folded = key;",
      ],
      ["query-list", "a key of the query and a list of it are refused", " || readings.has(base) ||", " ||"],
      ["query-list-first", "a list and its key are refused", " || (base === folded && lists.has(base))", ""],
      [
        "query-escape",
        "an escape of the query has two digits",
        "if (/%(?![0-9A-Fa-f]{2})/.test(text)) throw",
        "if (false) throw",
      ],
      ["query-nul", "an encoded NUL in the query is refused", "if (/%00/.test(text)) throw", "if (false) throw"],
    ] as const
  ).map(in_("src/relay/request-target.ts")),
  ...(
    [
      ["headers-family", "families of asserted headers are removed", " || ASSERTED_FAMILY.test(plain)", ""],
      ["headers-asserted", "asserted headers are removed", "ASSERTED_BY_RELAYS.has(plain) || ", ""],
      [
        "headers-hop-twin",
        "a twin of a hop-by-hop header is removed",
        " || (plain !== name && HOP_BY_HOP.has(plain))",
        "",
      ],
      [
        "headers-asserted-twin",
        "a twin of an asserted header is removed",
        "const plain = plainName(name);",
        "const plain = name;",
      ],
      [
        "headers-hop",
        "hop-by-hop headers are removed",
        "staysHere: isOurs || HOP_BY_HOP.has(name) || ",
        "staysHere: isOurs || ",
      ],
      [
        "headers-named",
        "what Connection names is removed",
        "ofRequest(original);\n    if (staysHere || named?.has(name) || ",
        "ofRequest(original);\n    if (staysHere || ",
      ],
      [
        "headers-framing-kept",
        "Connection strips nothing that frames the message",
        'for (const framing of ["content-length", "content-type", "content-encoding"]) named.delete(framing);',
        "",
      ],
      ["headers-httpoxy", "Proxy is removed", '  "proxy",\n', ""],
    ] as const
  ).map(in_("src/relay/headers.ts")),
  ...(
    [
      ["mcp-batch", "a batch is refused", "  if (Array.isArray(json)) {", "  if (false) {"],
      [
        "mcp-envelope",
        "an unknown member of the envelope is refused",
        "if (!ENVELOPE.has(member)) throw",
        "if (false) throw",
      ],
      ["mcp-version", "JSON-RPC is 2.0", 'if (json.jsonrpc !== "2.0") throw', "if (false) throw"],
      [
        "mcp-request-result",
        "a request has no result",
        "if (json.result !== undefined || json.error !== undefined) throw",
        "if (false) throw",
      ],
      [
        "mcp-method-text",
        "a method is text",
        'if (typeof method !== "string" || method === "") throw',
        "if (false) throw",
      ],
      [
        "mcp-params",
        "params are an object",
        "if (params !== undefined && !isObject(params)) throw",
        "if (false) throw",
      ],
      [
        "mcp-call-id",
        "a call without id is no notification",
        "if (id === undefined) throw invalid('\"tools",
        "if (false) throw invalid('\"tools",
      ],
      ["mcp-id", "an id is text or an integer", "if (!isId(id)) throw", "if (false) throw"],
      ["mcp-response-id", "an answer's id is text or an integer", "if (!isId(json.id) && ", "if (false && "],
      [
        "mcp-response-null",
        "only an error answers null",
        "!(json.id === null && json.error !== undefined)",
        "json.id !== null",
      ],
      [
        "mcp-response",
        "an answer has one outcome",
        "if (answers !== 1 || json.params !== undefined || json.id === undefined) {",
        "if (false) {",
      ],
      ["mcp-case", "a parameter in another case is refused", "if (key !== plain && (plain", "if (false && (plain"],
      [
        "mcp-tool-name",
        "a call names a tool",
        'if (typeof params.name !== "string" || params.name === "") throw',
        "if (false) throw",
      ],
      [
        "mcp-arguments",
        "arguments are an object",
        "if (params.arguments !== undefined && !isObject(params.arguments)) throw",
        "if (false) throw",
      ],
      [
        "mcp-unclean-name",
        "a tool's name holds no control and ends in no white space",
        "if (UNCLEAN_NAME.test(params.name)) throw",
        "if (false) throw",
      ],
      [
        "mcp-response-headers",
        "an answer has no method in its headers",
        "if (method !== undefined || name !== undefined) throw",
        "if (false) throw",
      ],
      [
        "mcp-name-lies",
        "Mcp-Name equals the body",
        "if (name !== undefined && decodedHeader(name) !== namedBy(message.method, message.params)) throw",
        "if (false) throw",
      ],
      [
        "mcp-version-lies",
        "MCP-Protocol-Version equals the body",
        "if (inBody !== undefined && version !== undefined && inBody !== version) throw",
        "if (false) throw",
      ],
      [
        "mcp-param-lies",
        "an Mcp-Param repeats an argument",
        "if (value === undefined || !values.has(value)) throw",
        "if (false) throw",
      ],
      [
        "mcp-base64",
        "base64 in a header has one reading",
        'if (bytes.toString("base64") !== encoded[1]) return undefined;',
        "",
      ],
      ["mcp-header-utf8", "text in a header is UTF-8 to the last byte", "fatal: true, ignoreBOM: true", "fatal: true"],
      ["mcp-notifications", "a notification is one of MCP's", "? isMcpNotification(message.method) :", "? true :"],
      ["mcp-unknown-method", "a method that no revision has is refused", ": isMcpRequest(message.method);", ": true;"],
    ] as const
  ).map(in_("src/relay/mcp-message.ts")),
  ...(
    [
      [
        "relay-methods",
        "methods that the relay does not carry are refused",
        "if (!METHODS.has(method)) throw",
        "if (false) throw",
      ],
      [
        "mcp-http-methods",
        "an MCP service takes POST, GET for events, and DELETE",
        'if (!opensStream && method !== "DELETE") {',
        "if (false) {",
      ],
      [
        "mcp-accept",
        "GET at an MCP service is for events",
        '?.includes("text/event-stream") === true',
        " !== undefined",
      ],
      ["mcp-bodiless", "GET and DELETE carry no message", "if (exchange.request.hasBody) throw", "if (false) throw"],
      [
        "mcp-media-type",
        "a message is application/json in UTF-8",
        'if (!/^application\\/json(?:\\s*;\\s*charset="?utf-8"?)?\\s*$/i.test(type)) {',
        "if (false) {",
      ],
      [
        "mcp-encoding",
        "an encoded message is refused",
        'if (headerOf(request.rawHeaders, "content-encoding") !== undefined) {',
        "if (false) {",
      ],
      [
        "mcp-body-size",
        "a message may have 4 MiB",
        "if (body.length > most.bytes) refuse(",
        "if (body.length < 0) refuse(",
      ],
    ] as const
  ).map(in_("src/relay/request-steps.ts")),
  ...(
    [
      ["answer-interim", "an interim answer is none", "    if (status < 200) return;\n", ""],
      [
        "answer-decision-beside-list",
        "only the relay says a decision, beside a list too",
        "  DECISION_HEADER.toLowerCase(),\n",
        "",
      ],
      [
        "answer-encoded-list",
        "a list that cannot be read is refused",
        'if (this.#rewriter !== undefined && headerText(raw, "content-encoding") !== "") {',
        "if (false) {",
      ],
    ] as const
  ).map(in_("src/relay/forward.ts", [RESPONSES])),
  ...(
    [
      [
        "answer-hop",
        "the service's hop-by-hop headers are removed",
        '=== "alt-svc" || HOP_BY_HOP.has(name)',
        '=== "alt-svc"',
      ],
      [
        "answer-named",
        "what the service's Connection names is removed",
        "ofAnswer(original);\n    if (staysHere || named?.has(name) || ",
        "ofAnswer(original);\n    if (staysHere || ",
      ],
    ] as const
  ).map(in_("src/relay/headers.ts", [RESPONSES])),
  in_("src/relay/next-hop.ts", [DECIDED])([
    "target-as-decided",
    "the target goes on as it was decided",
    'path: filled(exchange.target, "target").raw,',
    'path: filled(exchange.target, "target").path,',
  ]),
  in_("src/daemon/control-server.ts")([
    "control-strict-json",
    "the control API reads JSON that has one reading",
    "return parseStrictJson(Buffer.concat(chunks));",
    'return JSON.parse(Buffer.concat(chunks).toString("utf8"));',
  ]),
  in_("src/federation/document-server.ts")([
    "documents-version",
    "documents are served over HTTP/1 only",
    'if (!httpVersion.startsWith("1.")) return',
    "if (false) return",
  ]),
];
