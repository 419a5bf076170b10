/**
 * Text from outside, made safe to show in a terminal, a log line or an event (D23): what attackers write must not move the cursor, change colours,
 * reverse reading order or hide. Removed: terminal sequences (CSI, OSC, DCS and their kin, 7- and 8-bit), C0 and C1 control characters, bidi
 * controls, zero-width and other invisible characters, lone surrogates, private-use characters. Line ends and tabs become one space.
 * The answer has at most `maxLength` characters, the last of them `…` where something was cut off, and never half a surrogate pair.
 */
export function displayText(text: string, maxLength = 200): string {
  // Nearly all text is plain, and this is asked for every call.
  if (text.length <= maxLength && PLAIN.test(text)) return text;
  // Blanks a second time: two of them with something invisible between are one.
  // Cut before cleaning too, so that a megabyte of escapes costs no more than a line of them.
  const bounded = text.length > maxLength * 8 + 64 ? text.slice(0, maxLength * 8 + 64) : text;
  const clean = bounded
    .replaceAll(TERMINAL_STRINGS, "")
    .replaceAll(TERMINAL_SEQUENCES, "")
    .replaceAll(BLANKS, " ")
    .replaceAll(INVISIBLE, "")
    .replaceAll(BLANKS, " ")
    .replaceAll(STACKED_MARKS, "$1");
  const cutShort = bounded.length < text.length;
  if (clean.length <= maxLength && !cutShort) return clean;
  if (maxLength < 1) return "";
  const short = clean.slice(0, maxLength - 1).replace(/[\ud800-\udbff]$/, "");
  return `${short}…`;
}

const PLAIN = /^[ -~]*$/;

/** Line ends, tabs and every other blank; not U+FEFF, which JavaScript counts among them and nobody sees. */
const BLANKS = /(?:[^\S\ufeff]|\u0085)+/gu;

// OSC, DCS, SOS, PM and APC carry a string up to BEL or ST. Of an unfinished one only the introducer goes, so that nothing can hide what follows.
const TERMINAL_STRINGS =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is removed
  /(?:\u001b[\]PX^_]|[\u009d\u0090\u0098\u009e\u009f])(?:[^\u0007\u001b\u0090\u0098\u009c-\u009f]*(?:\u0007|\u001b\\|\u009c))?/g;

// CSI with its parameters, then any other escape with its intermediate bytes.
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is removed
const TERMINAL_SEQUENCES = /(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]?|\u001b[ -/]*[0-~]?/g;

/** Control, format (bidi, zero-width, tags), surrogate, private-use and unassigned characters, and the blanks and selectors that look like nothing. */
const INVISIBLE =
  /\p{C}|\u034f|[\u115f\u1160\u2800\u3164\uffa0]|\u17b4|\u17b5|[\u180b-\u180f]|[\ufe00-\ufe0f]|[\u{e0100}-\u{e01ef}]/gu;

/** More than three combining marks on one character paint over the lines around it. */
const STACKED_MARKS = /(\p{M}{3})\p{M}+/gu;

/** Where a call goes: `invoices/v1/items`, `payments/issue_refund`. */
export function destination(service: string, target: string): string {
  // A record is asked about as a whole: `record:record-1`.
  if (service.endsWith(`:${target}`)) return service;
  return target.startsWith("/") ? service + target : `${service}/${target}`;
}
