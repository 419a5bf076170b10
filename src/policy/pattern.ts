import { CodedError } from "../coded-error.js";
import { SpiffeId, TrustDomain } from "../spiffe/spiffe-id.js";

/** A name, or a segment of a path, in which at most one `*` stands for any characters: `get_*`. A slash in a name is a character as any other. */
export interface NamePattern {
  readonly text: string;
  /** True where the pattern holds no `*` and so equals one name only. */
  readonly literal: boolean;
  readonly prefix: string;
  readonly suffix: string;
}

/**
 * A path of segments, matched one by one and never by prefix, so that `/pay` does not match `/payroll`.
 * `*` stands for the characters of one segment (never none), a last segment `**` for one or more whole segments.
 */
export interface SegmentPattern {
  readonly text: string;
  readonly literal: boolean;
  readonly segments: readonly NamePattern[];
  /** True where the pattern ends in `**`. */
  readonly rest: boolean;
}

/** Identities: a SPIFFE ID, or a pattern over the path of the IDs of one trust domain. */
export interface IdentityPattern {
  readonly trustDomain: string;
  readonly path: SegmentPattern;
  /** The full SPIFFE ID, or the full form of the pattern: `spiffe://shop.local/agents/*`. */
  readonly text: string;
  /** For people: the name alone in our own trust domain, elsewhere in full. */
  readonly shown: string;
}

const MAX_SEGMENTS = 64;

/** Reads a name pattern. Throws CodedError `pattern-invalid` if it holds more than one `*`: one keeps matching linear and readable. */
export function parseNamePattern(text: string): NamePattern {
  const star = text.indexOf("*");
  if (star === -1) return { text, literal: true, prefix: text, suffix: "" };
  if (text.indexOf("*", star + 1) !== -1) {
    throw new CodedError("pattern-invalid", `${JSON.stringify(text)} holds more than one *`, {
      hint: "one * in a name or segment; ** only as the last segment",
    });
  }
  return { text, literal: false, prefix: text.slice(0, star), suffix: text.slice(star + 1) };
}

export function matchesName(pattern: NamePattern, name: string): boolean {
  if (pattern.literal) return pattern.text === name;
  return (
    name.length > 0 &&
    name.length >= pattern.prefix.length + pattern.suffix.length &&
    name.startsWith(pattern.prefix) &&
    name.endsWith(pattern.suffix)
  );
}

/** True only if every name that `inner` matches is matched by `outer` too. */
export function coversName(outer: NamePattern, inner: NamePattern): boolean {
  if (outer.literal) return inner.literal && inner.text === outer.text;
  if (inner.literal) return matchesName(outer, inner.text);
  return inner.prefix.startsWith(outer.prefix) && inner.suffix.endsWith(outer.suffix);
}

function parseSegments(text: string, parts: readonly string[]): SegmentPattern {
  if (parts.length > MAX_SEGMENTS) throw new CodedError("pattern-invalid", `more than ${MAX_SEGMENTS} segments`);
  const rest = parts.at(-1) === "**";
  const segments = (rest ? parts.slice(0, -1) : parts).map(parseNamePattern);
  return { text, rest, segments, literal: !rest && segments.every((segment) => segment.literal) };
}

export function matchesSegments(pattern: SegmentPattern, segments: readonly string[]): boolean {
  const fixed = pattern.segments.length;
  if (pattern.rest ? segments.length <= fixed : segments.length !== fixed) return false;
  // For each rule that is asked about each call: a closure would be garbage for each of them.
  let index = 0;
  for (const segment of pattern.segments) {
    if (!matchesName(segment, segments[index] ?? "")) return false;
    index += 1;
  }
  return true;
}

/** True only if every path that `inner` matches is matched by `outer` too. */
export function coversSegments(outer: SegmentPattern, inner: SegmentPattern): boolean {
  const fixed = outer.segments.length;
  if (!outer.rest && (inner.rest || inner.segments.length !== fixed)) return false;
  if (outer.rest && (inner.rest ? inner.segments.length < fixed : inner.segments.length <= fixed)) return false;
  return outer.segments.every((segment, index) => {
    const other = inner.segments[index];
    return other !== undefined && coversName(segment, other);
  });
}

/** Reads the `path` of a rule, `/v1/invoices/*`. Throws CodedError `pattern-invalid`. */
export function parsePathPattern(text: string): SegmentPattern {
  if (!text.startsWith("/")) {
    throw new CodedError("pattern-invalid", `path ${JSON.stringify(text)} must start with /`);
  }
  if (!isNormalisedPath(text) || /[?#]/.test(text)) {
    throw new CodedError(
      "pattern-invalid",
      `path ${JSON.stringify(text)} can never match: requests are matched by their normalised path without the query`,
    );
  }
  return parseSegments(text, text.slice(1).split("/"));
}

export function segmentsOfPath(path: string): readonly string[] {
  return path.slice(1).split("/");
}

// The relay forwards what it decided on; the decision point still refuses what two servers could read as two paths.
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are exactly what must not be in a path
const AMBIGUOUS_PATH = /^[^/]|\/\/|\/\.{1,2}(?:\/|$)|%(?:2[ef]|5c|00)|[\\\u0000-\u001f\u007f]| (?:\/|$)/i;

/** False for a path that some server could read as another one: dot segments, `//`, backslash, encoded `/`, `.` or `\`, control characters. */
export function isNormalisedPath(path: string): boolean {
  return path !== "" && !AMBIGUOUS_PATH.test(path);
}

/** A URI as rules see it. */
export interface UriParts {
  readonly text: string;
  readonly segments: readonly string[];
  /** The same without query, fragment and last slash, which a server may pass over. */
  readonly place: readonly string[];
  /** Segments and place in the one form that all their percent-encodings share. */
  readonly decoded: { readonly segments: readonly string[]; readonly place: readonly string[] };
  /** Some server could read it as another URI: dot segments, empty ones, encoded slashes or letters, backslash, control characters, another authority. */
  readonly ambiguous: boolean;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are exactly what must not be in a URI
const AMBIGUOUS_URI = /\/\.{1,2}(?:[/?#]|$)|[\\\u0000-\u0020\u007f]/;
/** Encoded what need not be, or must not be, encoded: letters, digits, `-._~`, slashes, NUL (RFC 3986 §6.2.2.2). */
const AMBIGUOUS_ENCODING = /%(?:2[def]|5[cf]|7e|00|3\d|[46][1-9a-f]|[57][0-9a])/i;
/** A user, an empty port, a last dot, an encoded name: another way to write the same authority (RFC 3986 §6.2.3), and so is the scheme's own port. */
const AMBIGUOUS_AUTHORITY = /@|%|:$|\.(?::|$)/;
const OWN_PORT = /^(?:http|ws):.*:80$|^(?:https|wss):.*:443$/;
const URI_START = /^(?<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?:\/\/(?<authority>[^/?#]*))?/;

/** The URI of an MCP resource; scheme and authority in lower case, in which they are the same URI (RFC 3986 §6.2.2.1). */
export function uriParts(uri: string): UriParts {
  const text = uri.replace(URI_START, (start) => start.toLowerCase());
  const [whole = ""] = text.split(/[?#]/, 1);
  const segments = text.split("/");
  const place = whole.replace(/\/$/, "").split("/");
  return {
    text,
    segments,
    place,
    // Few requests meet a rule that asks for it.
    get decoded() {
      return { segments: segments.map(decodedSegment), place: place.map(decodedSegment) };
    },
    ambiguous: AMBIGUOUS_URI.test(uri) || AMBIGUOUS_ENCODING.test(uri) || isAmbiguousPlace(whole),
  };
}

function isAmbiguousPlace(place: string): boolean {
  const { 0: start = "", groups: { scheme, authority = "" } = {} } = URI_START.exec(place) ?? {};
  if (scheme === undefined || AMBIGUOUS_AUTHORITY.test(authority) || OWN_PORT.test(start)) return true;
  if (place.includes("//", start.length)) return true;
  // `file:/x`, `file://localhost/x` and, for who looks at the path alone, `file://anything/x` are `file:///x` (RFC 8089).
  return scheme === "file" && (authority !== "" || !place.startsWith("file:///"));
}

const MAX_DECODINGS = 4;

/** The bytes that a segment is, as some server decodes it: also one that decodes twice. What is no escape stands for itself. */
function decodedSegment(segment: string): string {
  let bytes = Buffer.from(segment).toString("latin1");
  for (let round = 0; round < MAX_DECODINGS && bytes.includes("%"); round += 1) {
    bytes = bytes.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  }
  return bytes;
}

const decodedPatterns = new WeakMap<SegmentPattern, SegmentPattern>();

/** The pattern over decoded segments: what it matches there is what it names, however it is encoded. */
export function decodedPattern(pattern: SegmentPattern): SegmentPattern {
  let decoded = decodedPatterns.get(pattern);
  if (decoded === undefined) {
    const segments = pattern.segments.map((segment) => ({
      literal: segment.literal,
      text: decodedSegment(segment.text),
      prefix: decodedSegment(segment.prefix),
      suffix: decodedSegment(segment.suffix),
    }));
    decoded = { ...pattern, segments };
    decodedPatterns.set(pattern, decoded);
  }
  return decoded;
}

/** Reads the `resource` of a rule, `file:///docs/*`: matched by segments, as a path is. Throws CodedError `pattern-invalid`. */
export function parseUriPattern(given: string): SegmentPattern {
  if (!/^[A-Za-z][A-Za-z0-9+.-]*:/.test(given)) {
    throw new CodedError("pattern-invalid", `${JSON.stringify(given)} is no URI: it has no scheme`);
  }
  const { text, segments, ambiguous } = uriParts(given);
  if (ambiguous) {
    throw new CodedError("pattern-invalid", `${JSON.stringify(given)} could be read as another URI`);
  }
  if (/^[^/]*:\/\/[^/]*\*/.test(text)) {
    throw new CodedError("pattern-invalid", `${JSON.stringify(given)}: no * in the authority of a URI`);
  }
  return parseSegments(text, segments);
}

const SCHEME = "spiffe://";

/**
 * Reads `agents/billing`, `agents/*`, `agents/**` (in `ownTrustDomain`) or a full SPIFFE ID, whose path may hold the same patterns but whose
 * trust domain is always literal: nobody is granted anything by the look of a foreign domain's name.
 * Throws CodedError `pattern-invalid` or SpiffeIdError.
 */
export function parseIdentityPattern(text: string, ownTrustDomain: TrustDomain): IdentityPattern {
  const full = text.startsWith(SCHEME);
  const slash = full ? text.indexOf("/", SCHEME.length) : -1;
  const trustDomain = full
    ? TrustDomain.parse(text.slice(SCHEME.length, slash === -1 ? undefined : slash))
    : ownTrustDomain;
  const name = full ? (slash === -1 ? "" : text.slice(slash + 1)) : text;
  if (name === "" || name.startsWith("/"))
    throw new CodedError("pattern-invalid", `${JSON.stringify(text)} names no identity`);
  const path = parseSegments(name, name.split("/"));
  // What is left when each pattern is replaced by a letter must be an ID that can exist.
  SpiffeId.of(trustDomain, name.replaceAll("**", "x").replaceAll("*", "x"));
  const id = `${SCHEME}${trustDomain.name}/${name}`;
  return { trustDomain: trustDomain.name, path, text: id, shown: trustDomain.name === ownTrustDomain.name ? name : id };
}

export function coversIdentity(outer: IdentityPattern, inner: IdentityPattern): boolean {
  return outer.trustDomain === inner.trustDomain && coversSegments(outer.path, inner.path);
}

/** A SPIFFE ID as a rule sees it: split once for each request. */
export interface IdentityParts {
  readonly id: string;
  readonly trustDomain: string;
  readonly name: string;
  readonly segments: readonly string[];
}

// Parsing an ID costs as much as the rest of a decision, and the same few callers and services come again and again.
const knownParts = new Map<string, IdentityParts>();
const MAX_KNOWN_PARTS = 4096;

/** The parts of a SPIFFE ID's text. Throws SpiffeIdError. */
export function identityParts(id: string): IdentityParts {
  const known = knownParts.get(id);
  if (known !== undefined) return known;
  const parsed = SpiffeId.parse(id);
  const parts = { id, trustDomain: parsed.trustDomain.name, name: parsed.name, segments: segmentsOfName(parsed.name) };
  if (knownParts.size >= MAX_KNOWN_PARTS) knownParts.clear();
  knownParts.set(id, parts);
  return parts;
}

// The ID of the trust domain itself has no path: no segments, and so no pattern matches it.
function segmentsOfName(name: string): readonly string[] {
  return name === "" ? [] : name.split("/");
}

export function matchesIdentity(pattern: IdentityPattern, identity: IdentityParts): boolean {
  if (pattern.path.literal) return pattern.text === identity.id;
  return pattern.trustDomain === identity.trustDomain && matchesSegments(pattern.path, identity.segments);
}
