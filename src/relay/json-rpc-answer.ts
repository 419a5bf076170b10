import { Refusal } from "../http/refusal.js";
import type { JsonRpcId } from "./mcp-message.js";
import type { BodyRewriter } from "./mcp-tool-list.js";
import { cutEvents, dataOf } from "./server-sent-events.js";

/** Where a message stands: as all of an answer, or in a stream, which also carries the server's own requests and notifications. */
type Place = "answer" | "event";

const MAX_EVENT_CHARACTERS = 64 * 1024 * 1024;
/** What is longer is no name that counts, and no id but one as long as what was asked. */
const MAX_TOKEN_BYTES = 1024;
const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a];
const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST] = [0x7b, 0x7d, 0x5b, 0x5d];
const BLANKS = new Set([0x20, 0x09, 0x0a, 0x0d]);

/**
 * Reads the members of a JSON-RPC message as its bytes pass, and keeps none of them: answers may be of any size. What is nested is not looked at. `end` throws
 * Refusal `upstream-response` unless the message is the response to `asked` (undefined: to what has none), or an error that answers nobody (JSON-RPC 2.0 §5).
 */
export class AnswerCheck {
  readonly #asked: JsonRpcId | undefined;
  readonly #place: Place;
  /** 0 before the message, 1 among its members. */
  #depth = 0;
  #isOver = false;
  #inString = false;
  #isEscaped = false;
  #token: number[] = [];
  readonly #maxToken: number;
  #isNested = false;
  #member: string | undefined;
  readonly #members = new Map<string, string>();

  constructor(asked: JsonRpcId | undefined, place: Place = "answer") {
    this.#asked = asked;
    this.#place = place;
    // Each of its characters may come as an escape of six.
    this.#maxToken = MAX_TOKEN_BYTES + 6 * String(asked ?? "").length;
  }

  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += 1) {
      if (this.#depth > 1) at = this.#skipNested(bytes, at);
      else this.#take(bytes[at] ?? 0);
    }
  }

  end(): void {
    if (!this.#isOver) throw wrong("something that is no JSON-RPC message");
    const { id, isNull } = this.#id();
    const outcomes = ["result", "error"].filter((name) => this.#has(name));
    if (this.#members.has("method")) {
      if (this.#place === "answer" || outcomes.length > 0) throw wrong("a request where a response belongs");
      return;
    }
    if (outcomes.length !== 1) throw wrong("a message that is no response");
    if (isNull ? outcomes[0] === "error" : this.#asked !== undefined && id === this.#asked) return;
    throw wrong("a response to something else than was asked");
  }

  get isJsonRpc(): boolean {
    return this.#isOver && this.#members.has("jsonrpc");
  }

  #id(): { id?: unknown; isNull: boolean } {
    const text = this.#members.get("id") ?? "null";
    return text === "null" ? { isNull: true } : { id: parsed(text), isNull: false };
  }

  /** Servers of JSON-RPC 1.0 write the other one as null. */
  #has(name: string): boolean {
    const value = this.#members.get(name);
    return value !== undefined && (name === "result" || value !== "null");
  }

  /** Most of an answer. The index of the last byte that was nested. */
  #skipNested(bytes: Uint8Array, from: number): number {
    let [at, depth, inString, isEscaped] = [from, this.#depth, this.#inString, this.#isEscaped];
    for (; at < bytes.length; at += 1) {
      const byte = bytes[at];
      if (inString) {
        if (isEscaped) isEscaped = false;
        else if (byte === BACKSLASH) isEscaped = true;
        else if (byte === QUOTE) inString = false;
      } else if (byte === QUOTE) inString = true;
      else if (byte === OPEN_OBJECT || byte === OPEN_LIST) depth += 1;
      else if (byte === CLOSE_OBJECT || byte === CLOSE_LIST) {
        depth -= 1;
        if (depth === 1) break;
      }
    }
    [this.#depth, this.#inString, this.#isEscaped] = [depth, inString, isEscaped];
    return at;
  }

  #take(byte: number): void {
    if (this.#inString) this.#takeInString(byte);
    else if (byte === QUOTE) {
      this.#inString = true;
      this.#keep(byte);
    } else if (this.#depth === 1) this.#takeAmongMembers(byte);
    else if (byte === OPEN_OBJECT && !this.#isOver) this.#depth = 1;
    else if (!BLANKS.has(byte)) throw wrong("something that is no JSON-RPC message");
  }

  #takeInString(byte: number): void {
    this.#keep(byte);
    if (this.#isEscaped) this.#isEscaped = false;
    else if (byte === BACKSLASH) this.#isEscaped = true;
    else if (byte === QUOTE) this.#inString = false;
  }

  #takeAmongMembers(byte: number): void {
    switch (byte) {
      case OPEN_OBJECT:
      case OPEN_LIST:
        this.#depth = 2;
        this.#isNested = true;
        return;
      case COLON:
        this.#member = String(parsed(this.#taken())).toLowerCase();
        return;
      case COMMA:
        this.#endMember();
        return;
      case CLOSE_OBJECT:
        this.#endMember();
        this.#depth = 0;
        this.#isOver = true;
        return;
      default:
        if (!BLANKS.has(byte)) this.#keep(byte);
    }
  }

  #keep(byte: number): void {
    if (this.#depth === 0) throw wrong("something that is no JSON-RPC message");
    if (this.#token.length < this.#maxToken) this.#token.push(byte);
  }

  #taken(): string {
    const text = Buffer.from(this.#token).toString("utf8");
    this.#token = [];
    return text;
  }

  #endMember(): void {
    const value = this.#isNested ? "{}" : this.#taken();
    this.#token = [];
    const name = this.#member;
    this.#member = undefined;
    this.#isNested = false;
    if (name === undefined) return;
    // The first, the last, or the one that differs by case: readers differ too.
    if (this.#members.has(name)) throw wrong(`a message that says ${JSON.stringify(name)} twice`);
    this.#members.set(name, value);
  }
}

/**
 * Lets the body of an answer pass when it is the response to `asked`: its last bytes wait until that is known. `rewriter` writes it anew, from what was
 * looked at.
 */
export function checkedJson(status: number, asked: JsonRpcId | undefined, rewriter?: BodyRewriter): BodyRewriter {
  const check = status < 300 ? new AnswerCheck(asked) : new ErrorCheck(asked);
  let size = 0;
  let last: Buffer | undefined;
  return {
    ...(rewriter === undefined && { keepsBytes: true }),
    push(chunk) {
      size += chunk.length;
      check.push(chunk);
      if (rewriter !== undefined) return rewriter.push(chunk);
      const before = last;
      last = chunk;
      return before;
    },
    end() {
      if (size > 0) check.end();
      return rewriter === undefined ? last : rewriter.end();
    },
  };
}

/** What an error of HTTP says may be no JSON-RPC; if it is, it answers what was asked. */
class ErrorCheck {
  readonly #inner: AnswerCheck;
  #isOther = false;

  constructor(asked: JsonRpcId | undefined) {
    this.#inner = new AnswerCheck(asked);
  }

  push(bytes: Uint8Array): void {
    try {
      if (!this.#isOther) this.#inner.push(bytes);
    } catch {
      this.#isOther = true;
    }
  }

  end(): void {
    if (!this.#isOther && this.#inner.isJsonRpc) this.#inner.end();
  }
}

/** Lets events pass whose message is no response to anything else than `asked`. */
export function checkedEvents(asked: JsonRpcId | undefined, rewriter?: BodyRewriter): BodyRewriter {
  const events = cutEvents();
  return {
    push(chunk) {
      const whole = events.push(chunk);
      for (const event of whole) checkEvent(event, asked);
      if (events.pending > MAX_EVENT_CHARACTERS) throw wrong("an event larger than 64 MiB");
      if (rewriter !== undefined) return rewriter.push(chunk);
      return whole.length === 0 ? undefined : Buffer.from(whole.join(""));
    },
    // An event without its empty line is dropped by every client.
    end: () => rewriter?.end(),
  };
}

function checkEvent(event: string, asked: JsonRpcId | undefined): void {
  const data = dataOf(event);
  if (data.trim() === "") return;
  const check = new AnswerCheck(asked, "event");
  check.push(Buffer.from(data));
  check.end();
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw wrong("something that is not JSON", cause);
  }
}

function wrong(what: string, cause?: unknown): Refusal {
  return new Refusal("upstream-response", 502, `the service answered with ${what}`, { cause });
}
