import type { Socket } from "node:net";

/**
 * Node's own HTTP parser, without the streams that `node:http` builds on it. It has no documented interface: `node:http` itself takes it from this module,
 * in every Node that we run on. Where it is gone one day, loading this fails, at the start.
 */

/** Calls back by number: what a parser reads is told to the functions under the keys below. */
export interface HttpParser {
  /** `strict` is 0: not one leniency. */
  initialize(type: number, resource: object, maxHeaderBytes: number, strict: 0): void;
  /** Reads on. Returns how much it has read, or why it stopped. Throws what a function threw that it called. */
  execute(bytes: Uint8Array): number | (Error & { readonly code: string });
  /** Nothing more comes. Returns why that is no end. */
  finish(): number | undefined | (Error & { readonly code: string });
  /** Frees it. Never from within a function that it calls. */
  close(): void;
  /** Reads what comes on a handle before its socket does, until `unconsume`; how that went is told to the function under `ON_EXECUTE`. */
  consume(handle: object): void;
  unconsume(): void;
  /** What is being read; only from within a function that it calls. */
  getCurrentBuffer(): Buffer;
  [callback: number]: unknown;
}

interface HttpParserClass {
  new (): HttpParser;
  readonly REQUEST: number;
  readonly RESPONSE: number;
  readonly kOnMessageBegin: number;
  readonly kOnHeaders: number;
  readonly kOnHeadersComplete: number;
  readonly kOnBody: number;
  readonly kOnMessageComplete: number;
  readonly kOnExecute: number;
}

interface HttpCommon {
  readonly HTTPParser: HttpParserClass;
  readonly methods: readonly string[];
}

const common = process.getBuiltinModule("_http_common" as "node:http") as unknown as HttpCommon;

export const HttpParserOfNode = common.HTTPParser;
export const ON_MESSAGE_BEGIN = HttpParserOfNode.kOnMessageBegin | 0;
/** `headers, url`: of a head, or of the trailers behind a body, as much as the parser keeps at a time. */
export const ON_HEADERS = HttpParserOfNode.kOnHeaders | 0;
export const ON_HEADERS_COMPLETE = HttpParserOfNode.kOnHeadersComplete | 0;
/** A piece of a body: bytes of its own. */
export const ON_BODY = HttpParserOfNode.kOnBody | 0;
export const ON_MESSAGE_COMPLETE = HttpParserOfNode.kOnMessageComplete | 0;
/** What `execute` would have returned, of what came on a handle. */
export const ON_EXECUTE = HttpParserOfNode.kOnExecute | 0;

interface StreamHandle {
  readonly isStreamBase?: boolean;
  reading: boolean;
  readStart(): void;
  readStop(): void;
}

/**
 * Reading without a stream of buffers in between: what comes on a socket goes from its handle into the parser, as in `node:http`. The end of the connection and
 * its errors are still the socket's to tell.
 */
export class DirectReading {
  readonly #parser: HttpParser;
  #handle: StreamHandle | undefined;

  constructor(parser: HttpParser, socket: Socket) {
    this.#parser = parser;
    const { _handle: handle } = socket as Socket & { _handle?: StreamHandle | null };
    if (handle?.isStreamBase !== true) return;
    this.#handle = handle;
    parser.consume(handle);
  }

  pause(): void {
    const handle = this.#handle;
    if (handle === undefined || !handle.reading) return;
    handle.reading = false;
    handle.readStop();
  }

  resume(): void {
    const handle = this.#handle;
    if (handle === undefined || handle.reading) return;
    handle.reading = true;
    handle.readStart();
  }

  /** What comes from here on is the socket's. */
  end(): void {
    if (this.#handle === undefined) return;
    this.#handle = undefined;
    this.#parser.unconsume();
  }
}

/** Methods by the number that the parser says for them: asked of itself, since the list that it shows has no numbers and holes. */
export const METHODS_OF_PARSER: readonly (string | undefined)[] = numbered(common.methods);

function numbered(methods: readonly string[]): (string | undefined)[] {
  const byNumber: (string | undefined)[] = [];
  for (const method of methods) {
    const parser = new HttpParserOfNode();
    parser.initialize(HttpParserOfNode.REQUEST, {}, 1_024, 0);
    parser[ON_HEADERS_COMPLETE] = (_major: number, _minor: number, _headers: unknown, number: number) => {
      byNumber[number] = method;
      return 0;
    };
    parser.execute(Buffer.from(`${method} ${method === "CONNECT" ? "a:1" : "/"} HTTP/1.1\r\n\r\n`, "latin1"));
    parser.close();
  }
  return byNumber;
}
