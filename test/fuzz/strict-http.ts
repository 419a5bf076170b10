/**
 * A reader of HTTP/1.1 requests that shares no code with Node's: RFC 9112 and 9110 to the letter, nothing tolerated. What the relay sends to a service must
 * have one reading; this is the second one.
 */
export interface StrictRequest {
  readonly method: string;
  readonly target: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: string;
}

const REQUEST_LINE = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+) (\/[\x21-\x7e]*) HTTP\/1\.1$/;
const FIELD_LINE =
  /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/;
const CHUNK_LINE = /^[0-9a-f]{1,8}$/;

/** The requests in what one connection has carried, and what is left of one that is not over. Throws Error, with the bytes, for what is no request. */
export function readStrictly(bytes: Buffer): { readonly requests: readonly StrictRequest[]; readonly rest: string } {
  let text = bytes.toString("latin1");
  const requests: StrictRequest[] = [];
  for (;;) {
    const read = readOne(text);
    if (read === undefined) return { requests, rest: text };
    requests.push(read.request);
    text = read.rest;
  }
}

function readOne(text: string): { request: StrictRequest; rest: string } | undefined {
  const end = text.indexOf("\r\n\r\n");
  if (end === -1) return undefined;
  const [first = "", ...lines] = text.slice(0, end).split("\r\n");
  const [, method = "", target = ""] = REQUEST_LINE.exec(first) ?? [];
  if (method === "") throw new Error(`no request line: ${JSON.stringify(first)}`);
  const headers = lines.map((line) => {
    const [, name, value = ""] = FIELD_LINE.exec(line) ?? [];
    if (name === undefined) throw new Error(`no field line: ${JSON.stringify(line)}`);
    return [name, value] as const;
  });
  const all = (wanted: string) => headers.filter(([name]) => name.toLowerCase() === wanted).map(([, value]) => value);
  const [length, coding, hosts] = [all("content-length"), all("transfer-encoding"), all("host")];
  if (hosts.length !== 1) throw new Error(`${hosts.length} Host: ${JSON.stringify(text.slice(0, end))}`);
  if (length.length + coding.length > 1) throw new Error(`framed twice: ${JSON.stringify(text.slice(0, end))}`);
  const framed = coding.length === 1 ? chunked(text, end + 4, coding[0]) : counted(text, end + 4, length[0]);
  return framed && { request: { method, target, headers, body: framed.body }, rest: text.slice(framed.end) };
}

function counted(text: string, from: number, length = "0"): { body: string; end: number } | undefined {
  if (!/^\d{1,15}$/.test(length)) throw new Error(`no length: ${JSON.stringify(length)}`);
  const end = from + Number(length);
  return text.length < end ? undefined : { body: text.slice(from, end), end };
}

function chunked(text: string, from: number, coding = ""): { body: string; end: number } | undefined {
  if (coding !== "chunked") throw new Error(`no transfer coding: ${JSON.stringify(coding)}`);
  let body = "";
  for (let at = from; ; ) {
    const line = text.indexOf("\r\n", at);
    if (line === -1) return undefined;
    if (!CHUNK_LINE.test(text.slice(at, line))) throw new Error(`no chunk: ${JSON.stringify(text.slice(at, line))}`);
    const size = Number.parseInt(text.slice(at, line), 16);
    const end = line + 2 + size;
    if (text.length < end + 2) return undefined;
    if (text.slice(end, end + 2) !== "\r\n")
      throw new Error(`a chunk of ${size} does not end: ${JSON.stringify(text.slice(at, end + 2))}`);
    body += text.slice(line + 2, end);
    at = end + 2;
    // A last chunk with trailers would not end here: nothing but CRLF follows what the relay sends.
    if (size === 0) return { body, end: at };
  }
}
