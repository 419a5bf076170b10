import stringWidth from "string-width";

/** What a piece of text means; colour and weight follow from it, never the other way round. */
export type Tone = "plain" | "strong" | "dim" | "allow" | "deny" | "wait";

export interface Span {
  readonly text: string;
  readonly tone?: Tone;
}

/** One line of the screen. */
export interface TextLine {
  readonly spans: readonly Span[];
  readonly selected?: boolean;
}

export function line(...spans: readonly (Span | string)[]): TextLine {
  return { spans: spans.map((span) => (typeof span === "string" ? { text: span } : span)) };
}

const onlyAscii = /^[\x20-\x7e]*$/;

/** Width in terminal cells. */
export function widthOf(text: string): number {
  return onlyAscii.test(text) ? text.length : stringWidth(text);
}

/** `text` cut to at most `width` cells; what was cut ends in `…`. */
export function cut(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  if (width <= 0) return "";
  if (onlyAscii.test(text)) return `${text.slice(0, width - 1)}…`;
  let kept = "";
  let used = 0;
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    used += widthOf(segment);
    if (used > width - 1) break;
    kept += segment;
  }
  return `${kept}…`;
}

/** `text` cut or filled with spaces to exactly `width` cells. */
export function filled(text: string, width: number, align: "left" | "right" = "left"): string {
  const short = cut(text, width);
  const space = " ".repeat(Math.max(0, width - widthOf(short)));
  return align === "left" ? short + space : space + short;
}

/** The spans cut or filled to exactly `width` cells together. */
export function filledSpans(spans: readonly Span[], width: number): readonly Span[] {
  const fitted: Span[] = [];
  let room = width;
  for (const span of spans) {
    if (room <= 0) break;
    const text = cut(span.text, room);
    fitted.push({ ...span, text });
    room -= widthOf(text);
  }
  if (room > 0) fitted.push({ text: " ".repeat(room) });
  return fitted;
}

/** `text` broken at spaces into lines of at most `width` cells; a longer word is broken anywhere. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let current = "";
  for (const word of text.split(" ")) {
    const joined = current === "" ? word : `${current} ${word}`;
    if (widthOf(joined) <= width) {
      current = joined;
      continue;
    }
    if (current !== "") lines.push(current);
    let rest = word;
    while (widthOf(rest) > width) {
      const head = cut(rest, width + 1).slice(0, -1);
      if (head === "") break;
      lines.push(head);
      rest = rest.slice(head.length);
    }
    current = rest;
  }
  lines.push(current);
  return lines;
}
