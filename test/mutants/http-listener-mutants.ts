import type { Mutant } from "./mutants.ts";

const of =
  (file: string, tests: readonly string[] = ["test/http/http-listener.test.ts"]) =>
  ([id, check, find, replace = ""]: readonly [string, string, string, string?]): Mutant => ({
    ...{ id: `listener-${id}`, check, file, find, replace, tests },
  });

/** Checks of what every listener of HTTP/1.1 reads and answers with: one request, one answer, in their order. */
export const httpListenerMutants: readonly Mutant[] = [
  ...(
    [
      [
        "one-by-one",
        "a request is begun when the one before it is answered",
        "    while (this.#current === undefined && !",
        "    while (!",
      ],
      ["ahead", "who sends on before it is answered waits", "    if (this.#arrived.length > 0) this.pauseReading();\n"],
      ["slow-reader", "who takes no answers gets no more", "      if (this.#socket.writableNeedDrain) break;\n"],
      [
        "broken-is-not-begun",
        "a request whose body is known to be broken is not begun",
        "    if (index >= 0) this.#arrived.splice(index);\n",
      ],
      [
        "broken-body",
        "an answer to a request that breaks is not sent as if it were whole",
        "      this.#socket.destroy();\n      return;\n    }\n    // It was not begun",
        "      return;\n    }\n    // It was not begun",
      ],
      [
        "unreadable",
        "what is no request is refused",
        "      else if (this.#unreadable !== undefined) this.#refuse(this.#unreadable);\n",
      ],
      [
        "refusals-on-record",
        "what is no request is on record before its caller is told",
        "    this.#owner.refused(this.#socket, code, reason);\n",
      ],
      ["last", "behind the last answer nothing is read", "    if (!answer.isLast) {", "    if (true) {"],
      [
        "unread-body",
        "a body that nobody wants is taken, so that its caller hears the answer",
        "    // A body that nobody read, perhaps.\n    this.resumeReading();\n",
      ],
      [
        "upgrade-behind",
        "behind a request for another protocol, which is not granted, the next one is read",
        "this.#hasStopped = request !== undefined && request === this.#stopsBehind;",
        "this.#hasStopped = false;",
      ],
      [
        "upgrade-anew",
        "behind a request for another protocol what is no request is refused at once",
        "      startAnew(this.#parser);\n",
      ],
      [
        "connect",
        "CONNECT is refused where nobody takes it",
        '    if (request.method === "CONNECT") {',
        "    if (false) {",
      ],
      [
        "said-nothing",
        "who has said nothing is refused nothing",
        "if (this.#isInHead) this.#refuse(TOO_SLOW);",
        "if (true) this.#refuse(TOO_SLOW);",
      ],
      [
        "slow-head",
        "each byte of a head does not buy more time",
        "        if (this.#owner.isDraining && ",
        "        this.#deadline = performance.now() + HEAD_MS;\n        if (this.#owner.isDraining && ",
      ],
      [
        "trailers",
        "nothing of the trailers becomes headers of the next request",
        "    // Trailers: nothing was decided on them.\n    this.#headers = [];\n",
      ],
      [
        "continue",
        "a body is asked for when somebody reads it",
        '    this.#socket.write("HTTP/1.1 100 Continue\\r\\n\\r\\n", "latin1");\n',
      ],
      [
        "handed-over",
        "what comes behind a change of protocol is not read as HTTP",
        '    this.#socket.off("data", this.#onData);\n    this.#socket.pause();\n',
      ],
      [
        "reader",
        "an error of who reads a body ends its connection, and no other",
        "      request?.push(chunk);\n    } catch (thrown) {\n      this.#readerFailed(request, thrown);",
        "      request?.push(chunk);\n    } catch (thrown) {\n      throw thrown;",
      ],
      [
        "broken-off",
        "a body ends with its connection",
        '    this.#incoming?.fail(new CodedError("ECONNRESET", "the caller closed the connection"));\n',
      ],
    ] as const
  ).map(of("src/http/server-connection.ts")),
  ...(
    [
      ["kept", "a body is kept for who reads it later, as far as it has come", "    this.#kept.push(chunk);\n"],
      [
        "kept-bound",
        "no more of a body is kept than that",
        "    if (this.#keptBytes >= KEPT_BYTES) this.#carrier.pauseReading();\n",
      ],
      [
        "taken",
        "a body is read no faster than it is taken",
        "        if (!stream.push(chunk)) this.pause();",
        "        stream.push(chunk);",
      ],
    ] as const
  ).map(of("src/http/incoming-request.ts")),
  ...(
    [
      [
        "unread",
        "a request that is not read to its end is the last",
        "    if (!this.#request.complete) this.#isLast = true;\n",
      ],
      [
        "empty-chunk",
        "an empty piece is not the end of an answer in chunks",
        "chunk.length === 0 || this.#framing",
        "this.#framing",
      ],
      [
        "shorter",
        "an answer is no shorter than it says",
        '    if (this.#framing === "length" && this.#left > 0) {',
        "    if (false) {",
      ],
      [
        "longer",
        "an answer is no longer than it says",
        '    if (this.#framing !== "length" || bytes <= this.#left) {',
        "    if (true) {",
      ],
      [
        "old-http",
        "HTTP/1.0 gets no chunks",
        '} else if (this.#request.httpVersion === "1.1") {',
        "} else if (true) {",
      ],
      ["finish", "who waits for the end of an answer is told of it", '    this.emit("finish");\n'],
    ] as const
  ).map(of("src/http/outgoing-answer.ts")),
  ...(
    [
      [
        "no-body",
        "an answer to HEAD, of 204 and of 304 has no body",
        'method === "HEAD" || status < 200 || status === 204 || status === 304',
        "false",
      ],
      ["answer-name", "no line gets into an answer by a name", "!isToken(name) || ", ""],
      ["answer-value", "no line gets into an answer by a value", " || !isFieldValue(value)) throw", ") throw"],
      ["answer-length", "an answer has one length", "length !== undefined || said === undefined", "false"],
      [
        "answer-coding",
        "an answer is framed here, and nowhere else",
        'size === 17 && name.toLowerCase() === "transfer-encoding"',
        "false",
      ],
    ] as const
  ).map(of("src/http/answer-head.ts")),
  of("src/http/connection-end.ts")([
    "last-answer",
    "the last answer is not cut because its caller takes long to read it",
    "  if (socket.writableFinished) closeSoon(socket);",
    "  if (true) closeSoon(socket);",
  ]),
  ...(
    [
      [
        "connections",
        "a listener serves no more connections than its bound",
        "    if (connections.size >= most) {",
        "    if (false) {",
      ],
      [
        "drain",
        "a drain ends when the last call does, not with the patience of a connection kept alive",
        "      for (const connection of connections) connection.drain();\n",
      ],
      [
        "cut",
        "a drain ends at its time",
        "      const timer = setTimeout(cut, graceMs);",
        "      const timer = setTimeout(() => undefined, graceMs);",
      ],
    ] as const
  ).map(of("src/http/http-listener.ts")),
];
