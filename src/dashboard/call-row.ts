import type { Call } from "./call-log.js";
import { cut, filled, line, type Span, type TextLine, widthOf } from "./text-line.js";
import { bytesPassed, callResult, clockTime, duration, shortCaller } from "./words.js";

/** Widths of the columns that depend on what is visible; in cells. */
export interface CallColumns {
  readonly caller: number;
  readonly service: number;
}

const WIDEST_NAME = 18;

/** Columns wide enough for the visible calls, so that arrows line up. */
export function callColumns(calls: readonly Call[], names: ReadonlySet<string>): CallColumns {
  const widest = (texts: string[]): number => Math.min(WIDEST_NAME, Math.max(7, ...texts.map(widthOf)));
  return {
    caller: widest(calls.map((call) => shortCaller(call.decided.caller, names))),
    service: widest(calls.map((call) => call.decided.service)),
  };
}

/** `12:04:31.7  DENY   billing   → payments  issue_refund {amount:4200}   small-refunds: 4200 <= 1000 is false` */
function callSpans(call: Call, columns: CallColumns, names: ReadonlySet<string>, width: number): Span[] {
  const { decided } = call;
  const denied = decided.verdict === "DENY";
  const head: Span[] = [
    { text: `${clockTime(decided.time)}  `, tone: "dim" },
    { text: filled(decided.verdict, 5), tone: denied ? "deny" : "allow" },
    {
      text: `  ${filled(shortCaller(decided.caller, names), columns.caller)} → ${filled(decided.service, columns.service)}  `,
    },
  ];
  const room = width - head.reduce((sum, span) => sum + widthOf(span.text), 0);
  return [...head, ...(denied ? deniedTail(call, room) : allowedTail(call, room))];
}

function deniedTail({ decided }: Call, room: number): Span[] {
  const why = decided.reason.startsWith(decided.rule) ? decided.reason : `${decided.rule}: ${decided.reason}`;
  // The reason matters more than the arguments: where both do not fit, these give way first.
  const summaryWidth = Math.min(widthOf(decided.summary), Math.max(Math.floor(room * 0.45), room - widthOf(why) - 2));
  const summary = cut(decided.summary, summaryWidth);
  return [{ text: `${summary}  ` }, { text: cut(why, room - widthOf(summary) - 2), tone: "deny" }];
}

function allowedTail(call: Call, room: number): Span[] {
  const took = call.ended === undefined ? "" : duration(call.ended.durationMs);
  const result = `${cut(callResult(call), Math.floor(room / 2))}${took === "" ? "" : filled(took, 9, "right")}`;
  const failed = call.ended !== undefined && hasFailed(call.ended);
  return [
    { text: `${filled(call.decided.summary, Math.max(0, room - widthOf(result) - 2))}  ` },
    { text: result, tone: failed ? "wait" : "plain" },
  ];
}

function hasFailed(ended: NonNullable<Call["ended"]>): boolean {
  if (ended.error !== undefined) return true;
  return bytesPassed(ended) === undefined && (ended.status ?? 500) >= 500;
}

/** A row of the list, marked when it is selected. */
export function callRow(
  call: Call,
  options: { columns: CallColumns; names: ReadonlySet<string>; width: number; selected: boolean },
): TextLine {
  const mark = options.selected ? "▸" : " ";
  const spans = callSpans(call, options.columns, options.names, options.width - 1);
  return { ...line(mark, ...spans), selected: options.selected };
}
