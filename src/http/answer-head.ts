import { CodedError } from "../coded-error.js";
import { STATUS_CODES } from "../platform/node-http.js";
import { isFieldValue, isToken, lengthOf } from "./header-field.js";

/** The head of an answer before what its connection adds: lines, each with its end. */
export interface AnswerHead {
  readonly status: number;
  readonly lines: string;
  /** What `Content-Length` says. */
  readonly length: number | undefined;
  readonly saysConnection: boolean;
}

/**
 * The lines of an answer with `headers`, a flat list of names and values, in Latin-1. Throws CodedError `answer-malformed`: nothing that could be read as
 * the start of something else goes out.
 */
export function answerHead(status: number, headers: readonly string[]): AnswerHead {
  let lines = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}\r\n`;
  let length: number | undefined;
  let saysConnection = false;
  let saysDate = false;
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index] ?? "";
    const value = headers[index + 1] ?? "";
    if (!isToken(name) || !isFieldValue(value)) throw malformed(`the header ${JSON.stringify(name)}`);
    const size = name.length;
    if (size === 4) {
      if (name.toLowerCase() === "date") saysDate = true;
    } else if (size === 10) {
      if (name.toLowerCase() === "connection") saysConnection = true;
    } else if (size === 14) {
      if (name.toLowerCase() === "content-length") {
        const said = lengthOf(value);
        if (length !== undefined || said === undefined) throw malformed("its length");
        length = said;
      }
    } else if (size === 17 && name.toLowerCase() === "transfer-encoding") {
      throw malformed("its transfer encoding");
    }
    lines += `${name}: ${value}\r\n`;
  }
  // RFC 9110 §6.6.1: who passes an answer on that says no date says when it came.
  if (!saysDate && status >= 200) lines += dateLine();
  return { status, lines, length, saysConnection };
}

/** True where an answer has no body whatever its headers say (RFC 9112 §6.3). */
export function hasNoBody(method: string, status: number): boolean {
  return method === "HEAD" || status < 200 || status === 204 || status === 304;
}

let dateOf = 0;
let date = "";

function dateLine(): string {
  const second = Math.floor(Date.now() / 1_000);
  if (second !== dateOf) {
    dateOf = second;
    date = `Date: ${new Date(second * 1_000).toUTCString()}\r\n`;
  }
  return date;
}

function malformed(what: string): CodedError {
  return new CodedError("answer-malformed", `the answer cannot be sent: ${what} is not as RFC 9112 has it`);
}
