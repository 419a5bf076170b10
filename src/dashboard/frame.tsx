import { Box, Text } from "ink";
import type { ReactNode } from "react";
import { cut, filledSpans, type TextLine, type Tone, widthOf } from "./text-line.js";

type TextStyle = { color?: string; bold?: boolean; dimColor?: boolean };

const STYLES: Readonly<Record<Tone, TextStyle>> = {
  plain: {},
  strong: { bold: true },
  dim: { dimColor: true },
  allow: { color: "green" },
  deny: { color: "red", bold: true },
  wait: { color: "yellow" },
};

/** https://no-color.org: any value but the empty one. Then not a single style is written. */
const withoutColour = (process.env.NO_COLOR ?? "") !== "";

interface LineProps {
  readonly content: TextLine;
  readonly width: number;
  /** What stands left and right of it, outside of `width`. */
  readonly border?: string;
}

/** One line of the screen, exactly `width` cells wide. A single text to lay out: frames have many of them. */
export function Line({ content, width, border = "" }: LineProps): ReactNode {
  const spans = filledSpans(content.spans, width);
  if (withoutColour) return <Text>{`${border}${spans.map((span) => span.text).join("")}${mirrored(border)}`}</Text>;
  return (
    <Text>
      {border}
      {spans.map((span, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: the pieces of one line have no identity beyond their place
        <Text key={index} inverse={content.selected === true} {...STYLES[span.tone ?? "plain"]}>
          {span.text}
        </Text>
      ))}
      {mirrored(border)}
    </Text>
  );
}

function mirrored(border: string): string {
  return [...border].reverse().join("");
}

export interface FrameProps {
  readonly title: string;
  readonly note?: string;
  readonly lines: readonly TextLine[];
  /** With the border, in cells. */
  readonly width: number;
  readonly height: number;
}

/** Lines in a border that carries a title on its left and a note on its right. Never higher or wider than it says. */
export function Frame({ title, note = "", lines, width, height }: FrameProps): ReactNode {
  const inner = width - 4;
  const rows = Array.from({ length: Math.max(0, height - 2) }, (_, index) => lines[index] ?? { spans: [] });
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text>{topBorder(title, note, width)}</Text>
      {rows.map((row, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a line of the screen is its place
        <Line key={index} content={row} width={inner} border="│ " />
      ))}
      <Text>{`└${"─".repeat(width - 2)}┘`}</Text>
    </Box>
  );
}

function topBorder(title: string, note: string, width: number): string {
  const right = note === "" ? "" : ` ${cut(note, Math.floor(width * 0.6))} `;
  const left = ` ${cut(title, width - widthOf(right) - 6)} `;
  const rule = "─".repeat(Math.max(0, width - 2 - widthOf(left) - widthOf(right)));
  return `┌${left}${rule}${right}┐`;
}
