import { Refusal, type RefusalCode } from "../http/refusal.js";

/** A request target in the only form that the relay decides on and forwards: what it decodes to has one reading. */
export interface RequestTarget {
  /** Exactly as received, and as forwarded. */
  readonly raw: string;
  /** The path, percent-decoded. Decoding is unambiguous: separators, controls and dots cannot arrive encoded. */
  readonly path: string;
  /** Decoded query parameters; a key occurs once. */
  readonly query: Readonly<Record<string, string>>;
}

const MAX_TARGET_LENGTH = 8_192;
/** RFC 3986 §3.3 pchar and "/", without ";": servers disagree whether `/admin;x` is `/admin`. */
const PATH = /^[A-Za-z0-9\-._~!$&'()*+,=:@/%]*$/;
/** RFC 3986 §3.4, and what browsers leave as it is. */
const QUERY = /^[A-Za-z0-9\-._~!$&'()*+,=:@/?%[\]{}|^`;]*$/;
const PLAIN_PATH = /^(?:\/[A-Za-z0-9\-_~!$&'()*+,=:@]+)*\/?$/;
const NO_QUERY: Readonly<Record<string, string>> = Object.freeze({});

/** Targets of late, and what they were found to be: programs ask for the same few again and again. */
const known = new Map<string, RequestTarget>();
const MAX_KNOWN = { targets: 1_024, characters: 256 };

/** `parseRequestTarget`, which depends on nothing but `raw`. The same object for the same target, as long as it is remembered. */
export function requestTarget(raw: string): RequestTarget {
  const found = known.get(raw);
  if (found !== undefined) return found;
  const parsed = parseRequestTarget(raw);
  if (raw.length <= MAX_KNOWN.characters) {
    if (known.size >= MAX_KNOWN.targets) known.clear();
    known.set(raw, Object.freeze({ ...parsed, query: Object.freeze(parsed.query) }));
  }
  return known.get(raw) ?? parsed;
}

/**
 * Parses an origin-form request target (RFC 9112 §3.2.1). Whatever two parsers could read differently is refused, never repaired:
 * an upstream must not see another path than the policy saw. Throws Refusal (400) with one code for each cause.
 */
export function parseRequestTarget(raw: string): RequestTarget {
  if (raw.length > MAX_TARGET_LENGTH) {
    throw new Refusal("target-too-long", 414, `the request target is longer than ${MAX_TARGET_LENGTH} characters`);
  }
  if (!raw.startsWith("/")) {
    throw refused("target-form", 'the request target must start with "/": absolute and other forms are refused');
  }
  const mark = raw.indexOf("?");
  const path = mark === -1 ? raw : raw.slice(0, mark);
  const query = mark === -1 ? NO_QUERY : parseQuery(raw.slice(mark + 1));
  if (raw.includes("#")) throw refused("target-fragment", "the request target holds a fragment");
  return { raw, path: PLAIN_PATH.test(path) ? path : decodePath(path), query };
}

function decodePath(path: string): string {
  if (path.includes("\\")) throw refused("target-backslash", "the path holds a backslash");
  if (path.includes(";")) throw refused("target-parameter", 'the path holds ";": servers disagree about what it means');
  if (!PATH.test(path)) throw refused("target-character", "the path holds a character that must be percent-encoded");
  if (path.includes("//")) throw refused("target-empty-segment", 'the path holds "//"');
  checkEscapes(path);
  for (const segment of path.split("/")) {
    if (segment === "." || segment === "..") throw refused("target-dot-segment", 'the path holds "." or ".."');
    // Windows file systems and some routers drop a trailing dot, and a trailing space.
    if (/(?:\.|%20)$/.test(segment)) throw refused("target-trailing-dot", "a path segment ends with a dot or a space");
  }
  const decoded = decodeUtf8(path, "path");
  checkCharacters(decoded);
  return decoded;
}

function checkCharacters(decoded: string): void {
  if (/\p{Cc}/u.test(decoded)) throw refused("target-encoded-control", "the path holds an encoded control");
  for (const character of decoded.match(/[^\0-\x7f]/gu) ?? []) {
    // A server that normalises (UAX #15) makes "/" of a full-width solidus, and ".." of a two-dot leader.
    if (/[\0-\x7f]/.test(character.normalize("NFKC"))) {
      throw refused("target-look-alike", `the path holds ${JSON.stringify(character)}, which can be taken for ASCII`);
    }
  }
}

function checkEscapes(path: string): void {
  for (let at = path.indexOf("%"); at !== -1; at = path.indexOf("%", at + 1)) {
    const digits = path.slice(at + 1, at + 3);
    if (!/^[0-9A-Fa-f]{2}$/.test(digits)) throw refused("target-escape", 'the path holds "%" without two hex digits');
    const byte = Number.parseInt(digits, 16);
    const character = String.fromCharCode(byte);
    if (character === "/" || character === "\\" || character === ";") {
      throw refused("target-encoded-separator", `the path holds an encoded "${character}"`);
    }
    if (character === "." && dotSegmentAround(path, at)) {
      throw refused("target-dot-segment", 'the path holds an encoded "." or ".."');
    }
    // RFC 3986 §2.3: unreserved characters should not be encoded; encoding them is only ever a way around a text comparison.
    if (/[A-Za-z0-9\-._~]/.test(character)) {
      throw refused("target-encoded-unreserved", `the path holds "%${digits}" for "${character}": write it plainly`);
    }
    if (character === "%" && /^[0-9A-Fa-f]{2}/.test(path.slice(at + 3))) {
      throw refused("target-double-encoding", "the path is encoded twice");
    }
  }
}

function dotSegmentAround(path: string, at: number): boolean {
  const start = path.lastIndexOf("/", at) + 1;
  const next = path.indexOf("/", at);
  const segment = path.slice(start, next === -1 ? undefined : next);
  return /^(?:\.|%2e){1,2}$/i.test(segment);
}

function parseQuery(query: string): Readonly<Record<string, string>> {
  // Python before 3.9.2 and others split at ";" too.
  if (query.includes(";")) throw refused("query-semicolon", 'the query holds ";": write %3B');
  if (query.includes("#")) throw refused("target-fragment", "the request target holds a fragment");
  if (query.includes("\\")) throw refused("target-backslash", "the query holds a backslash");
  if (!QUERY.test(query)) throw refused("target-character", "the query holds a character that must be percent-encoded");
  const parameters: Record<string, string> = Object.create(null) as Record<string, string>;
  const readings = new Set<string>();
  const lists = new Set<string>();
  for (const part of query.split("&")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const key = decodeParameter(equals === -1 ? part : part.slice(0, equals));
    // First wins, last wins or a list: each server has its own answer, so a rule about `query.x` would have none. Some take `X` and `x[]` for it too.
    const folded = key.toLowerCase();
    const bracket = folded.indexOf("[");
    const base = bracket === -1 ? folded : folded.slice(0, bracket);
    if (readings.has(folded) || readings.has(base) || (base === folded && lists.has(base))) {
      throw refused("query-duplicate-key", `the query holds ${JSON.stringify(key)} twice`);
    }
    readings.add(folded);
    if (base !== folded) lists.add(base);
    parameters[key] = equals === -1 ? "" : decodeParameter(part.slice(equals + 1));
  }
  return parameters;
}

function decodeParameter(text: string): string {
  if (/%(?![0-9A-Fa-f]{2})/.test(text)) throw refused("target-escape", 'the query holds "%" without two hex digits');
  if (/%00/.test(text)) throw refused("target-encoded-control", "the query holds an encoded NUL");
  return decodeUtf8(text.replaceAll("+", "%20"), "query");
}

function decodeUtf8(text: string, where: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new Refusal("target-utf8", 400, `the ${where} does not decode to UTF-8`, { cause });
  }
}

function refused(code: RefusalCode, message: string): Refusal {
  return new Refusal(code, 400, message);
}
