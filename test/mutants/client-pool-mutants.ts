import type { Mutant } from "./mutants.ts";

const tests = ["test/http/client-pool.test.ts"];

const of =
  (file: string) =>
  ([id, check, find, replace = ""]: readonly [string, string, string, string?]): Mutant => ({
    ...{ id: `client-${id}`, check, file, find, replace, tests },
  });

/** Checks of the client that the legs go on by: one request, one answer, and nobody else's. */
export const clientPoolMutants: readonly Mutant[] = [
  ...(
    [
      [
        "behind-answer",
        "what comes behind an answer spoils its connection",
        "    if (this.#isComplete || this.#call === undefined) this.#isSpoiled = true;",
      ],
      [
        "unasked",
        "bytes that nobody asked for close their connection",
        "    if (this.#call === undefined || this.#socket === undefined) {\n      this.destroy();\n      return;\n    }\n",
      ],
      ["switch", "a switch of protocols that was not asked for is an error", "isUpgrade || status === 101", "false"],
      ["head", "an answer to HEAD has no body", 'call.request.method === "HEAD" ? SKIP_BODY : 0', "0"],
      ["interim", "interim answers are no answer", "this.#isInterim = status < 200;", "this.#isInterim = false;"],
      [
        "unsent",
        "a connection on which a request was not sent to its end is not used again",
        "this.#keepsAlive && this.#isSent && !",
        "this.#keepsAlive && !",
      ],
      ["kept", "a server's Connection: close is kept", "this.#keepsAlive && this.#isSent", "this.#isSent"],
      [
        "longer",
        "a body is no longer than was said",
        "        if (left < 0) return this.#fail(",
        "        if (false) return this.#fail(",
      ],
      ["shorter", "a body is no shorter than was said", "left !== undefined && left > 0", "false"],
      [
        "broken-body",
        "a request whose body breaks off is not ended as if it were complete",
        "      this.#fail(error ?? new CodedError(",
        '      socket.write("0\\r\\n\\r\\n");\n      void (error ?? new CodedError(',
      ],
      ["slow-server", "a body waits for a server that does not read", "      if (!goesOn) body.pause();\n"],
    ] as const
  ).map(of("src/http/client-connection.ts")),
  ...(
    [
      [
        "paused",
        "nothing is told while it is paused",
        "    if (this.#isPaused) {\n      this.#backlog",
        "    if (false) {\n      this.#backlog",
      ],
      ["aborted", "a call that was given up closes its connection", "    connection?.drop(this);\n"],
      ["not-begun", "a call that was given up before is not sent", "    if (this.#isOver) return false;\n"],
    ] as const
  ).map(of("src/http/client-call.ts")),
  ...(
    [
      ["target", "nothing gets into a first line", " || NO_TARGET.test(path)"],
      ["method", "a method is a token", "!isToken(method) || ", ""],
      ["name", "the name of a header is a token", "!isToken(name) || ", ""],
      ["value", "a value ends no line", " || !isFieldValue(value)"],
      ["two-lengths", "a request has one length", "length !== undefined || said", "said"],
      ["length-digits", "a length is digits", " || said === undefined"],
      ["other-length", "a length is the body's", "length !== undefined && length !== body.length", "false"],
      ["no-body", "without a body there is no length", "length !== undefined && length !== 0", "false"],
    ] as const
  ).map(of("src/http/request-line.ts")),
  ...(
    [
      [
        "most",
        "no more connections than may be",
        "Math.min(this.#waiting.length - this.#connecting, most)",
        "this.#waiting.length - this.#connecting",
      ],
      [
        "stale",
        "a connection that has waited too long is not used",
        "connection.isUsable && connection.deadline > now",
        "connection.isUsable",
      ],
      [
        "timeout",
        "an answer that does not begin in time is an error",
        "        if (connection.deadline > now) continue;\n",
        "        if (connection.isBusy || connection.deadline > now) continue;\n",
      ],
      [
        "closed",
        "a closed pool takes no more",
        "    if (this.#isClosed) {\n      call.fail",
        "    if (false) {\n      call.fail",
      ],
    ] as const
  ).map(of("src/http/client-pool.ts")),
  ...(
    [
      [
        "hears-out",
        "an answer that came before writing failed is heard",
        "    isWaiting = true;\n",
        "    return end(error);\n",
      ],
    ] as const
  ).map(of("src/http/hear-out.ts")),
  ...(
    [
      [
        "unused",
        "what was opened and is not used ends soon",
        "Math.min(UNUSED_MS, this.#options.keepAliveMs)",
        "this.#options.keepAliveMs",
      ],
      [
        "put-back",
        "who did not want a connection leaves it as it was",
        "    // Nobody wants it any more.\n    this.#putBack(connection);",
        "    this.idle(connection, undefined);",
      ],
    ] as const
  ).map(of("src/http/client-pool.ts")),
];
