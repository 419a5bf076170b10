import { setTimeout } from "node:timers/promises";
import { styleText } from "node:util";

/** Tells the demonstration: a sentence before, what was seen, a sentence after. Words carry everything; colour only helps. */
export interface Narrator {
  scene(number: number, title: string, before: string): void;
  seen(text: string): void;
  /** What the scene had to show, and whether it did. */
  proved(claim: string, holds: boolean): void;
  after(text: string): Promise<void>;
  say(text: string): void;
}

export interface NarratorOptions {
  readonly write: (text: string) => void;
  readonly colour: boolean;
  /** Milliseconds to read a sentence; 0 with `--fast`. */
  readonly pauseMs: number;
  /** Ends a pause at once. */
  readonly signal: AbortSignal;
}

export function createNarrator({ write, colour, pauseMs, signal }: NarratorOptions): Narrator {
  const style = (format: Parameters<typeof styleText>[0], text: string) =>
    colour ? styleText(format, text, { validateStream: false }) : text;
  const line = (text = "") => write(`${text}\n`);
  return {
    scene(number, title, before) {
      line();
      line(`${style("bold", `${number}. ${title}`)}`);
      line(`   ${before}`);
    },
    seen(text) {
      for (const each of text.split("\n")) line(`   ${style("dim", "│")} ${each}`);
    },
    proved(claim, holds) {
      line(`   ${holds ? style("green", "✓ shown") : style("red", "✗ NOT SHOWN")}  ${claim}`);
    },
    async after(text) {
      line(`   ${style("cyan", text)}`);
      if (pauseMs > 0) await setTimeout(pauseMs, undefined, { signal }).catch(() => undefined);
    },
    say: line,
  };
}
