import { changeLines, detailOf, whyText } from "./detail-text.js";
import { KEYS } from "./keys.js";
import { currentRow } from "./rows-of-screen.js";
import type { Overlay, State } from "./state.js";
import { line, type TextLine } from "./text-line.js";

/** What lies over the lists: a title, a note beside it, and all lines; the view cuts out what fits. */
export function overlayText(
  overlay: Overlay,
  state: State,
  width: number,
): { title: string; note: string; lines: readonly TextLine[] } {
  switch (overlay.is) {
    case "keys":
      return { title: "Keys", note: "Esc back", lines: keyLines() };
    case "detail":
      return { ...detailOf(currentRow(state), state, width), note: "Esc back" };
    case "why":
      return { title: `Why ${overlay.decision}`, note: "c copy id  Esc back", lines: whyText(overlay.answer, width) };
    case "confirm":
      return {
        title: overlay.accept ? "Accept this reload?" : "Refuse this reload?",
        note: "y yes  Esc no",
        lines: confirmLines(overlay.accept, state, width),
      };
  }
}

function keyLines(): TextLine[] {
  return KEYS.map(({ shown, help }) => line({ text: ` ${shown.padEnd(10)}`, tone: "strong" }, help));
}

function confirmLines(accept: boolean, state: State, width: number): TextLine[] {
  const pending = state.pendingReload;
  if (pending === undefined) return [line("no reload is waiting")];
  return [
    line({
      text: accept ? "From now on this would hold:" : "This would be dropped; the last good state stays:",
      tone: "strong",
    }),
    ...changeLines(pending, width),
    line(""),
    ...(pending.widened ? [line({ text: "WIDENED: it permits more than before.", tone: "wait" })] : []),
    line({ text: `[y] ${accept ? "accept" : "refuse"}   [Esc] back`, tone: "strong" }),
  ];
}
