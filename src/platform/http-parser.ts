import type { Socket } from "node:net";

/**
 * Node's own HTTP parser, without the streams that `node:http` builds on it. It has no documented interface: `node:http` itself takes it from this module,
 * in every Node that we run on. Where it is gone one day, loading this fails, at the start.
 */

export interface HttpParser {
  /** Reads on. Returns how much it has read, or why it stopped. Throws what a function threw that it called. */
  execute(bytes: Uint8Array): number | (Error & { readonly code: string });
  /** Nothing more comes. Returns why that is no end. */
  finish(): number | undefined | (Error & { readonly code: string });
  /** Frees it. Never from within a function that it calls. */
  close(): void;
  /** Reads what comes on a handle before its socket does, until `unconsume`; how that went `onExecuted` is told. */
  consume(handle: object): void;
  unconsume(): void;
  /** What is being read; only from within a function that it calls. */
  getCurrentBuffer(): Buffer;
}

/** Who is told what a parser reads. What one of these throws `execute` throws; of what comes on a handle nobody would catch it. */
export interface ParserEvents {
  onBegin(): void;
  /** Of a head, or of the trailers behind a body, as much as the parser keeps at a time. */
  onHeaders(headers: readonly string[], url: string): void;
  /** A head; what of its headers and of its target was not told before. Returns 0; 1 where no body follows; 2 where nothing follows that is HTTP. */
  onHead(head: ParsedHead): 0 | 1 | 2;
  /** A piece of a body: bytes of its own. */
  onBody(chunk: Buffer): void;
  onComplete(): void;
  /** What `execute` would have returned, of what came on a handle. */
  onExecuted?(read: number | (Error & { readonly code: string })): void;
}

export interface ParsedHead {
  readonly httpVersion: string;
  readonly headers: readonly string[] | undefined;
  /** Of a request. */
  readonly method: string;
  readonly url: string | undefined;
  /** Of an answer. */
  readonly status: number;
  readonly isUpgrade: boolean;
  readonly keepsAlive: boolean;
}

/** Calls back by number: what it reads is told to the functions under the keys below. */
interface NativeParser extends HttpParser {
  /** `strict` is 0: not one leniency. */
  initialize(type: number, resource: object, maxHeaderBytes: number, strict: 0): void;
  events: ParserEvents;
  type: number;
  maxHeaderBytes: number;
  [callback: number]: unknown;
}

interface HttpParserClass {
  new (): NativeParser;
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

const NodeParser = common.HTTPParser;
const ON_MESSAGE_BEGIN = NodeParser.kOnMessageBegin | 0;
const ON_HEADERS = NodeParser.kOnHeaders | 0;
const ON_HEADERS_COMPLETE = NodeParser.kOnHeadersComplete | 0;
const ON_BODY = NodeParser.kOnBody | 0;
const ON_MESSAGE_COMPLETE = NodeParser.kOnMessageComplete | 0;
const ON_EXECUTE = NodeParser.kOnExecute | 0;

/** A parser of requests or answers whose heads have at most `maxHeaderBytes`. */
export function createHttpParser(
  kind: "requests" | "answers",
  maxHeaderBytes: number,
  events: ParserEvents,
): HttpParser {
  const parser = new NodeParser();
  parser.type = kind === "requests" ? NodeParser.REQUEST : NodeParser.RESPONSE;
  parser.maxHeaderBytes = maxHeaderBytes;
  parser.events = events;
  startAnew(parser);
  parser[ON_MESSAGE_BEGIN] = onBegin;
  parser[ON_HEADERS] = onHeaders;
  parser[ON_HEADERS_COMPLETE] = onHead;
  parser[ON_BODY] = onBody;
  parser[ON_MESSAGE_COMPLETE] = onComplete;
  parser[ON_EXECUTE] = onExecuted;
  return parser;
}

/**
 * Has `parser` read what comes as it would read the first bytes of a connection. Behind a request that changes the protocol it stops, and where that is not
 * granted it could go on, but would not tell of an error any more.
 */
export function startAnew(parser: HttpParser): void {
  const native = parser as NativeParser;
  native.initialize(native.type, {}, native.maxHeaderBytes, 0);
}

function onBegin(this: NativeParser): void {
  this.events.onBegin();
}

function onHeaders(this: NativeParser, headers: readonly string[], url: string): void {
  this.events.onHeaders(headers, url);
}

function onHead(
  this: NativeParser,
  major: number,
  minor: number,
  headers: readonly string[] | undefined,
  method: number | undefined,
  url: string | undefined,
  status: number | undefined,
  _text: string | undefined,
  isUpgrade: boolean,
  keepsAlive: boolean,
): number {
  return this.events.onHead({
    httpVersion: major === 1 && minor === 1 ? "1.1" : `${major}.${minor}`,
    headers,
    method: (method === undefined ? undefined : METHODS[method]) ?? "",
    url,
    status: status ?? 0,
    isUpgrade,
    keepsAlive,
  });
}

function onBody(this: NativeParser, chunk: Buffer): void {
  this.events.onBody(chunk);
}

function onComplete(this: NativeParser): void {
  this.events.onComplete();
}

function onExecuted(this: NativeParser, read: number | (Error & { readonly code: string })): void {
  this.events.onExecuted?.(read);
}

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
const METHODS: readonly (string | undefined)[] = numbered(common.methods);

function numbered(methods: readonly string[]): (string | undefined)[] {
  const byNumber: (string | undefined)[] = [];
  for (const method of methods) {
    const parser = new NodeParser();
    parser.initialize(NodeParser.REQUEST, {}, 1_024, 0);
    parser[ON_HEADERS_COMPLETE] = (_major: number, _minor: number, _headers: unknown, number: number) => {
      byNumber[number] = method;
      return 0;
    };
    parser.execute(Buffer.from(`${method} ${method === "CONNECT" ? "a:1" : "/"} HTTP/1.1\r\n\r\n`, "latin1"));
    parser.close();
  }
  return byNumber;
}
