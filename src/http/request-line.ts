import { CodedError } from "../coded-error.js";
import { isFieldValue, isToken, lengthOf } from "./header-field.js";
import type { OutgoingRequest } from "./outgoing-call.js";

const NO_TARGET = /[^\x21-\x7e\x80-\xff]/;

/** How the body of a request is told from what follows it (RFC 9112 §6). */
export type Framing = "none" | "chunked" | { readonly bytes: number };

/**
 * The head of a request in HTTP/1.1, in Latin-1, and how its body is framed: by the `Content-Length` that `headers` has, by the length of a body that is there, or in
 * chunks. Throws CodedError `request-malformed`: nothing that could be read as the start of something else goes out.
 */
export function requestHead({ method, path, headers, body }: OutgoingRequest): { text: string; framing: Framing } {
  if (!isToken(method) || path === "" || NO_TARGET.test(path)) throw malformed("its first line");
  let text = `${method} ${path} HTTP/1.1\r\nConnection: keep-alive\r\n`;
  let length: number | undefined;
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index] ?? "";
    const value = headers[index + 1] ?? "";
    if (!isToken(name) || !isFieldValue(value)) throw malformed(`the header ${JSON.stringify(name)}`);
    if (name.length === 14 && name.toLowerCase() === "content-length") {
      const said = lengthOf(value);
      if (length !== undefined || said === undefined) throw malformed("its length");
      length = said;
    }
    text += `${name}: ${value}\r\n`;
  }
  if (Buffer.isBuffer(body)) {
    if (length !== undefined && length !== body.length) throw malformed("its length");
    if (length === undefined) text += `Content-Length: ${body.length}\r\n`;
    return { text: `${text}\r\n`, framing: { bytes: body.length } };
  }
  if (body === null) {
    if (length !== undefined && length !== 0) throw malformed("its length");
    // RFC 9110 §8.6: where a body could be expected it is said that there is none.
    if (length === undefined && EXPECTS_BODY.has(method)) text += "Content-Length: 0\r\n";
    return { text: `${text}\r\n`, framing: "none" };
  }
  if (length !== undefined) return { text: `${text}\r\n`, framing: { bytes: length } };
  return { text: `${text}Transfer-Encoding: chunked\r\n\r\n`, framing: "chunked" };
}

const EXPECTS_BODY = new Set(["POST", "PUT", "PATCH"]);

function malformed(what: string): CodedError {
  return new CodedError("request-malformed", `the request cannot be sent: ${what} is not as RFC 9112 has it`);
}
