/** Cuts a stream of server-sent events into events, each with the empty line that ends it. */
export interface EventCutter {
  /** The events that are complete now. */
  push(chunk: Buffer): string[];
  /** Characters that no event has ended. */
  readonly pending: number;
}

export function cutEvents(): EventCutter {
  const decoder = new TextDecoder("utf-8");
  // An event ends at an empty line; lines end in LF, CR or CRLF.
  const boundary = /\r\n\r\n|\n\n|\r\r(?!\n)|\n\r\n|\r\n\n/g;
  let pending = "";
  let searched = 0;
  return {
    push(chunk) {
      pending += decoder.decode(chunk, { stream: true });
      const events: string[] = [];
      for (;;) {
        boundary.lastIndex = searched;
        if (!boundary.test(pending)) break;
        events.push(pending.slice(0, boundary.lastIndex));
        pending = pending.slice(boundary.lastIndex);
        searched = 0;
      }
      // A boundary may have begun in the last three characters.
      searched = Math.max(0, pending.length - 3);
      return events;
    },
    get pending() {
      return pending.length;
    },
  };
}

/** The data of an event: its `data` lines, joined. */
export function dataOf(event: string): string {
  return dataLines(linesOf(event))
    .map((line) => line.slice(5).replace(/^ /, ""))
    .join("\n");
}

/** The event with other data. */
export function withData(event: string, data: string): string {
  const others = linesOf(event).filter((line) => line !== "" && line !== "data" && !line.startsWith("data:"));
  return `${[...others, `data: ${data}`].join("\n")}\n\n`;
}

function linesOf(event: string): string[] {
  return event.split(/\r\n|\n|\r/);
}

function dataLines(lines: readonly string[]): string[] {
  return lines.filter((line) => line === "data" || line.startsWith("data:"));
}
