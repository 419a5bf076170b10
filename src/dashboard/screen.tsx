import { Box, Text } from "ink";
import type { ReactNode } from "react";
import { detailOf, processLines } from "./detail-text.js";
import { Frame, Line } from "./frame.js";
import { type Layout, layoutOf, missingRoom } from "./layout.js";
import { overlayText } from "./overlay-lines.js";
import { currentRow } from "./rows-of-screen.js";
import { bannerLines, footerLine, headerLine, identityNames, identitySpans, listFrame } from "./screen-lines.js";
import type { Overlay, State } from "./state.js";
import { cut, line } from "./text-line.js";

const FRAME_COLUMNS = 4;

/** The whole screen for a state. */
export function Screen({ state }: { readonly state: State }): ReactNode {
  const { columns, rows } = state.size;
  const missing = missingRoom(state.size);
  if (missing !== undefined) return <Text>{cut(missing, columns)}</Text>;
  const layout = layoutOf(state);
  return (
    <Box flexDirection="column" width={columns} height={rows}>
      <Line content={headerLine(state, columns)} width={columns} />
      {bannerLines(state).map((content) => (
        <Line key={content.spans[0]?.text} content={content} width={columns} />
      ))}
      {state.overlay === undefined ? (
        <Body state={state} layout={layout} />
      ) : (
        <OverlayFrame overlay={state.overlay} state={state} layout={layout} />
      )}
      <Line content={footerLine(state, columns)} width={columns} />
    </Box>
  );
}

function Body({ state, layout }: { readonly state: State; readonly layout: Layout }): ReactNode {
  const { columns, listHeight, listRows, bottomHeight, leftColumns } = layout;
  const list = listFrame(state, { width: columns - FRAME_COLUMNS, rows: listRows });
  const isCallList = state.screen === "calls" || state.screen === "denials";
  const isIdentities = state.screen === "identities";
  const detailColumns = isCallList || isIdentities ? columns - leftColumns : columns;
  const detail = detailOf(currentRow(state), state, detailColumns - FRAME_COLUMNS);
  const processes = { title: "Processes", lines: processLines(state, leftColumns - FRAME_COLUMNS) };
  return (
    <>
      <Frame {...list} width={columns} height={listHeight} />
      <Box>
        {isCallList ? <IdentitiesFrame state={state} width={leftColumns} height={bottomHeight} /> : null}
        <Frame {...detail} width={detailColumns} height={bottomHeight} />
        {isIdentities ? <Frame {...processes} width={leftColumns} height={bottomHeight} /> : null}
      </Box>
    </>
  );
}

/** The identities beside the detail pane; those that expire first come first when not all fit. */
function IdentitiesFrame(props: { readonly state: State; readonly width: number; readonly height: number }): ReactNode {
  const { state, width, height } = props;
  const rows = height - 2;
  const expiry = (notAfter: string | undefined): number =>
    notAfter === undefined ? Number.POSITIVE_INFINITY : Date.parse(notAfter);
  const all = state.identities;
  const shown = all.length <= rows ? all : all.toSorted((a, b) => expiry(a.notAfter) - expiry(b.notAfter));
  const names = identityNames(state);
  const lines = shown
    .slice(0, rows)
    .map((identity) => line(...identitySpans(identity, state.now, names, width - FRAME_COLUMNS)));
  const note = all.length > rows ? `${rows} of ${all.length}, 3: all` : "";
  return <Frame title="Identities" note={note} lines={lines} width={width} height={height} />;
}

function OverlayFrame(props: { readonly overlay: Overlay; readonly state: State; readonly layout: Layout }): ReactNode {
  const { overlay, state, layout } = props;
  const { title, note, lines } = overlayText(overlay, state, layout.columns - FRAME_COLUMNS);
  const page = layout.bodyHeight - 2;
  const first = Math.min(overlay.scroll, Math.max(0, lines.length - page));
  const more = lines.length > page ? `${first + 1}-${Math.min(lines.length, first + page)} of ${lines.length}  ` : "";
  return (
    <Frame
      title={title}
      note={`${more}${note}`}
      lines={lines.slice(first, first + page)}
      width={layout.columns}
      height={layout.bodyHeight}
    />
  );
}
